"""Keras optimizers with the piecewise-constant learning rates of the papers."""

import keras

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


def sgd(
    *,
    learning_rate: tuple[float, ...] = (0.1,),
    boundaries: tuple[int, ...] = (),
    momentum: float = 0.9,
):
    """SGD with momentum."""
    return keras.optimizers.SGD(piecewise(learning_rate, boundaries), momentum=momentum)


def adam(
    *,
    learning_rate: tuple[float, ...] = (1e-3,),
    boundaries: tuple[int, ...] = (),
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
):
    """Adam."""
    return keras.optimizers.Adam(
        piecewise(learning_rate, boundaries), beta_1, beta_2, epsilon
    )


def rmsprop(
    *,
    learning_rate: tuple[float, ...] = (0.045,),
    boundaries: tuple[int, ...] = (),
    rho: float = 0.9,
    momentum: float = 0.9,
    epsilon: float = 1.0,
):
    """RMSprop; the defaults are those of Inception training."""
    return keras.optimizers.RMSprop(
        piecewise(learning_rate, boundaries),
        rho=rho,
        momentum=momentum,
        epsilon=epsilon,
    )


OPTIMIZERS = {"sgd": sgd, "adam": adam, "rmsprop": rmsprop}


def get(name):
    """The builder of the optimizer `name`, or a `UsageError` that lists the names."""
    return errors.lookup(OPTIMIZERS, name, "optimizer")
