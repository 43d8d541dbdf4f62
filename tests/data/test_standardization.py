import keras
import numpy as np
import pytest
import tensorflow as tf

from tfadv.data.standardization import standardize


def test_by_hand():
    """Of (0, 1, 2, 5) the mean is 2, so -2, -1, 0, 3, and 3 is the largest."""
    x = np.array([0.0, 1.0, 2.0, 5.0], np.float32).reshape(1, 2, 2, 1)
    expected = np.array([-2, -1, 0, 3]) / 3
    np.testing.assert_allclose(np.ravel(standardize(x)), expected, rtol=1e-6)


def test_the_standard_deviation_cancels():
    x = np.random.default_rng(0).uniform(size=(5, 4, 3, 2)).astype(np.float32)
    axes = (1, 2, 3)
    expected = (x - x.mean(axes, keepdims=True)) / x.std(axes, keepdims=True)
    expected /= np.abs(expected).max(axes, keepdims=True)
    np.testing.assert_allclose(standardize(x), expected, atol=1e-6)


def test_every_image_is_its_own():
    x = np.random.default_rng(0).uniform(size=(3, 4, 4, 3)).astype(np.float32)
    together = standardize(tf.constant(x))
    assert np.abs(together).max(axis=(1, 2, 3)) == pytest.approx([1, 1, 1])
    for i in range(3):
        np.testing.assert_array_equal(together[i], standardize(x[i : i + 1])[0])


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_an_image_of_one_colour_is_zero(value):
    flat = np.full([2, 4, 4, 3], value, np.float32)
    np.testing.assert_allclose(standardize(flat), 0, atol=1e-3)


def test_the_least_contrast_of_8_bits_counts():
    """One pixel of 16 is a step higher: 15 / 16 above the mean, others 1 / 16 below."""
    x = np.full([1, 4, 4, 1], 100 / 255, np.float32)
    x[0, 1, 2] += 1 / 255
    found = np.ravel(standardize(x))
    assert found.max() == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(np.delete(found, 6), -1 / 15, atol=1e-4)


def test_it_is_a_part_of_keras_models():
    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, standardize(inputs))
    x = np.random.default_rng(0).uniform(size=(3, 4, 4, 3)).astype(np.float32)
    np.testing.assert_allclose(model(x), standardize(x), atol=1e-7)
