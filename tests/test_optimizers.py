import keras
import numpy as np
import pytest

from tfadv import optimizers
from tfadv.errors import UsageError


def steps_taken(optimizer, gradients):
    """What each update subtracts from a weight that starts at 0."""
    weight = keras.Variable([0.0])
    taken = []
    for gradient in gradients:
        before = float(weight[0])
        optimizer.apply([keras.ops.convert_to_tensor([gradient])], [weight])
        taken.append(before - float(weight[0]))
    return taken


def test_a_boundary_is_the_first_step_at_the_next_rate():
    """With gradient 1 and no momentum each step is the learning rate."""
    optimizer = optimizers.sgd(
        learning_rate=(0.5, 0.25, 0.125), boundaries=(2, 3), momentum=0.0
    )
    assert steps_taken(optimizer, [1.0] * 5) == [0.5, 0.5, 0.25, 0.125, 0.125]


def test_a_boundary_at_step_one():
    optimizer = optimizers.sgd(learning_rate=(0.5, 0.25), boundaries=(1,), momentum=0.0)
    assert steps_taken(optimizer, [1.0] * 2) == [0.5, 0.25]


def test_large_boundaries_are_exact():
    rate = optimizers.piecewise((0.5, 0.25), (94_000,))
    assert [float(rate(step)) for step in (93_999, 94_000)] == [0.5, 0.25]


def test_one_rate_needs_no_boundary():
    assert optimizers.piecewise((0.5,), ()) == 0.5


def test_sgd_with_momentum():
    """v <- m v + lr g with m = lr = 1/2, g = 1, 1, 0: 1/2, 3/4, 3/8."""
    optimizer = optimizers.sgd(learning_rate=(0.5,), momentum=0.5)
    assert steps_taken(optimizer, [1.0, 1.0, 0.0]) == [0.5, 0.75, 0.375]


def test_adam():
    """The first step is lr whatever the gradient: both moments are corrected to g.

    Second step of g = 4, then 0, with beta_1 = 0.8, beta_2 = 0.5: m = 0.8 * 0.8 / 0.36
    = 16 / 9, v = 0.5 * 8 / 0.75 = 16 / 3, so lr * (16 / 9) / sqrt(16 / 3).
    """
    optimizer = optimizers.adam(learning_rate=(0.5,), beta_1=0.8, beta_2=0.5)
    expected = [0.5, 0.5 * (16 / 9) / np.sqrt(16 / 3)]
    np.testing.assert_allclose(steps_taken(optimizer, [4.0, 0.0]), expected, rtol=1e-5)


def test_adam_epsilon():
    """First step: lr * sqrt(1 - b2) g / (sqrt(1 - b2) g + eps), here 1/2 * 3 / 4."""
    optimizer = optimizers.adam(learning_rate=(0.5,), beta_2=0.75, epsilon=1.0)
    assert steps_taken(optimizer, [6.0]) == pytest.approx([0.375], rel=1e-5)


def test_rmsprop_has_epsilon_inside_the_root():
    """ms = 0.1 * 3^2 = 0.9, so the first step is 0.045 * 3 / sqrt(0.9 + 1).

    Then, with gradient 0, the momentum keeps 0.9 of it.
    """
    first = 0.045 * 3 / np.sqrt(1.9)
    taken = steps_taken(optimizers.rmsprop(), [3.0, 0.0])
    np.testing.assert_allclose(taken, [first, 0.9 * first], rtol=1e-5)


@pytest.mark.parametrize(
    "rates, boundaries, message",
    [
        ((0.1,), (5,), "received 1 rates and 1 steps"),
        ((0.1, 0.01), (), "received 2 rates and 0 steps"),
        ((), (), "received 0 rates"),
        ((0.1, 0.1, 0.1), (5, 4), "must increase"),
        ((0.1, 0.1, 0.1), (5, 5), "must increase"),
        ((0.1, 0.1), (0,), "must increase from 1"),
    ],
)
@pytest.mark.parametrize("make", optimizers.OPTIMIZERS.values())
def test_schedules_that_make_no_sense(make, rates, boundaries, message):
    with pytest.raises(ValueError, match=message):
        make(learning_rate=rates, boundaries=boundaries)


def test_get():
    assert optimizers.get("adam") is optimizers.adam
    with pytest.raises(UsageError, match="unknown optimizer 'adm'; did you mean"):
        optimizers.get("adm")
