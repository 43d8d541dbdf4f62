import numpy as np
import pytest
from keras import layers

from tfadv import models


@pytest.mark.parametrize("width", [1, 4, 32])
def test_parameters(width):
    """Convolutions 1 -> w -> 2w, pooled to 4x4, dense 4w and K, all with biases."""
    w = width
    expected = (
        (9 * 1 * w + w)
        + (9 * w * 2 * w + 2 * w)
        + (4 * 4 * 2 * w * 4 * w + 4 * w)
        + (4 * w * 10 + 10)
    )
    assert models.small_cnn((8, 8, 1), 10, width=width).count_params() == expected


def test_sizes():
    model = models.small_cnn((8, 8, 1), 10, width=3)
    shapes = [
        tuple(layer.output.shape[1:])
        for layer in model.layers
        if isinstance(layer, layers.Conv2D | layers.MaxPooling2D | layers.Dense)
    ]
    assert shapes == [(8, 8, 3), (8, 8, 6), (4, 4, 6), (12,), (10,)]


def test_all_but_the_last_layer_are_rectified():
    model = models.small_cnn((8, 8, 1), 10)
    names = [
        layer.activation.__name__
        for layer in model.layers
        if isinstance(layer, layers.Conv2D | layers.Dense)
    ]
    assert names == ["relu", "relu", "relu", "linear"]


def test_initial_weights():
    """He: variance 2 / fan in. Each standard deviation within 10 % (n > 9,000)."""
    model = models.small_cnn((8, 8, 1), 10)
    for kernel in (v for v in model.trainable_variables if v.name == "kernel"):
        fan_in = np.prod(kernel.shape[:-1])
        if np.prod(kernel.shape) > 9000:
            assert np.std(kernel) == pytest.approx(np.sqrt(2 / fan_in), rel=0.1)


@pytest.mark.parametrize("width", [0, -3])
def test_impossible_widths(width):
    with pytest.raises(ValueError, match=f"`width` must be at least 1; .* {width}"):
        models.small_cnn((8, 8, 1), 10, width=width)
