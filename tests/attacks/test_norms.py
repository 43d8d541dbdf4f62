import itertools

import numpy as np
import pytest
import tensorflow as tf
from scipy import optimize

from tfadv.attacks import norms

ORDER = {"linf": np.inf, "l2": 2}


def images(*rows):
    return tf.constant(rows, tf.float32)[:, None, :, None]


def rows(x):
    return np.array(x)[:, 0, :, 0]


def test_sizes_of_a_number_and_of_a_tensor():
    x = tf.zeros([3, 2, 2, 1])
    np.testing.assert_array_equal(np.ravel(norms.sizes(0.5, x)), [0.5] * 3)
    own = tf.reshape([1.0, 2.0, 3.0], [3, 1, 1, 1])
    np.testing.assert_array_equal(norms.sizes(own, x), own)


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_size_and_steepest(scale):
    """Of (3, -4, 0); the squares of the small and the large one leave float32."""
    x = scale * images((3, -4, 0))
    np.testing.assert_allclose(np.ravel(norms.size(x, "linf")), [4 * scale], rtol=1e-6)
    np.testing.assert_allclose(np.ravel(norms.size(x, "l2")), [5 * scale], rtol=1e-6)
    np.testing.assert_array_equal(rows(norms.steepest(x, "linf")), [(1, -1, 0)])
    np.testing.assert_allclose(
        rows(norms.steepest(x, "l2")), [(0.6, -0.8, 0)], rtol=1e-6
    )


@pytest.mark.parametrize("norm", ORDER)
def test_nothing_has_no_direction(norm):
    zero = images((0, 0))
    np.testing.assert_array_equal(norms.steepest(zero, norm), zero)
    np.testing.assert_array_equal(np.ravel(norms.size(zero, norm)), [0])


def test_dot():
    products = norms.dot(images((1, 2), (3, 4)), images((5, 6), (7, 8)))
    np.testing.assert_array_equal(np.ravel(products), [17, 53])


def test_to_ball():
    """(.3, .4) too far, twice; then .5 in l2, and what leaves [0, 1] there."""
    x = images((0.25, 0.25), (0.25, 0.25), (0.5, 0.5), (0.25, 0.25))
    moved = images((0.55, 0.65), (0.28, 0.29), (0.8, 0.9), (-1.0, 0.25))
    eps = tf.reshape([0.1, 0.1, 1.0, 1.0], [4, 1, 1, 1])
    np.testing.assert_allclose(
        rows(norms.to_ball(moved, x, eps, "l2")),
        [(0.31, 0.33), (0.28, 0.29), (0.8, 0.9), (0, 0.25)],
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        rows(norms.to_ball(moved, x, eps, "linf")),
        [(0.35, 0.35), (0.28, 0.29), (0.8, 0.9), (0, 0.25)],
        rtol=1e-6,
    )


def test_starts_in_l2_are_uniform_in_the_ball():
    """A half of the volume lies within 2^(-1/3) of the radius; all ways are alike."""
    x = tf.fill([4000, 1, 3, 1], 0.5)
    eps = tf.fill([4000, 1, 1, 1], 0.25)
    moved = rows(norms.random_start(x, eps, "l2", 3) - x)
    radius = np.linalg.norm(moved, axis=1) / 0.25
    assert radius.max() <= 1 + 1e-6
    for share in (0.1, 0.5, 0.9):
        # Standard deviation at most sqrt(.25 / 4000) = .008.
        assert np.mean(radius < share ** (1 / 3)) == pytest.approx(share, abs=0.03)
    np.testing.assert_allclose(np.mean(moved > 0, axis=0), 0.5, atol=0.03)


@pytest.mark.parametrize("norm", ORDER)
def test_shared_starts_are_those_of_a_single_image(norm):
    x = tf.fill([3, 2, 2, 1], 0.5)
    start = norms.random_start(x, 0.25, norm, 3, shared=True)
    np.testing.assert_array_equal(start[0], start[2])
    alone = norms.random_start(x[:1], 0.25, norm, 3, shared=True)
    np.testing.assert_array_equal(alone[0], start[1])
    assert len(np.unique(start[0])) == 4
    apart = norms.random_start(x, 0.25, norm, 3)
    assert np.all(apart[0] != apart[1])


def shortest(x, w, value, norm):
    """The least norm of d with <w, d> = -value, 0 <= x + d <= 1, by scipy."""
    size = len(x)
    if norm == "linf":
        # Variables d and t: least t with |d_j| <= t.
        rows = np.block(
            [[np.eye(size), -np.ones((size, 1))], [-np.eye(size), -np.ones((size, 1))]]
        )
        found = optimize.linprog(
            [0] * size + [1],
            A_ub=rows,
            b_ub=np.zeros(2 * size),
            A_eq=[[*w, 0]],
            b_eq=[-value],
            bounds=[*zip(-x, 1 - x, strict=True), (0, None)],
        )
        return found.fun if found.success else None
    found = optimize.minimize(
        lambda d: d @ d,
        np.zeros(size),
        jac=lambda d: 2 * d,
        bounds=list(zip(-x, 1 - x, strict=True)),
        constraints={"type": "eq", "fun": lambda d: w @ d + value, "jac": lambda d: w},
        options={"ftol": 1e-12},
    )
    return np.sqrt(found.fun) if found.success else None


@pytest.mark.parametrize("norm", ORDER)
def test_to_hyperplane_is_the_shortest_way(norm):
    """Near, so that some coordinates are clipped, far, or out of reach; either side."""
    rng = np.random.default_rng(5)
    n, size = 40, 6
    x = np.clip(rng.uniform(-0.3, 1.3, [n, size]), 0, 1)
    w = rng.normal(size=[n, size]) * (rng.uniform(size=[n, size]) > 0.1)
    # What lies between the corners of [0, 1], on both sides.
    lowest = np.minimum(w, 0).sum(axis=1) - (w * x).sum(axis=1)
    highest = np.maximum(w, 0).sum(axis=1) - (w * x).sum(axis=1)
    share = rng.uniform(-0.95, 0.95, n)
    value = -np.where(share > 0, share * highest, -share * lowest)
    d = norms.to_hyperplane(
        images(*x),
        images(*w),
        tf.constant(value[:, None, None, None], tf.float32),
        norm,
    )
    d = rows(d).astype(np.float64)
    np.testing.assert_allclose((w * d).sum(axis=1), -value, atol=1e-5)
    assert np.all(x + d > -1e-6) and np.all(x + d < 1 + 1e-6)
    clipped = (np.abs(x + d) < 1e-6) | (np.abs(x + d - 1) < 1e-6)
    assert 0 < np.mean(clipped & (d != 0)) < 0.9
    expected = [shortest(*one, norm) for one in zip(x, w, value, strict=True)]
    solved = np.array([one is not None for one in expected])
    assert solved.mean() > 0.9
    np.testing.assert_allclose(
        np.linalg.norm(d, axis=1, ord=ORDER[norm])[solved],
        [one for one in expected if one is not None],
        atol=2e-4,
    )


@pytest.mark.parametrize("norm", ORDER)
def test_a_hyperplane_out_of_reach_is_approached_as_far_as_possible(norm):
    x, w = (0.25, 0.5, 1.0), (1.0, -2.0, 0.0)
    for value, corner in ((5.0, (0, 1, 1)), (-5.0, (1, 0, 1))):
        d = norms.to_hyperplane(
            images(x), images(w), tf.fill([1, 1, 1, 1], value), norm
        )
        np.testing.assert_allclose(rows(d)[0] + x, corner, atol=1e-6)
        # No other corner comes nearer to -value.
        reached = [
            np.dot(w, np.subtract(c, x)) for c in itertools.product(*[(0, 1)] * 3)
        ]
        best = min(abs(value + one) for one in reached)
        assert abs(value + np.dot(w, rows(d)[0])) == pytest.approx(best)


@pytest.mark.parametrize("norm", ORDER)
def test_on_the_hyperplane_there_is_nowhere_to_go(norm):
    d = norms.to_hyperplane(images((0.2, 0.4)), images((1, 2)), tf.zeros([1] * 4), norm)
    np.testing.assert_array_equal(rows(d), [(0, 0)])
    d = norms.to_hyperplane(images((0.2, 0.4)), images((0, 0)), tf.ones([1] * 4), norm)
    np.testing.assert_array_equal(rows(d), [(0, 0)])
