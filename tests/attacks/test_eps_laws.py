import math

import numpy as np
import pytest
import tensorflow as tf

from tfadv.attacks import eps_laws

MAX = 16 / 255
SIGMA = MAX / 2
N = 40_000

# Of |N(0, sigma)| within two sigma: mass, and the integral of e times the density.
INSIDE = math.erf(math.sqrt(2))
FIRST_MOMENT = SIGMA * math.sqrt(2 / math.pi) * (1 - math.exp(-2))


def half_normal_cdf(e):
    return math.erf(e / SIGMA / math.sqrt(2))


def draw(law, seed=5, n=N):
    eps = eps_laws.draw(law, MAX, n, seed)
    return eps.numpy().ravel()


@pytest.mark.parametrize("law", eps_laws.EPS_LAWS)
def test_one_size_per_image_within_the_support(law):
    eps = eps_laws.draw(law, MAX, 1000, 5)
    assert eps.shape == (1000, 1, 1, 1)
    assert eps.dtype == tf.float32
    assert np.min(eps) >= 0
    assert np.max(eps) <= np.float32(MAX)


@pytest.mark.parametrize(
    "law, cdf",
    [
        ("truncated", lambda e: half_normal_cdf(e) / INSIDE),
        ("clipped", half_normal_cdf),
        ("uniform", lambda e: e / MAX),
    ],
)
@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.75, 0.95])
def test_distribution(law, cdf, share):
    # The standard deviation of a share of 40000 is at most 0.25 %.
    assert abs(np.mean(draw(law) <= share * MAX) - cdf(share * MAX)) < 0.01


@pytest.mark.parametrize(
    "law, mean",
    [
        ("truncated", FIRST_MOMENT / INSIDE),
        ("clipped", FIRST_MOMENT + (1 - INSIDE) * MAX),
        ("uniform", MAX / 2),
        ("constant", MAX),
    ],
)
def test_mean(law, mean):
    # The standard deviation is below 0.6 sigma, that of the mean below 0.3 %.
    np.testing.assert_allclose(draw(law).mean(), mean, rtol=0.01)


@pytest.mark.parametrize(
    "law, mass", [("truncated", 0), ("uniform", 0), ("constant", 1)]
)
def test_mass_at_the_maximum(law, mass):
    assert np.mean(draw(law) == np.float32(MAX)) == mass


def test_clipped_has_the_mass_beyond_two_sigma_at_the_maximum():
    share = np.mean(draw("clipped") == np.float32(MAX))
    # 1 - erf(sqrt 2) = 4.55 %, with a standard deviation of 0.1 %.
    assert abs(share - (1 - INSIDE)) < 0.004


@pytest.mark.parametrize("law", ["truncated", "clipped", "uniform"])
def test_seeds_decide_the_sizes(law):
    np.testing.assert_array_equal(draw(law, 1, 50), draw(law, (1, 0), 50))
    assert np.any(draw(law, 1, 50) != draw(law, 2, 50))
    assert len(set(draw(law, 1, 50))) > 40
    with pytest.raises(ValueError, match="`seed`"):
        draw(law, None)


@pytest.mark.parametrize("law", eps_laws.EPS_LAWS)
def test_compiled_with_a_number_of_images_known_at_run_time(law):
    compiled = tf.function(lambda n, seed: eps_laws.draw(law, MAX, n, seed))
    eps = compiled(tf.constant(7), tf.constant([5, 0]))
    assert eps.shape == (7, 1, 1, 1)
    np.testing.assert_allclose(eps.numpy().ravel(), draw(law, 5, 7), rtol=1e-6)


@pytest.mark.parametrize("law", eps_laws.EPS_LAWS)
def test_a_maximum_of_zero_gives_zero(law):
    np.testing.assert_array_equal(eps_laws.draw(law, 0.0, 3, 5), np.zeros([3, 1, 1, 1]))


def test_an_unknown_law_names_the_nearest():
    with pytest.raises(ValueError, match="eps law 'cliped'; did you mean 'clipped'"):
        eps_laws.draw("cliped", MAX, 1, 0)
