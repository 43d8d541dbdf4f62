import numpy as np
import pytest
import tensorflow as tf

from tfadv import losses
from tfadv.analysis import gradient_correlation as gc
from tfadv.attacks import core

RNG = np.random.default_rng(0)
# Four pixels, three classes.
W = RNG.normal(size=(4, 3))
X = RNG.uniform(0.1, 0.9, size=(5, 2, 2, 1)).astype(np.float32)
Y = np.array([0, 1, 2, 0, 2], np.int32)
MOVES = {
    name: RNG.choice([-1, 1], X.shape).astype(np.float32) / 255
    for name in ("step_ll", "step_fgsm", "random_sign")
}


def linear_softmax(w, scale=1.0):
    kernel = tf.constant(scale * w, tf.float32)
    return lambda x: tf.reshape(x, [-1, len(w)]) @ kernel


def gradient_of_j(w, x, y):
    """d/dx of J(softmax(x w), y): sum_c p_c w_c - w_y, one image."""
    z = np.ravel(x).astype(np.float64) @ w
    p = np.exp(z - z.max())
    return w @ (p / p.sum()) - w[:, y]


def test_the_grid_is_that_of_the_figure():
    fine = [0.02 * k for k in range(1, 50)]
    coarse = [1 + 0.2 * k for k in range(46)]
    assert list(gc.GRID) == pytest.approx([0.01, *fine, *coarse], rel=1e-12)
    assert gc.GRID[-1] == 10
    assert 0.2 in gc.GRID


@pytest.mark.parametrize("batch_size", [1, 4, 15, 100])
def test_correlations_of_a_linear_softmax(batch_size):
    # The last leaves [0, 1]: images are not clipped on the way.
    grid = (0.5, 30.0, 400.0)
    found = gc.correlations(linear_softmax(W), X, Y, MOVES, grid, batch_size=batch_size)
    assert set(found) == set(gc.PAIRS)
    for (a, b), values in found.items():
        assert values.shape == (3, 5)
        for j, eps in enumerate(grid):
            for i in range(5):
                u, v = (
                    gradient_of_j(
                        W, X[i] + eps * MOVES[n][i] if n in MOVES else X[i], Y[i]
                    )
                    for n in (a, b)
                )
                expected = np.corrcoef(u, v)[0, 1]
                assert values[j, i] == pytest.approx(expected, abs=1e-4)
    # The gradients do turn, or the test would show nothing.
    assert found["clean", "step_ll"][2].min() < 0.9


def test_a_gradient_of_one_direction_correlates_fully():
    # Of two classes J has the gradient -(1 - s) w or s w everywhere.
    w = np.stack([np.zeros(4), [3.0, -4.0, 1.0, 2.0]], axis=1)
    labels = Y % 2
    signs = {name: np.sign(n) for name, n in MOVES.items()}
    found = gc.measure(linear_softmax(w), X, labels, signs, batch_size=64)
    assert list(found) == [
        "clean, step_ll",
        "clean, step_fgsm",
        "clean, random_sign",
        "step_ll, step_fgsm",
    ]
    for curve in found.values():
        np.testing.assert_allclose(curve["mean"], np.ones(96), atol=1e-6)
        np.testing.assert_allclose(curve["sd"], np.zeros(96), atol=1e-6)
        assert curve["n"] == [5] * 96


def test_a_sure_network_has_its_correlation_all_the_same():
    # Logits 500, 300 and 50; n moves none by more than 4. The class is right, so J and
    # its gradient are 0 in float32.
    w = 100 * np.array([[9.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 1.0], [1, 2, 0]])
    predict = linear_softmax(w)
    x, y = np.full((5, 2, 2, 1), 0.5, np.float32), np.zeros(5, np.int32)
    vanished = core.input_gradient(
        predict, tf.constant(x), lambda o: losses.cross_entropy(y, o)
    )
    assert not vanished.numpy().any()
    # m = z_1 - z_0 at all of these images: one and the same gradient.
    found = gc.correlations(predict, x, y, MOVES, (1.0,), batch_size=5)
    for values in found.values():
        np.testing.assert_allclose(values, np.ones([1, 5]), atol=1e-6)


def test_the_direction_is_that_of_the_clipped_image_of_one_pixel():
    x = np.array([0, 0.4, 1, 254.5], np.float32).reshape(1, 2, 2, 1)
    x[0, 1, 1] /= 255
    d = np.array([-1, 1, -1, 1], np.float32).reshape(1, 2, 2, 1)
    found = gc.one_pixel(x, {"a": d, "b": -d})
    np.testing.assert_allclose(255 * found["a"].ravel(), [0, 1, -1, 0.5], atol=1e-4)
    np.testing.assert_allclose(255 * found["b"].ravel(), [1, -1, 0, -1], atol=1e-4)


def test_pearson_is_that_of_numpy():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 6, 3, 3, 2)).astype(np.float32)
    b[0] = -2 * a[0] + 5
    # Gradients may be tiny: their squares are 0 in float32.
    b[1] *= 1e-30
    expected = [
        np.corrcoef(u.ravel(), v.ravel())[0, 1] for u, v in zip(a, b, strict=True)
    ]
    found = gc.pearson(a, b)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert found[0] == pytest.approx(-1)


def test_pearson_without_a_value():
    a = np.random.default_rng(1).normal(size=(4, 7)).astype(np.float32)
    b = np.array([[0.0], [0.1], [np.nan], [np.inf]], np.float32) * np.ones(
        7, np.float32
    )
    assert np.isnan(gc.pearson(a, b)).all()
    assert np.isnan(gc.pearson(b, a)).all()


def test_summary_leaves_out_what_is_undefined():
    values = np.array([[0.2, np.nan, 0.6], [np.nan] * 3, [0.1, 0.4, -0.5]])
    found = gc.summarize(values)
    assert found["n"] == [2, 0, 3]
    np.testing.assert_allclose(found["mean"], [0.4, np.nan, 0.0], atol=1e-15)
    # Of 0.1, 0.4, -0.5 about 0: sqrt(0.42 / 3).
    np.testing.assert_allclose(found["sd"], [0.2, np.nan, np.sqrt(0.14)])
