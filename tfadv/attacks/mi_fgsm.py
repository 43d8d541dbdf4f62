"""Iterated sign steps along an average of the gradients: MI-FGSM."""

import dataclasses

import tensorflow as tf

from tfadv.attacks import core
from tfadv.attacks.single_step import Label


@dataclasses.dataclass(frozen=True, kw_only=True)
class MomentumIterative:
    """m <- mu m + g / |g|_1;  z <- clip(z + a * sign(m)), `steps` times from z = x.

    g is the gradient at z of J(z, y), or of -J(z, y) for a label to reach. Clipped to
    the l-inf ball and to [0, 1] in every step. The average keeps to directions that
    several steps share; such images transfer better to other models.

    Args:
        eps: radius of the l-inf ball, a number or a tensor [n, 1, 1, 1].
        steps: int.
        step_size: a, in the units of x; None means eps / steps.
        mu: number, how much of the average stays; 0 gives the basic iterative method.
        label: see `core.choose_labels`.

    Raises:
        ValueError: `eps` or `step_size` outside [0, 1], `steps` below 1, `mu` negative.

    Source: Dong et al. 2018, Algorithm 1.
    """

    eps: float
    steps: int = 10
    step_size: float | None = None
    mu: float = 1.0
    label: Label = "true"

    def __post_init__(self):
        core.check_eps(self.eps)
        core.check_step_size(self.step_size)
        core.check_counts(self, "steps")
        if self.mu < 0:
            raise ValueError(f"`mu` must not be negative; received {self.mu:g}")

    def __call__(self, predict, x, y, seed=None):
        """Returns x_adv [n, h, w, c]; `seed` is needed by random labels only."""
        step_size = self.eps / self.steps if self.step_size is None else self.step_size
        logits = None if self.label == "true" else predict(x)
        target = core.choose_labels(self.label, logits, y, seed)

        def body(_, state):
            z, mean = state
            gradient = core.input_gradient(
                predict, z, lambda o: core.signed_cross_entropy(self.label, target, o)
            )
            mean = self.mu * mean + _unit(gradient)
            return core.to_ball(z + step_size * tf.sign(mean), x, self.eps), mean

        state = (x, tf.zeros_like(x))
        return tf.stop_gradient(core.iterate(body, state, self.steps)[0])


def _unit(gradient):
    """g / |g|_1, zero where g is."""
    total = tf.reduce_sum(tf.abs(gradient), axis=[1, 2, 3], keepdims=True)
    return tf.math.divide_no_nan(gradient, total)
