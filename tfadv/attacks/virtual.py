"""The virtual adversarial direction: away from the model's own prediction."""

import dataclasses

import tensorflow as tf

from tfadv import losses
from tfadv.attacks import core


@dataclasses.dataclass(frozen=True, kw_only=True)
class Virtual:
    """x_adv = clip(x + eps * sign(g)),  g of D(f(x), f(z)) at z = x + xi * r.

    D is `losses.dissimilarity` with f(x) held fixed and r = sign(N(0, I)). At z = x
    itself D is least, its gradient is zero and its sign is noise; a little beside it
    the gradient points to where the prediction changes most. Uses no label.

    Args:
        eps: size of the step, in the units of x; a number or a tensor [n, 1, 1, 1].
        xi: how far beside x the gradient is taken, in the units of x.

    Raises:
        ValueError: `eps` outside [0, 1]; `xi` not in (0, 1].

    Source: the power iteration of Miyato et al. 2018, once, with signs for norms.
    """

    eps: float
    xi: float = 1e-2

    def __post_init__(self):
        core.check_eps(self.eps)
        if not 0 < self.xi <= 1:
            raise ValueError(f"`xi` must be in (0, 1]; received {self.xi}")

    def __call__(self, predict, x, y, seed=None):
        """Returns x_adv [n, h, w, c]; `seed` is required, y unused."""
        return self.sweep(predict, x, y, [self.eps], seed)[0]

    def sweep(self, predict, x, y, sizes, seed=None):
        """x_adv for each eps of `sizes` in place of `eps`, all from one gradient."""
        logits = tf.stop_gradient(core.logits_of(predict(x)))
        probe = x + self.xi * tf.sign(core.normal(x, seed))
        gradient = core.input_gradient(
            predict,
            probe,
            lambda z: losses.dissimilarity(logits, core.logits_of(z)),
        )
        return core.steps_of(sizes, x, tf.sign(gradient))
