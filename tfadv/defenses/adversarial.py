"""Adversarial training on a mixture of clean and adversarial images."""

import tensorflow as tf

from tfadv.defenses.base import Defense


class AdversarialTraining(Defense):
    """L = alpha * mean J(x, y) + (1 - alpha) * mean J(x_adv, y).

    x_adv are the adversarial images of the whole batch under the current weights. The
    attack decides the method: `step_fgsm`, `ifgsm` and `pgd` give FGSM, IFGSM and PGD
    adversarial training. With alpha = 0 only the adversarial images are used. Clean
    and adversarial images share one forward pass, hence one set of batch statistics.
    With label smoothing the attack, too, ascends J of the smoothed labels.

    Args:
        classifier, label_smoothing, seed: see `Defense`.
        attack: with eps as it is trained on, the same for all images.
        alpha: share of the clean loss, in [0, 1).

    Raises:
        ValueError: `alpha` outside [0, 1).

    Source: e2SAD 2019, eq. 3 (alpha = 0.6 there); Madry et al. 2018 for alpha = 0.
    """

    def __init__(
        self,
        classifier,
        *,
        attack,
        alpha: float = 0.5,
        label_smoothing: float = 0.0,
        seed: int = 0,
        name=None,
    ):
        super().__init__(
            classifier,
            attack=attack,
            label_smoothing=label_smoothing,
            seed=seed,
            name=name,
        )
        if not 0 <= alpha < 1:
            raise ValueError(
                f"`alpha`, the share of the clean loss, must be in [0, 1); received "
                f"{alpha} (for clean training use the defence 'standard')"
            )
        self.alpha = alpha

    def craft(self, x, y):
        """x_adv of the whole batch, as a constant, for the labels trained on."""
        return self.attack(self.logits, x, self.targets(x, y), seed=self.step_seed(0))

    def crafting(self, data):
        return self.craft(*self.unpack(data))

    def train_step(self, data):
        x, y = self.unpack(data)
        x_adv = self.craft(x, y)
        if self.alpha == 0:
            return self._adversarial_only(x_adv, y)
        with tf.GradientTape() as tape:
            both = self.classifier(tf.concat([x, x_adv], 0), training=True)
            logits, logits_adv = tf.split(both, 2)
            loss = self.regularized(
                self.alpha * tf.reduce_mean(self.cross_entropy(y, logits))
                + (1 - self.alpha) * tf.reduce_mean(self.cross_entropy(y, logits_adv))
            )
        self.descend(tape, loss)
        return self.finish(loss, clean=(y, logits), adversarial=(y, logits_adv))

    def _adversarial_only(self, x_adv, y):
        with tf.GradientTape() as tape:
            logits = self.classifier(x_adv, training=True)
            loss = self.regularized(tf.reduce_mean(self.cross_entropy(y, logits)))
        self.descend(tape, loss)
        return self.finish(loss, adversarial=(y, logits))
