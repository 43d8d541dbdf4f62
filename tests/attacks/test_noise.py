import math

import numpy as np
import pytest
import tensorflow as tf

from tfadv import attacks

EPS = 0.125
NAMES = ["random_sign", "random_normal"]


def run(name, x, *, eps=EPS, seed=3):
    def predict(x):
        raise AssertionError("noise asks no model")

    return attacks.ATTACKS[name](eps=eps)(predict, x, None, seed=seed)


@pytest.fixture
def grey():
    return tf.fill([8, 32, 32, 3], 0.5)


def test_random_sign_is_eps_times_the_sign_of_a_normal(grey):
    noise = tf.random.stateless_normal(grey.shape, [3, 0], alg="philox")
    x_adv = run("random_sign", grey)
    np.testing.assert_array_equal(x_adv, 0.5 + EPS * np.sign(noise))
    # Half of the pixels go up: 24576 of them, a standard deviation of 0.32 %.
    assert abs(np.mean(np.array(x_adv) > 0.5) - 0.5) < 0.015


def test_random_normal_is_half_eps_times_a_truncated_normal(grey):
    noise = tf.random.stateless_truncated_normal(grey.shape, [3, 0], alg="philox")
    np.testing.assert_allclose(
        run("random_normal", grey), 0.5 + EPS / 2 * noise, rtol=1e-6
    )


def test_random_normal_is_resampled_beyond_eps(grey):
    """With t = (x_adv - x) / sigma, sigma = eps / 2, |t| < 2.

    Var t = 1 - 2 * 2 phi(2) / (2 Phi(2) - 1), and P(|t| > 1.98) is 0.0023; clipping
    instead would leave 2 (1 - Phi(1.98)) = 0.048 there.
    """
    t = (run("random_normal", grey).numpy() - 0.5) / (EPS / 2)
    inside = math.erf(math.sqrt(2))
    phi = math.exp(-2) / math.sqrt(2 * math.pi)
    assert np.abs(t).max() <= 2
    assert abs(t.mean()) < 0.03
    assert abs(t.var() - (1 - 4 * phi / inside)) < 0.03
    beyond = 1 - math.erf(1.98 / math.sqrt(2)) / inside
    assert abs(np.mean(np.abs(t) > 1.98) - beyond) < 0.002


@pytest.mark.parametrize("name", NAMES)
def test_noise_is_clipped_to_the_range(name):
    x = tf.concat([tf.zeros([1, 8, 8, 1]), tf.ones([1, 8, 8, 1])], axis=0)
    x_adv = run(name, x).numpy()
    assert x_adv.min() == 0 and x_adv.max() == 1
    # About half of the pixels are pushed out of the range, the others into it.
    for image, clean in zip(x_adv, (0, 1), strict=True):
        assert 0.25 < np.mean(image == clean) < 0.75


@pytest.mark.parametrize("name", NAMES)
def test_every_example_has_an_eps_of_its_own(name):
    """The same noise, as many times larger as eps is."""
    x = tf.fill([3, 4, 4, 1], 0.5)
    unit = run(name, x, eps=0.25) - 0.5
    eps = tf.reshape([0.0, 0.0625, 0.125], [3, 1, 1, 1])
    np.testing.assert_allclose(run(name, x, eps=eps) - 0.5, 4 * eps * unit, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_noise_is_independent_of_pixel_and_example(name, grey):
    noise = run(name, grey).numpy() - 0.5
    for other in (noise[::-1], noise[:, ::-1], noise[:, :, ::-1], noise[..., ::-1]):
        assert np.mean(noise * other) < 0.5 * np.mean(noise**2)


@pytest.mark.parametrize("name", NAMES)
def test_seeds_decide_the_noise(name, grey):
    np.testing.assert_array_equal(run(name, grey, seed=1), run(name, grey, seed=1))
    np.testing.assert_array_equal(run(name, grey, seed=1), run(name, grey, seed=(1, 0)))
    assert np.any(run(name, grey, seed=1) != run(name, grey, seed=2))
    with pytest.raises(ValueError, match="`seed`"):
        run(name, grey, seed=None)
