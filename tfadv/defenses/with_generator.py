"""What trainings of a generator of perturbations share."""

import tensorflow as tf

from tfadv import attacks
from tfadv.attacks.generator import inputs_of
from tfadv.defenses.base import Defense


class WithGenerator(Defense):
    """A classifier D and a generator G that goes up mean J(D(x + eps G(.)), y).

    Perturbed images are not clipped here, as in the paper; by G as an attack
    (`attacks.Generator`) they are.

    Args:
        classifier, label_smoothing, seed: see `Defense`.
        generator: G, a network of `models.generators`.
        eps: of the perturbation, in the units of x.

    Source: Wang & Yu 2019, section 3.
    """

    def __init__(
        self,
        classifier,
        *,
        generator,
        eps: float,
        label_smoothing: float = 0.0,
        seed: int = 0,
        name=None,
    ):
        super().__init__(
            classifier,
            attack=attacks.Generator(eps=eps, generator=generator),
            label_smoothing=label_smoothing,
            seed=seed,
            name=name,
        )
        self.generator = generator
        self.eps = eps

    @property
    def companions(self):
        return {"generator": self.generator}

    def strengthen(self, x, y, seed, optimizer):
        """One step of G up the loss of D on perturbed images; D stays as it is.

        Returns:
            (what G goes down, logits of D on the images as they were before).
        """
        inputs = inputs_of(self.generator, x, y, seed)
        with tf.GradientTape() as tape:
            x_adv = x + self.eps * self.generator(inputs, training=True)
            logits = self.judge(x_adv)
            loss = -self.adversarial_loss(y, logits)
        self.descend(tape, loss, self.generator.trainable_variables, optimizer)
        return loss, logits

    def judge(self, x_adv):
        """Logits of D where G is trained; moves no statistics."""
        return self.logits(x_adv)

    def adversarial_loss(self, y, logits):
        """mean J: what G raises."""
        return tf.reduce_mean(self.cross_entropy(y, logits))
