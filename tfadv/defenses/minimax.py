"""Hamm 2018: adversarial training with the sensitivity of the adversarial loss."""

import tensorflow as tf

from tfadv.defenses.adversarial import AdversarialTraining


class Minimax(AdversarialTraining):
    """L = alpha * mean J(x, y)
        + (1 - alpha) * mean_i [J(x_adv_i, y_i) + gradient_weight * |g_i|]

    with g_i = dJ(x_adv_i, y_i) / dx_adv_i and the l2 norm. As x_adv is only about the
    worst image in the ball, a step that lowers its loss may raise the loss beside it;
    the second term keeps the loss flat there. Its gradient goes through g, by
    differentiating twice.

    In print the weight is eps N / 2 with N images in a batch, and it is not said
    whether the norm is of each image or of the batch. Here it is of each, and N undoes
    the 1 / N of the mean loss. That of the batch is eps / 2 sqrt(sum_i |g_i|^2), at
    least sqrt(N) times as much: about `gradient_weight` = eps sqrt(N) / 2, which is 2.4
    for MNIST (0.3, 256). Clean and adversarial images share one pass.

    Of a network with batch normalisation the second derivative lacks a share of 1 /
    (images x positions): TensorFlow's statistics of a batch are made to be
    differentiated once. Those of `train.sync_bn` on several replicas are exact.

    Args:
        classifier, attack, label_smoothing, seed: see `AdversarialTraining`.
        alpha: share of the clean loss, in [0, 1); 0 as in eq. 5, the paper's own runs
            mix without saying how.
        gradient_weight: of |g_i|; None means eps / 2 with the eps of the attack.

    Raises:
        ValueError: `alpha` outside [0, 1), a negative `gradient_weight`.

    Source: e2SAD 2019, eq. 5, after Hamm 2018, "Machine vs machine".
    """

    def __init__(
        self,
        classifier,
        *,
        attack,
        alpha: float = 0.6,
        gradient_weight: float | None = None,
        label_smoothing: float = 0.0,
        seed: int = 0,
        name=None,
    ):
        super().__init__(
            classifier,
            attack=attack,
            alpha=alpha,
            label_smoothing=label_smoothing,
            seed=seed,
            name=name,
        )
        if gradient_weight is not None and gradient_weight < 0:
            raise ValueError(
                f"`gradient_weight` must not be negative; received {gradient_weight}"
            )
        self.gradient_weight = gradient_weight

    def train_step(self, data):
        x, y = self.unpack(data)
        x_adv = self.craft(x, y)
        weight = self.gradient_weight
        if weight is None:
            weight = self.attack.eps / 2
        with tf.GradientTape() as tape:
            with tf.GradientTape() as inner:
                inner.watch(x_adv)
                both = self.classifier(tf.concat([x, x_adv], 0), training=True)
                logits, logits_adv = tf.split(both, 2)
                adversarial = self.cross_entropy(y, logits_adv)
                total = tf.reduce_sum(adversarial)
            norms = _norms(inner.gradient(total, x_adv))
            loss = self.regularized(
                self.alpha * tf.reduce_mean(self.cross_entropy(y, logits))
                + (1 - self.alpha) * tf.reduce_mean(adversarial + weight * norms)
            )
        self.descend(tape, loss)
        return self.finish(loss, clean=(y, logits), adversarial=(y, logits_adv))


def _norms(gradient):
    """|g_i| [n], whose own gradient at 0 is 0."""
    squares = tf.reduce_sum(gradient**2, axis=[1, 2, 3])
    positive = squares > 0
    return tf.where(positive, tf.sqrt(tf.where(positive, squares, 1.0)), 0.0)
