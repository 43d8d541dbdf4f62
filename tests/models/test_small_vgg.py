import keras
import numpy as np
import pytest
from keras import layers

from tfadv import models

CIFAR = (32, 32, 3)


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)


def parameters(width, channels, places, classes):
    """Six convolutions 3x3, dense layers on the last maps and on 256; all with biases.

    Args:
        places: of the maps behind the third pool.
    """
    total = 0
    for filters in (width, width, 2 * width, 2 * width, 4 * width, 4 * width):
        total += (9 * channels + 1) * filters
        channels = filters
    return total + (places * channels + 1) * 256 + (256 + 1) * classes


def test_parameters_on_cifar():
    assert parameters(32, 3, 4 * 4, 10) == 814_122
    assert models.small_vgg(CIFAR, 10).count_params() == 814_122


@pytest.mark.parametrize(
    ("shape", "places"), [((8, 8, 1), 1), ((28, 28, 1), 9), ((15, 24, 3), 3)]
)
def test_parameters_at_other_sizes(shape, places):
    """Three pools that drop what is odd: 28, 14, 7, 3 and 15, 7, 3, 1."""
    model = models.small_vgg(shape, 7, width=4)
    assert model.count_params() == parameters(4, shape[-1], places, 7)


def test_the_order_and_the_sizes_of_the_layers():
    model = models.small_vgg(CIFAR, 10, width=3)
    kinds = layers.Conv2D | layers.MaxPooling2D | layers.Dense
    made = [layer for layer in model.layers if isinstance(layer, kinds)]
    assert [tuple(layer.output.shape[1:]) for layer in made] == [
        *((32, 32, 3), (32, 32, 3), (16, 16, 3)),
        *((16, 16, 6), (16, 16, 6), (8, 8, 6)),
        *((8, 8, 12), (8, 8, 12), (4, 4, 12)),
        *((256,), (10,)),
    ]
    for layer in made[:-1]:
        if not isinstance(layer, layers.MaxPooling2D):
            assert layer.activation is keras.activations.relu
    assert made[-1].activation is keras.activations.linear
    assert made[-1].name == "embedding"
    convolutions = [one for one in made if isinstance(one, layers.Conv2D)]
    assert {one.kernel_size for one in convolutions} == {(3, 3)}


def test_the_pools_take_maxima():
    """One bright pixel behind kernels that copy it reaches the logits whole.

    Of a mean the three pools would leave 1/64. Every convolution copies its first
    channel: 1 at the centre of the first filter, 0 elsewhere.
    """
    model = models.small_vgg((8, 8, 1), 2, width=1)
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D):
            kernel, bias = layer.get_weights()
            kernel = np.zeros_like(kernel)
            kernel[1, 1, 0, 0] = 1
            layer.set_weights([kernel, bias])
        elif isinstance(layer, layers.Dense):
            kernel, bias = layer.get_weights()
            kernel = np.zeros_like(kernel)
            kernel[0] = 1
            layer.set_weights([kernel, bias + np.arange(len(bias))])
    x = np.zeros([1, 8, 8, 1], np.float32)
    x[0, 5, 2, 0] = 0.75
    # The first of the dense units is rectified at 0.75 + 0, the logits add 0 and 1.
    np.testing.assert_allclose(model(x, training=False), [[0.75, 1.75]], rtol=1e-6)


def test_initial_weights():
    """He: variance 2 / fan in. 9,000 draws have it within a few per cent."""
    model = models.small_vgg(CIFAR, 10)
    large = 0
    for layer in model.layers:
        if not isinstance(layer, layers.Conv2D | layers.Dense):
            continue
        assert np.all(np.asarray(layer.bias) == 0)
        kernel = np.asarray(layer.kernel)
        if kernel.size > 9000:
            large += 1
            fan_in = np.prod(kernel.shape[:-1])
            assert np.std(kernel) == pytest.approx(np.sqrt(2 / fan_in), rel=0.05)
    assert large == 6


def test_training_and_inference_are_the_same():
    """No batch normalisation, no dropout."""
    model = models.small_vgg((8, 8, 3), 4, width=4)
    assert not model.non_trainable_variables
    x = np.random.default_rng(0).uniform(size=(3, 8, 8, 3)).astype(np.float32)
    np.testing.assert_array_equal(model(x, training=True), model(x, training=False))


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((7, 32, 3), {}, "small_vgg takes .* sides of 8 or more; received 7x32x3"),
        ((32, 7, 1), {}, "received 32x7x1"),
        (CIFAR, {"width": 0}, "`width` must be at least 1; received 0"),
        (CIFAR, {"width": -3}, "`width` must be at least 1; received -3"),
        (CIFAR, {"mean": (0.5, 0.5)}, "`mean` must hold one value for each"),
    ],
)
def test_arguments_that_cannot_be(shape, options, message):
    with pytest.raises(ValueError, match=message):
        models.small_vgg(shape, 10, **options)
