"""Kurakin, Goodfellow, Bengio 2017: adversarial machine learning at scale."""

import tensorflow as tf

from tfadv.defenses.mixed_batch import MixedBatch


class Kurakin(MixedBatch):
    """Algorithm 1: part of every batch is replaced by its adversarial images.

        read m images, of which the first k become adversarial (current weights)
        L = [sum_clean J(x, y) + lambda * sum_adv J(x_adv, y)] / [(m - k) + lambda * k]
        one step on L, the m images in one batch

    Every adversarial image gets an eps of its own, drawn by `eps_law` up to the
    attack's eps. J takes the true label throughout. Clean and adversarial images share
    the batch statistics; crafting uses the moving ones.

    Args:
        classifier, attack, k, adversarial_weight, eps_law, delay, stored,
            label_smoothing, seed: see `MixedBatch`; k defaults to half of the batch,
            the law to the `"truncated"` one of this paper.

    Raises:
        ValueError: as `MixedBatch`.

    Source: Kurakin et al. 2017, Algorithm 1 (m = 32, k = 16, lambda = 0.3, 10,000
    steps of delay); Na et al. 2018, section 2 (m = 128, k = 64).
    """

    def default_k(self, m):
        return m // 2

    def train_step(self, data):
        x, y = self.unpack(data)
        _, k = self.split(x)
        delayed = self.delayed()
        x_adv = self.craft(data, k, delayed)
        with tf.GradientTape() as tape:
            logits = self.classifier(tf.concat([x_adv, x[k:]], 0), training=True)
            loss = self.regularized(self.mean_loss(y, logits, k, delayed))
        self.descend(tape, loss)
        return self.finish(
            loss,
            clean=(y[k:], logits[k:]),
            adversarial=(y[:k], logits[:k]),
            adversarial_weight=1.0 - tf.cast(delayed, tf.float32),
        )
