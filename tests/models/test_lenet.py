import numpy as np
import pytest
from keras import layers

from tfadv import models


def test_parameters_on_mnist():
    """Two convolutions 5x5 and a dense layer on 7x7x64, all with biases."""
    first = 5 * 5 * 1 * 32 + 32
    second = 5 * 5 * 32 * 64 + 64
    dense = 7 * 7 * 64 * 10 + 10
    assert first + second + dense == 83_466
    assert models.lenet((28, 28, 1), 10).count_params() == 83_466


def test_sizes():
    model = models.lenet((28, 28, 1), 10)
    shapes = [
        tuple(layer.output.shape[1:])
        for layer in model.layers
        if isinstance(layer, layers.Conv2D | layers.MaxPooling2D)
    ]
    assert shapes == [(28, 28, 32), (14, 14, 32), (14, 14, 64), (7, 7, 64)]


def test_the_order_of_the_layers():
    """On constant images with constant kernels, by hand.

    A pool takes the largest of its four pixels, so it keeps inner pixels, that see all
    of the image. 4x4 images of c: an inner pixel of a 5x5 kernel sees 16, 12 or 9 of
    them and each pool window has one that sees 9 or more, the largest being (1, 1) ..
    (2, 2), which see all 16. The second convolution sees all 2x2 pixels in 32 channels.
    """
    c, a, b, d = 0.5, 0.01, 0.02, 0.03
    model = models.lenet((4, 4, 1), 2)
    first, second = (x for x in model.layers if isinstance(x, layers.Conv2D))
    first.set_weights([np.full([5, 5, 1, 32], a), np.full(32, 0.1)])
    second.set_weights([np.full([5, 5, 32, 64], b), np.full(64, 0.2)])
    model.get_layer("embedding").set_weights(
        [np.full([64, 2], d), np.array([1.0, -1.0])]
    )
    h = 16 * a * c + 0.1
    h = 4 * 32 * b * h + 0.2
    expected = 64 * d * h + np.array([[1.0, -1.0]])
    logits = model(np.full([1, 4, 4, 1], c, np.float32), training=False)
    np.testing.assert_allclose(logits, expected, rtol=1e-5)


@pytest.mark.parametrize("negative", [0, 1])
def test_both_convolutions_are_rectified(negative):
    """With kernels of 0 and one bias of -1 nothing but the last bias comes through."""
    model = models.lenet((4, 4, 1), 2)
    convs = [x for x in model.layers if isinstance(x, layers.Conv2D)]
    for i, conv in enumerate(convs):
        kernel, bias = conv.get_weights()
        conv.set_weights([np.abs(kernel), np.full_like(bias, -1e3 * (i == negative))])
    model.get_layer("embedding").set_weights([np.ones([64, 2]), np.array([0.5, -0.5])])
    logits = model(np.ones([1, 4, 4, 1], np.float32), training=False)
    np.testing.assert_array_equal(logits, [[0.5, -0.5]])


def test_initial_weights():
    """Glorot uniform: within sqrt(6 / (fan in + fan out))."""
    model = models.lenet((28, 28, 1), 10)
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D | layers.Dense):
            *window, fan_in, fan_out = layer.kernel.shape
            limit = np.sqrt(6 / (np.prod(window) * (fan_in + fan_out)))
            assert 0.95 * limit < np.abs(layer.kernel).max() <= limit
            assert np.all(np.asarray(layer.bias) == 0)
