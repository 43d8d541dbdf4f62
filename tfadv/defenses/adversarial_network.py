"""Wang & Yu 2019: a classifier and a generator of perturbations against each other."""

from typing import Literal

import keras
import tensorflow as tf

from tfadv.attacks.generator import inputs_of
from tfadv.defenses.with_generator import WithGenerator
from tfadv.errors import check_literals
from tfadv.predictor import frozen

# Below, a finite difference in float32 is mostly rounding.
LEAST_DIFFERENCE = 1e-4


class AdversarialNetwork(WithGenerator):
    """min over D and max over G of F, a game of a classifier and a generator.

        F = mean J(D(x), y) + lambda mean J(D(x + eps G(x)), y)

    For every batch:

        generator_steps times:  G goes up lambda mean J(D(x + eps G(x)), y)
        once:  D goes down F + gamma / 2 * |v|^2,  v = dF / dphi

    with phi the weights of G. The second term keeps G from gaining much by the step of
    D. Its gradient is a Hessian times a vector, gamma * d^2F / dtheta dphi * v:

    - `"finite_difference"`: gamma * (dF/dtheta at phi + h v - dF/dtheta at phi) / h;
    - `"exact"`: by differentiating twice (through batch normalisation not quite, see
      `Minimax`);
    - `"none"`: left out.

    D sees clean and perturbed images in two passes, whose batch statistics are not
    mixed; only these two move its moving statistics.

    Args:
        classifier, label_smoothing, seed: see `Defense`.
        generator, eps: see `WithGenerator`.
        generator_steps: steps of G on the batch before that of D.
        adversarial_weight: lambda, not negative.
        gradient_weight: gamma, not negative.
        regularizer: `"finite_difference"`, `"exact"` or `"none"`.
        gradient_sign: `"paper"`, or `"code"`: the released code has the other sign and
            rewards a large |v|.
        difference_step: h; None means a tenth of the generator's learning rate. Never
            less than 1e-4.

    Raises:
        ValueError: an argument out of range, another regulariser or sign.

    Source: Wang & Yu 2019, eq. 4, 5 and section 3.2.
    """

    def __init__(
        self,
        classifier,
        *,
        generator,
        eps: float,
        generator_steps: int = 5,
        adversarial_weight: float = 1.0,
        gradient_weight: float = 0.01,
        regularizer: Literal[
            "finite_difference", "exact", "none"
        ] = "finite_difference",
        gradient_sign: Literal["paper", "code"] = "paper",
        difference_step: float | None = None,
        label_smoothing: float = 0.0,
        seed: int = 0,
        name=None,
    ):
        super().__init__(
            classifier,
            generator=generator,
            eps=eps,
            label_smoothing=label_smoothing,
            seed=seed,
            name=name,
        )
        if generator_steps < 1:
            raise ValueError(
                f"`generator_steps` must be at least 1; received {generator_steps}"
            )
        for key, value in (
            ("adversarial_weight", adversarial_weight),
            ("gradient_weight", gradient_weight),
            ("difference_step", difference_step),
        ):
            if value is not None and value < 0:
                raise ValueError(f"`{key}` must not be negative; received {value}")
        check_literals(
            type(self).__init__, regularizer=regularizer, gradient_sign=gradient_sign
        )
        self.generator_steps = generator_steps
        self.adversarial_weight = adversarial_weight
        self.regularizer = regularizer
        self.signed_weight = gradient_weight * (1 if gradient_sign == "paper" else -1)
        self.difference_step = difference_step

    def compile(self, optimizer="sgd", *, generator_optimizer="adam", **kwargs):
        """As `Defense.compile`, with an optimizer for the generator."""
        super().compile(optimizer, **kwargs)
        self.generator_optimizer = keras.optimizers.get(generator_optimizer)
        self.generator_optimizer.build(self.generator.trainable_variables)

    @property
    def moved(self):
        generator = self.generator.trainable_variables
        return [*super().moved, (self.generator_optimizer, generator)]

    @property
    def needs_float32(self):
        if self.regularizer != "finite_difference":
            return None
        return (
            "the regularizer 'finite_difference' moves weights by less than others "
            "can tell apart: use 'exact' or 'none'"
        )

    def crafting(self, data):
        return self.craft(*self.unpack(data))

    def train_step(self, data):
        x, y = self.unpack(data)
        inputs = self.craft(x, y)
        with tf.GradientTape() as tape:
            logits = self.classifier(x, training=True)
            with tf.GradientTape() as inner:
                x_adv = x + self.eps * frozen(self.generator, inputs)
                logits_adv = self.classifier(x_adv, training=True)
                adversarial = self.adversarial_loss(y, logits_adv)
            loss = self.regularized(
                tf.reduce_mean(self.cross_entropy(y, logits)) + adversarial
            )
            if self.regularizer == "exact":
                total = loss + self.exact_penalty(inner, adversarial)
            elif self.regularizer == "finite_difference":
                with tape.stop_recording():
                    h, x_shifted = self.shifted(inner, adversarial, x, inputs)
                logits_shifted = frozen(self.classifier, x_shifted)
                shifted = self.adversarial_loss(y, logits_shifted)
                total = loss + self.signed_weight / h * (shifted - adversarial)
            else:
                total = loss
        self.descend(tape, total)
        return self.finish(loss, clean=(y, logits), adversarial=(y, logits_adv))

    def craft(self, x, y):
        """The steps of G on this batch; what it then makes perturbations of for D."""
        for number in range(self.generator_steps):
            self.strengthen(x, y, self.step_seed(number), self.generator_optimizer)
        return inputs_of(self.generator, x, y, self.step_seed(self.generator_steps))

    def judge(self, x_adv):
        """In training mode, as the classifier is when it answers."""
        return frozen(self.classifier, x_adv)

    def adversarial_loss(self, y, logits):
        """lambda mean J: the part of F that depends on G."""
        return self.adversarial_weight * super().adversarial_loss(y, logits)

    def exact_penalty(self, tape, adversarial):
        """What has the gradient of gamma / 2 |v|^2 in the weights of D."""
        v = tape.gradient(adversarial, self.generator.trainable_variables)
        pairs = zip(v, self.everywhere(v), strict=True)
        along = [tf.reduce_sum(one * tf.stop_gradient(all_)) for one, all_ in pairs]
        return self.signed_weight * tf.add_n(along)

    def shifted(self, tape, adversarial, x, inputs):
        """h, and the images that G perturbs with the weights phi + h v."""
        phi = self.generator.trainable_variables
        v = self.everywhere(tape.gradient(adversarial, phi))
        h = self.difference_step
        if h is None:
            h = tf.cast(self.generator_optimizer.learning_rate, tf.float32) / 10
        h = tf.maximum(h, LEAST_DIFFERENCE)
        moved = [p + h * one for p, one in zip(phi, v, strict=True)]
        return h, x + self.eps * frozen(self.generator, inputs, moved)

    def everywhere(self, gradients):
        """Gradients of the mean over all replicas."""
        if self.distribute_strategy.num_replicas_in_sync == 1:
            return gradients
        context = tf.distribute.get_replica_context()
        return context.all_reduce(tf.distribute.ReduceOp.MEAN, gradients)
