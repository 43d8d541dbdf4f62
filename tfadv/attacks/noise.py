"""Random noise of the size of an attack: the control every attack must beat."""

import dataclasses

import tensorflow as tf

from tfadv.attacks import core


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomSign:
    """x_adv = clip(x + eps * sign(N(0, I))).

    Args:
        eps: size, in the units of x; a number or a tensor [n, 1, 1, 1].

    Source: Kurakin et al. 2017, Appendix A.
    """

    eps: float

    def __post_init__(self):
        core.check_eps(self.eps)

    def __call__(self, predict, x, y, seed=None):
        """Returns x_adv [n, h, w, c]; `seed` is required."""
        noise = tf.sign(core.normal(x, seed))
        return tf.stop_gradient(core.to_range(x + self.eps * noise))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomNormal:
    """x_adv = clip(x + T), T ~ N(0, (eps / 2)^2) truncated to [-eps, eps], per pixel.

    Args:
        eps: largest size, in the units of x; a number or a tensor [n, 1, 1, 1].

    Source: Kurakin et al. 2017, Appendix A.
    """

    eps: float

    def __post_init__(self):
        core.check_eps(self.eps)

    def __call__(self, predict, x, y, seed=None):
        """Returns x_adv [n, h, w, c]; `seed` is required."""
        # The op truncates at two standard deviations, which is eps.
        noise = tf.random.stateless_truncated_normal(
            tf.shape(x), core.as_seed(seed), alg="philox"
        )
        return tf.stop_gradient(core.to_range(x + self.eps / 2 * noise))
