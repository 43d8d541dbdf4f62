import keras
import numpy as np
import pytest
from keras import layers

from tfadv import models

MNIST = (28, 28, 1)
# Kernels and biases; 28 -> 24 -> 20, 28 -> 14 -> 5 -> 1, 28 -> 26 -> 24.
PARAMETERS = {
    "eat_a": (25 * 1 + 1) * 64
    + (25 * 64 + 1) * 64
    + (20 * 20 * 64 + 1) * 128
    + (128 + 1) * 10,
    "eat_b": (64 * 1 + 1) * 64
    + (36 * 64 + 1) * 128
    + (25 * 128 + 1) * 128
    + (128 + 1) * 10,
    "eat_c": (9 * 1 + 1) * 128
    + (9 * 128 + 1) * 64
    + (24 * 24 * 64 + 1) * 128
    + (128 + 1) * 10,
    "eat_d": (28 * 28 + 1) * 300 + 3 * (300 + 1) * 300 + (300 + 1) * 10,
}
# What each layer with weights, and each dropout, leaves.
SHAPES = {
    "eat_a": [(24, 24, 64), (20, 20, 64), 0.25, (128,), 0.5, (10,)],
    "eat_b": [0.2, (14, 14, 64), (5, 5, 128), (1, 1, 128), 0.5, (10,)],
    "eat_c": [(26, 26, 128), (24, 24, 64), 0.25, (128,), 0.5, (10,)],
    "eat_d": [*[(300,), 0.5] * 4, (10,)],
}
EVERY = pytest.mark.parametrize("name", PARAMETERS)


@EVERY
def test_parameters_on_mnist(name):
    expected = {
        **{"eat_a": 3_382_346, "eat_b": 710_218},
        **{"eat_c": 4_795_082, "eat_d": 509_410},
    }
    assert PARAMETERS[name] == expected[name]
    assert models.get(name)(MNIST, 10).count_params() == expected[name]


@EVERY
def test_the_order_and_the_sizes_of_the_layers(name):
    found = []
    made = models.get(name)(MNIST, 10).layers
    for layer in made:
        if isinstance(layer, layers.Dropout):
            found.append(layer.rate)
        elif layer.weights:
            found.append(tuple(layer.output.shape[1:]))
            rectified = layer.activation is keras.activations.relu
            assert rectified == (layer is not made[-1])
    assert found == SHAPES[name]
    assert made[-1].name == "embedding"


@EVERY
def test_inference_draws_nothing_and_training_does(name):
    model = models.get(name)(MNIST, 10)
    x = np.random.default_rng(0).uniform(size=(2, *MNIST)).astype(np.float32)
    quiet = model(x, training=False)
    np.testing.assert_array_equal(quiet, model(x, training=False))
    assert np.abs(model(x, training=True) - quiet).max() > 0


@pytest.mark.parametrize(("name", "least"), [("eat_a", 9), ("eat_b", 27), ("eat_c", 5)])
def test_images_that_are_too_small(name, least):
    models.get(name)((least, least, 1), 10)
    with pytest.raises(ValueError, match=f"sides of {least} or more; received"):
        models.get(name)((least - 1, 28, 1), 10)


def test_initial_weights_of_the_dense_network():
    """He normal, truncated at two standard deviations of sqrt(2 / fan in) / 0.88."""
    made = models.eat_d(MNIST, 10)
    dense = [layer for layer in made.layers if isinstance(layer, layers.Dense)]
    for layer in dense[:-1]:
        kernel = np.asarray(layer.kernel)
        expected = np.sqrt(2 / kernel.shape[0])
        assert kernel.std() == pytest.approx(expected, rel=0.03)
        assert np.abs(kernel).max() <= 2 * expected / 0.8796 + 1e-6
