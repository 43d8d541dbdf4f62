"""Na, Ko, Mukhopadhyay 2018: adversarial training with a unified embedding."""

from typing import Literal

import tensorflow as tf

from tfadv import losses
from tfadv.defenses.base import with_features
from tfadv.defenses.mixed_batch import MixedBatch
from tfadv.errors import check_literals


class UnifiedEmbedding(MixedBatch):
    """Adversarial images are added to the batch and pulled to their clean twins.

        read n images, add the adversarial images of the first k (current weights)
        L = [sum_clean J(x, y) + lambda * sum_adv J(x_adv, y)] / [n + lambda * k]
            + lambda2 * sum_{i < k} d(E(x_adv_i), E(x_i))
        one step on L, the n + k images in one batch

    The second term is a **sum** over the pairs of the whole batch and over the
    components of the embedding E, so lambda2 means another thing for another k.

    | mode               | which embedding moves                                     |
    |--------------------|-----------------------------------------------------------|
    | `bidirectional`    | both                                                      |
    | `pivot`            | the adversarial one: E(x) is a pivot, held in a           |
    |                    | non-trainable variable that each step assigns             |
    | `pivot_released`   | both: the authors' code loses the variable again, so what |
    |                    | it calls pivot is `bidirectional`                         |

    A bare pivot runs away. Where weights w map features f to an embedding, the pull
    moves w by -w (f_adv - f) f_adv^T, which lengthens it along every direction in which
    adversarial features are the shorter ones; the clean embedding grows with it and
    pulls all the more. So `pivot` adds `damping` / 2 * |E(x)|^2 to every pair, whose
    step -damping w f f^T outweighs that where the features differ by less than this
    share of their length.

    Args:
        classifier, attack, k, adversarial_weight, eps_law, delay, stored,
            label_smoothing, seed: see `MixedBatch`; k defaults to the whole batch, the
            law to the `"clipped"` one of this paper.
        mode: see above.
        embedding_weight: lambda2.
        norm, distance_half: of d; see `losses.embedding_distance`.
        damping: of `pivot`; 0 for the bare formula.
        embedding: name of the layer whose output is E; None means the logits.

    Raises:
        ValueError: as `MixedBatch`; a negative lambda2 or damping, another mode or
            norm, no such layer.

    Source: Na et al. 2018, section 3.2, eq. 3 and footnote 4 (n = k = 64, lambda =
    0.3, lambda2 = 1e-4).
    """

    def __init__(
        self,
        classifier,
        *,
        attack,
        mode: Literal["bidirectional", "pivot", "pivot_released"] = "pivot",
        embedding_weight: float = 1e-4,
        norm: Literal[1, 2] = 2,
        distance_half: bool = True,
        damping: float = 0.1,
        embedding: str | None = None,
        k: int | None = None,
        adversarial_weight: float = 0.3,
        eps_law: str = "clipped",
        delay: int = 0,
        stored: int = 0,
        label_smoothing: float = 0.0,
        seed: int = 0,
        name=None,
    ):
        super().__init__(
            classifier,
            attack=attack,
            k=k,
            adversarial_weight=adversarial_weight,
            eps_law=eps_law,
            delay=delay,
            stored=stored,
            label_smoothing=label_smoothing,
            seed=seed,
            name=name,
        )
        for option, value in (
            ("embedding_weight", embedding_weight),
            ("damping", damping),
        ):
            if value < 0:
                raise ValueError(f"`{option}` must not be negative; received {value}")
        check_literals(type(self).__init__, mode=mode, norm=norm)
        self.mode = mode
        self.embedding_weight = embedding_weight
        self.norm = norm
        self.distance_half = distance_half
        self.damping = damping
        self.embedding = embedding
        # `fit` calls no `build`; a classifier without shapes has to wait for one.
        if classifier.built:
            self.build(classifier.input_shape)

    def default_k(self, m):
        return m

    def build(self, input_shape):
        super().build(input_shape)
        self._embed, shape = _embedder(self.classifier, self.embedding)
        if self.mode == "pivot":
            # Its length is that of the batch; its values live for one step.
            self.pivot = tf.Variable(
                tf.zeros([1, *shape]), shape=[None, *shape], trainable=False
            )

    def train_step(self, data):
        x, y = self.unpack(data)
        _, k = self.split(x)
        delayed = self.delayed()
        x_adv = self.craft(data, k, delayed)
        y_both = tf.concat([y[:k], y], 0)
        with tf.GradientTape() as tape:
            logits, embedding = self._embed(tf.concat([x_adv, x], 0), training=True)
            # Of an inner layer it may be of lower precision than the logits.
            embedding = tf.cast(embedding, tf.float32)
            distance = self._distance(embedding[:k], embedding[k : 2 * k])
            # `descend` averages over the replicas; this is the sum over all of them.
            replicas = self.distribute_strategy.num_replicas_in_sync
            loss = self.regularized(
                self.mean_loss(y_both, logits, k, delayed)
                + tf.where(delayed, 0.0, self.embedding_weight)
                * replicas
                * tf.reduce_sum(distance)
            )
        self.descend(tape, loss)
        return self.finish(
            loss,
            clean=(y, logits[k:]),
            adversarial=(y[:k], logits[:k]),
            adversarial_weight=1.0 - tf.cast(delayed, tf.float32),
        )

    def _distance(self, adversarial, clean):
        """What the pairs add to the loss, [k]."""
        distance = losses.embedding_distance(
            adversarial,
            self._target(clean),
            norm=self.norm,
            half=self.distance_half,
        )
        if self.mode != "pivot" or not self.damping:
            return distance
        zero = tf.zeros_like(clean)
        return distance + self.damping * losses.embedding_distance(clean, zero)

    def _target(self, clean):
        """What the adversarial embeddings are pulled to."""
        if self.mode != "pivot":
            return clean
        self.pivot.assign(clean)
        return self.pivot.read_value()


def _embedder(classifier, layer):
    """A function (x, training) -> (logits, embedding), and the embedding's shape."""
    if layer is None:

        def logits_only(x, training):
            logits = classifier(x, training=training)
            return logits, logits

        return logits_only, classifier.output_shape[1:]
    both, output = with_features(
        classifier,
        lambda network: network.get_layer(layer).output,
        lambda names: (
            f"`embedding` names a layer of the classifier; received {layer!r}. "
            f"Layers: {names}"
        ),
    )
    return both, output.shape[1:]
