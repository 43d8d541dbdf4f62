"""Training on clean images: what every defence is compared with."""

import tensorflow as tf

from tfadv.defenses.base import Defense


class Standard(Defense):
    """L = mean J(x, y).

    Args:
        classifier, label_smoothing, seed: see `Defense`.
        attack: measured by `evaluate` if given; never trained on.
    """

    def train_step(self, data):
        x, y = self.unpack(data)
        with tf.GradientTape() as tape:
            logits = self.classifier(x, training=True)
            loss = self.regularized(tf.reduce_mean(self.cross_entropy(y, logits)))
        self.descend(tape, loss)
        return self.finish(loss, clean=(y, logits))
