"""Keras optimizers with the learning rates of the papers.

Beside its own options each takes

    decay_rate, decay_steps   see `staircase`; None for no decay, then both of them
    ema_momentum              m of the moving average of the weights,
                              a <- m a + (1 - m) w after every step, a = w after the
                              first; None for none. Training goes on with w.
                              `finalize_variable_values` of the optimizer puts a in the
                              place of w at the end, `averaged` for the length of a
                              block. Statistics of batch normalisation are not among
                              what is averaged.
    clipnorm                  the largest norm of the gradient of each variable, longer
                              ones are shortened to it; None for no bound
    global_clipnorm           the same of all gradients as one vector

and raises `ValueError` for what is out of range: a decay beside `boundaries` or with
one of its two numbers, an average that forgets nothing, a norm that is not positive,
both norms. Gradients are clipped with the weight decay in them, over several replicas
their mean.
"""

import contextlib
import math

import keras
import tensorflow as tf

from tfadv import errors


def piecewise(learning_rate, boundaries):
    """A learning rate that drops at given steps.

    Args:
        learning_rate: tuple of n + 1 rates.
        boundaries: tuple of n increasing steps; step b is the first at the next rate.

    Returns:
        A float, or a Keras schedule.

    Raises:
        ValueError: the counts do not match, or the steps do not increase.
    """
    if len(learning_rate) != len(boundaries) + 1:
        raise ValueError(
            f"`learning_rate` must hold one rate more than `boundaries` holds steps; "
            f"received {len(learning_rate)} rates and {len(boundaries)} steps"
        )
    if list(boundaries) != sorted(set(boundaries)) or any(b < 1 for b in boundaries):
        raise ValueError(f"`boundaries` must increase from 1; received {boundaries}")
    if not boundaries:
        return learning_rate[0]
    # Keras still uses the old value at its boundary step.
    return keras.optimizers.schedules.PiecewiseConstantDecay(
        [b - 1 for b in boundaries], list(learning_rate)
    )


def staircase(learning_rate, decay_rate, decay_steps):
    """The rate of step t = 0, 1, .. is

        learning_rate * decay_rate ** floor(t / decay_steps).

    Kurakin et al. 2017 leave it to Szegedy et al. 2016: .94 every two epochs, which is
    every 1601 steps of 1600 ImageNet images.

    Args:
        learning_rate: float, the first one.
        decay_rate: float, positive.
        decay_steps: int, at least 1.

    Returns:
        A Keras schedule.

    Raises:
        ValueError: a rate or a number of steps out of range.
    """
    if not 0 < decay_rate < math.inf:
        raise ValueError(
            f"`decay_rate` must be a positive number; received {decay_rate}"
        )
    if decay_steps < 1:
        raise ValueError(f"`decay_steps` must be at least 1; received {decay_steps}")
    return keras.optimizers.schedules.ExponentialDecay(
        learning_rate, decay_steps, decay_rate, staircase=True
    )


def sgd(
    *,
    learning_rate: tuple[float, ...] = (0.1,),
    boundaries: tuple[int, ...] = (),
    momentum: float = 0.9,
    decay_rate: float | None = None,
    decay_steps: int | None = None,
    ema_momentum: float | None = None,
    clipnorm: float | None = None,
    global_clipnorm: float | None = None,
):
    """SGD with momentum."""
    return SGD(
        _schedule(learning_rate, boundaries, decay_rate, decay_steps),
        momentum=momentum,
        **_common(ema_momentum, clipnorm, global_clipnorm),
    )


def adam(
    *,
    learning_rate: tuple[float, ...] = (1e-3,),
    boundaries: tuple[int, ...] = (),
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
    decay_rate: float | None = None,
    decay_steps: int | None = None,
    ema_momentum: float | None = None,
    clipnorm: float | None = None,
    global_clipnorm: float | None = None,
):
    """Adam."""
    return Adam(
        _schedule(learning_rate, boundaries, decay_rate, decay_steps),
        beta_1,
        beta_2,
        epsilon,
        **_common(ema_momentum, clipnorm, global_clipnorm),
    )


def rmsprop(
    *,
    learning_rate: tuple[float, ...] = (0.045,),
    boundaries: tuple[int, ...] = (),
    rho: float = 0.9,
    momentum: float = 0.9,
    epsilon: float = 1.0,
    decay_rate: float | None = None,
    decay_steps: int | None = None,
    ema_momentum: float | None = None,
    clipnorm: float | None = None,
    global_clipnorm: float | None = None,
):
    """RMSprop; the defaults are those of Inception training.

        s <- rho s + (1 - rho) g^2
        v <- momentum v + learning_rate g / sqrt(s + epsilon)
        w <- w - v

    with epsilon inside the root, as in TensorFlow 1, where s began at 1. Here, as in
    Keras, it begins at 0: with epsilon = 1 the first step for a small gradient is
    sqrt(1.9) times as long, and after 20 steps (rho^20 = .12) it is 1.06 times.
    """
    return RMSprop(
        _schedule(learning_rate, boundaries, decay_rate, decay_steps),
        rho=rho,
        momentum=momentum,
        epsilon=epsilon,
        **_common(ema_momentum, clipnorm, global_clipnorm),
    )


OPTIMIZERS = {"sgd": sgd, "adam": adam, "rmsprop": rmsprop}


def get(name):
    """The builder of the optimizer `name`, or a `UsageError` that lists the names."""
    return errors.lookup(OPTIMIZERS, name, "optimizer")


@contextlib.contextmanager
def averaged(optimizer, variables):
    """In the block `variables` are their moving averages; nothing without those.

    Args:
        optimizer: of Keras, built.
        variables: all that it moves, in its order.
    """
    if not optimizer.use_ema:
        yield
        return
    kept = [variable.numpy() for variable in variables]
    optimizer.finalize_variable_values(variables)
    try:
        yield
    finally:
        for variable, value in zip(variables, kept, strict=True):
            variable.assign(value)


class _ClipsMean:
    """Clips the mean gradient of all replicas, where Keras clips each one's part."""

    def apply(self, grads, trainable_variables=None):
        context = tf.distribute.get_replica_context()
        replicas = 1 if context is None else context.num_replicas_in_sync
        if replicas > 1 and (self.clipnorm or self.global_clipnorm):
            grads = self._clipped(list(grads), context, replicas)
        super().apply(grads, trainable_variables)

    def _clipped(self, grads, context, replicas):
        """Equal parts of the clipped sum, too short for Keras to clip them again."""
        given = [i for i, gradient in enumerate(grads) if gradient is not None]
        sums = context.all_reduce(tf.distribute.ReduceOp.SUM, [grads[i] for i in given])
        if self.clipnorm:
            sums = [tf.clip_by_norm(total, self.clipnorm) for total in sums]
        else:
            sums, _ = tf.clip_by_global_norm(sums, self.global_clipnorm)
        for i, total in zip(given, sums, strict=True):
            grads[i] = total / replicas
        return grads


class SGD(_ClipsMean, keras.optimizers.SGD):
    """`keras.optimizers.SGD`, clipping as above."""


class Adam(_ClipsMean, keras.optimizers.Adam):
    """`keras.optimizers.Adam`, clipping as above."""


class RMSprop(_ClipsMean, keras.optimizers.RMSprop):
    """`keras.optimizers.RMSprop`, clipping as above."""


def _schedule(learning_rate, boundaries, decay_rate, decay_steps):
    rate = piecewise(learning_rate, boundaries)
    if decay_rate is None and decay_steps is None:
        return rate
    if decay_rate is None or decay_steps is None:
        raise ValueError(
            "`decay_rate` and `decay_steps` must be given together; received "
            f"{decay_rate} and {decay_steps}"
        )
    if boundaries:
        raise ValueError(
            "`boundaries` and `decay_steps` are two schedules: leave one of them out; "
            f"received {boundaries} and {decay_steps}"
        )
    return staircase(rate, decay_rate, decay_steps)


def _common(ema_momentum, clipnorm, global_clipnorm):
    """Arguments of every Keras optimizer."""
    for option, value in (("clipnorm", clipnorm), ("global_clipnorm", global_clipnorm)):
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"`{option}` must be a positive number; received {value}")
    if clipnorm is not None and global_clipnorm is not None:
        raise ValueError(
            "`clipnorm` and `global_clipnorm` cannot both be given; received "
            f"{clipnorm} and {global_clipnorm}"
        )
    arguments = {"clipnorm": clipnorm, "global_clipnorm": global_clipnorm}
    if ema_momentum is None:
        return arguments
    if not 0 <= ema_momentum < 1:
        raise ValueError(f"`ema_momentum` must be in [0, 1); received {ema_momentum}")
    return arguments | {"use_ema": True, "ema_momentum": ema_momentum}
