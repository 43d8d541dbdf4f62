import numpy as np
import pytest
import tensorflow as tf

from tfadv import attacks

EPS = 0.125


def images(*rows):
    return tf.constant(rows, tf.float32)[:, None, :, None]


def rows(x):
    return np.array(x)[:, 0, :, 0]


def turning(x):
    """Logits [0, q], q = -1 - (a - .5)^2 - 3 b: the sign of its slope in a turns."""
    a, b = x[:, 0, 0, 0], x[:, 0, 1, 0]
    q = -1.0 - (a - 0.5) ** 2 - 3.0 * b
    return tf.stack([tf.zeros_like(q), q], axis=1)


@pytest.mark.parametrize("mu", [0.0, 0.5, 1.0])
def test_steps_by_hand(mu):
    """The gradient of J(x, 0) is s (-2 (a - .5), -3); s leaves with the norm."""
    step, z, mean = 0.04, np.array([0.45, 0.5]), np.zeros(2)
    x = z.copy()
    for _ in range(6):
        slope = np.array([-2 * (z[0] - 0.5), -3.0])
        mean = mu * mean + slope / np.abs(slope).sum()
        z = np.clip(z + step * np.sign(mean), x - EPS, x + EPS)
    attack = attacks.MomentumIterative(eps=EPS, steps=6, step_size=step, mu=mu)
    np.testing.assert_allclose(rows(attack(turning, images(x), [0])), [z], atol=1e-6)


def test_momentum_passes_a_summit_that_the_basic_method_turns_at():
    x = images((0.45, 0.5))
    fields = {"eps": EPS, "steps": 4, "step_size": 0.03}
    basic, momentum = (
        rows(attacks.MomentumIterative(**fields, mu=mu)(turning, x, [0]))[0, 0]
        for mu in (0.0, 1.0)
    )
    plain = rows(attacks.Iterative(**fields)(turning, x, [0]))[0, 0]
    assert basic == pytest.approx(plain)
    assert momentum > basic + 0.05


def test_steps_of_a_tenth_by_default(linear):
    x = images((0.5, 0.25), (0.5, 0.25))
    x_adv = attacks.MomentumIterative(eps=EPS)(linear[0], x, [0, 1])
    np.testing.assert_allclose(
        rows(x_adv) - rows(x), [(EPS, -EPS), (-EPS, EPS)], rtol=1e-5
    )
    two = attacks.MomentumIterative(eps=EPS, steps=3, step_size=EPS / 10)
    np.testing.assert_allclose(
        rows(two(linear[0], x, [0, 1]) - x)[0], (0.3 * EPS, -0.3 * EPS), rtol=1e-5
    )


def test_a_label_to_reach(linear):
    x = images((0.5, 0.25))
    # w . x = .5: class 0 is the least likely.
    attack = attacks.MomentumIterative(eps=EPS, label="least_likely")
    np.testing.assert_allclose(
        rows(attack(linear[0], x, [1]) - x), [(-EPS, EPS)], rtol=1e-5
    )


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"steps": 0}, "`steps` must be at least 1; received 0"),
        ({"mu": -1}, "`mu` must not be negative; received -1"),
        ({"step_size": 2}, "`step_size` .* Write '2/255'"),
    ],
)
def test_fields_out_of_range_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        attacks.MomentumIterative(eps=EPS, **fields)
