"""The virtual adversarial step, by hand on a linear model."""

import numpy as np
import pytest
import tensorflow as tf

from tfadv import attacks
from tfadv.attacks import core

W = np.array([[2.0, -1.0], [0.5, 1.0], [-1.0, 1.5]], np.float32)
X = np.full([4, 1, 3, 1], 0.5, np.float32)


def predict(x):
    return tf.reshape(x, [-1, 3]) @ W


@pytest.mark.parametrize("seed", range(3))
def test_it_goes_on_where_the_probe_went(seed):
    """At the probe x + xi r the gradient is W (q - p); for two classes q - p has the
    sign of the change of m = x (w_1 - w_0), so x moves by sign(w_1 - w_0) where the
    probe raised m, by its opposite where it lowered it."""
    x_adv = attacks.Virtual(eps=0.1)(predict, tf.constant(X), None, seed=seed)
    r = np.sign(core.normal(X, seed)).reshape(-1, 3)
    m = W[:, 1] - W[:, 0]
    way = np.sign(r @ m)[:, None] * np.sign(m)
    expected = X + 0.1 * way.reshape(X.shape)
    np.testing.assert_allclose(x_adv, expected, atol=1e-6)


def test_the_probe_is_as_far_as_xi_says():
    seen = []

    def spy(x):
        seen.append(x.numpy())
        return predict(x)

    attacks.Virtual(eps=0.1, xi=0.25)(spy, tf.constant(X), None, seed=0)
    assert [z.shape for z in seen] == [X.shape] * 2
    np.testing.assert_array_equal(seen[0], X)
    np.testing.assert_array_equal(np.abs(seen[1] - X), 0.25)


@pytest.mark.parametrize("xi", [0.0, -0.1, 1.5])
def test_xi_outside_its_range(xi):
    with pytest.raises(ValueError, match=rf"`xi` must be in \(0, 1\]; received {xi}"):
        attacks.Virtual(eps=0.1, xi=xi)
