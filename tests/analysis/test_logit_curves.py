import numpy as np
import pytest
import tensorflow as tf

from tfadv.analysis import logit_curves


def test_the_grid_is_that_of_the_figures():
    positive = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    positive += [12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 35, 40, 45, 50, 55, 60]
    assert list(logit_curves.GRID) == [-e for e in positive[::-1]] + [0] + positive


# In pixels: image 0 is inside for all steps, of image 1 the first value stops at 255
# and the second at 0.
X = np.array([[100, 200], [250, 5]], np.float32)
DIRECTION = np.array([[-1, 1], [1, -1]], np.float32)


@pytest.mark.parametrize("batch_size", [1, 3, 4, 50])
def test_logits_of_a_linear_model_along_a_direction(linear, batch_size):
    predict, _ = linear
    pixels = (-20.0, 0.0, 10.0)
    found = logit_curves.logits_along(
        predict,
        X.reshape(2, 1, 2, 1) / 255,
        DIRECTION.reshape(2, 1, 2, 1),
        pixels,
        batch_size=batch_size,
    )
    assert found.shape == (3, 2, 2)
    np.testing.assert_array_equal(found[..., 0], 0)
    # m = 3 a - 4 b in pixels:
    #   image 0: (120, 180), (100, 200), (90, 210)
    #   image 1: (230, 25), (250, 5), (255, 0)
    m = [[-360, 590], [-500, 730], [-570, 765]]
    np.testing.assert_allclose(255 * found[..., 1], m, atol=1e-3)


def test_true_and_false_classes_are_told_apart():
    # Images of classes 2 and 0, at two eps.
    logits = np.array([[[1, 2, 9], [5, -1, 3]], [[0, 0, 6], [6, 4, 8]]], np.float32)
    found = logit_curves.summarize(logits, np.array([2, 0]))
    # True (9, 5) and (6, 6); false (1, 2, -1, 3) and (0, 0, 4, 8).
    assert found["true_mean"] == [7, 6]
    assert found["true_sd"] == [2, 0]
    assert found["false_mean"] == [1.25, 3]
    np.testing.assert_allclose(
        found["false_sd"], [np.std([1, 2, -1, 3]), np.std([0, 0, 4, 8])], rtol=1e-12
    )


def test_bands_are_standard_deviations_over_all_images_and_classes():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 20, 7)).astype(np.float32)
    y = rng.integers(0, 7, 20)
    found = logit_curves.summarize(logits, y)
    for s in range(3):
        true = [logits[s, i, y[i]] for i in range(20)]
        false = [logits[s, i, c] for i in range(20) for c in range(7) if c != y[i]]
        for name, values in (("true", true), ("false", false)):
            values = np.array(values, np.float64)
            assert found[f"{name}_mean"][s] == pytest.approx(values.mean())
            variance = np.mean((values - values.mean()) ** 2)
            assert found[f"{name}_sd"][s] == pytest.approx(np.sqrt(variance))


def test_measure_holds_a_curve_a_direction(linear):
    predict, _ = linear
    x = np.array([[100, 120], [140, 110]], np.float32).reshape(2, 1, 2, 1) / 255
    down = np.array([-1, 1], np.float32).reshape(1, 1, 2, 1)
    found = logit_curves.measure(
        predict,
        x,
        np.array([1, 1], np.int32),
        {"down": np.tile(down, (2, 1, 1, 1)), "up": np.tile(-down, (2, 1, 1, 1))},
        batch_size=5,
    )
    # m is -180 and -20 in pixels: -100 +- 80. An eps of e adds -7 e or 7 e to both.
    grid = np.array(logit_curves.GRID)
    for name, slope in (("down", -7), ("up", 7)):
        curve = found[name]
        mean = 255 * np.array(curve["true_mean"])
        np.testing.assert_allclose(mean, -100 + slope * grid, atol=1e-3)
        np.testing.assert_allclose(255 * np.array(curve["true_sd"]), 80, atol=1e-3)
        np.testing.assert_array_equal(curve["false_mean"], np.zeros(65))


def test_a_network_that_diverged_has_no_numbers():
    x = np.zeros((2, 1, 2, 1), np.float32)
    logits = logit_curves.logits_along(
        lambda x: tf.fill([tf.shape(x)[0], 3], np.nan), x, x, (0.0,), batch_size=2
    )
    found = logit_curves.summarize(logits, np.array([0, 1]))
    assert all(np.isnan(values).all() for values in found.values())
