import keras
import numpy as np
import pytest
from keras import layers

from tests.models.test_residual import assert_truncated_normal, of_type
from tfadv.models.inception import (
    AVERAGE_POOL,
    MAX_POOL,
    convolutions,
    mixed,
)

OPTIONS = {"width": 1.0, "activation": "relu", "bn_momentum": 0.9, "weight_decay": 0.0}
HE = 1 / 0.87962566  # What is cut off at two standard deviations has .87962566 of one.


def network(shape, *arguments, **options):
    """One convolution of images of `shape`."""
    x = keras.Input(shape)
    conv = convolutions(**(OPTIONS | options))
    return keras.Model(x, conv(x, "first", *arguments))


def statistics(model, seed=0):
    """beta, mean and variance, which the model now has."""
    (norm,) = of_type(model, layers.BatchNormalization)
    rng = np.random.default_rng(seed)
    beta, mean = rng.normal(size=(2, *norm.beta.shape))
    variance = rng.uniform(0.5, 2, norm.beta.shape)
    norm.set_weights([beta, mean, variance])
    return beta, mean, variance


def test_convolution_centre_activation():
    """y = relu6((conv - mean) / sqrt(variance + 0.001) + beta), without a scale."""
    model = network((2, 3, 4), 20, 1, activation="relu6")
    beta, mean, variance = statistics(model)
    (conv,) = of_type(model, layers.Conv2D)
    x = np.random.default_rng(1).normal(size=(5, 2, 3, 4)).astype(np.float32)
    expected = (x @ conv.get_weights()[0][0, 0] - mean) / np.sqrt(variance + 0.001)
    expected = np.clip(expected + beta, 0, 6)
    np.testing.assert_allclose(model(x, training=False), expected, atol=1e-4)
    assert len(conv.weights) == 1 and model.count_params() == (4 + 3) * 20


def test_rows_before_columns():
    """1x3 sums along a row, where at an edge a third of it is missing."""
    model = network((3, 3, 1), 16, (1, 3))
    (conv,) = of_type(model, layers.Conv2D)
    conv.set_weights([np.ones((1, 3, 1, 16))])
    x = np.arange(1, 10, dtype=np.float32).reshape(1, 3, 3, 1)
    sums = [[3, 6, 5], [9, 15, 11], [15, 24, 17]]
    y = model(x, training=False)[0, ..., 0] * np.sqrt(1.001)
    np.testing.assert_allclose(y, sums, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "side"),
    [((16, 3), 7), ((16, 3, 1, "valid"), 5), ((16, 3, 2, "valid"), 3)],
)
def test_strides_and_padding(arguments, side):
    assert network((7, 7, 1), *arguments).output_shape == (None, side, side, 16)


@pytest.mark.parametrize(
    ("width", "filters", "expected"),
    [
        (1.0, 80, 80),
        (0.5, 80, 40),
        (2.0, 80, 160),
        (0.75, 35, 26),
        (0.5, 32, 16),
        (0.5, 31, 16),
        (0.01, 768, 16),
        (1.0, 8, 16),
    ],
)
def test_width(width, filters, expected):
    """int(26.25) = 26; never less than 16, where 8 are asked for, too."""
    model = network((2, 2, 1), filters, 1, width=width)
    assert model.output_shape[-1] == expected


def test_names():
    model = network((2, 2, 1), 16, (1, 7), activation="elu")
    names = [layer.name for layer in model.layers[1:]]
    assert names == ["first_1x7", "first_1x7_bn", "first_1x7_elu"]


def test_options_reach_their_layers():
    model = network((2, 2, 1), 16, 3, bn_momentum=0.7, weight_decay=0.1)
    (norm,) = of_type(model, layers.BatchNormalization)
    assert (norm.momentum, norm.epsilon) == (0.7, 1e-3)
    kernel = of_type(model, layers.Conv2D)[0].get_weights()[0]
    assert len(model.losses) == 1
    assert float(model.losses[0]) == pytest.approx(0.05 * np.sum(kernel**2), rel=1e-5)
    assert network((2, 2, 1), 16, 3).losses == []


def test_kernels():
    """He normal by the fan in 3 x 5 x 8 unless another law is given; none are equal."""
    x = keras.Input((5, 5, 8))
    conv = convolutions(**OPTIONS)
    small = keras.initializers.TruncatedNormal(stddev=0.3)
    ends = [conv(x, f"conv_{i}", 300, (3, 5)) for i in range(2)]
    ends += [conv(x, "conv_2", 300, (3, 5), 1, "same", small)]
    model = keras.Model(x, ends)
    first, second, other = (
        conv.get_weights()[0] for conv in of_type(model, layers.Conv2D)
    )
    std = np.sqrt(2 / (3 * 5 * 8))
    assert_truncated_normal(first, std, 2 * std * HE)
    assert np.abs(first - second).max() > std
    assert_truncated_normal(other, 0.3 / HE, 0.6)


@pytest.mark.parametrize("width", [0, -1.0, float("nan"), float("inf")])
def test_impossible_widths(width):
    with pytest.raises(ValueError, match="`width` must be a positive number; received"):
        convolutions(**(OPTIONS | {"width": width}))


def test_impossible_activation():
    with pytest.raises(ValueError, match="unknown activation 'reul'"):
        convolutions(**(OPTIONS | {"activation": "reul"}))


def times(x, label, factor):
    """In place of a convolution."""
    return layers.Rescaling(factor, name=label)(x)


def test_branches():
    """Each step multiplies; pools leave constants alone, at the edge as well."""
    x = keras.Input((5, 5, 1))
    branches = [[(2,)], [(3,), (5,)], [(7,), [(11,), (13,)]], [AVERAGE_POOL, (17,)]]
    model = keras.Model(x, mixed(x, "block", branches, times))
    y = np.asarray(model(np.ones((1, 5, 5, 1))))
    expected = np.broadcast_to([2.0, 3 * 5, 7 * 11, 7 * 13, 17], (1, 5, 5, 5))
    np.testing.assert_allclose(y, expected, rtol=1e-6)
    names = {layer.name for layer in model.layers[1:]}
    assert names == {
        "block",
        "block_0a",
        "block_1a",
        "block_1b",
        "block_2a",
        "block_2b",
        "block_2c",
        "block_3a_pool",
        "block_3b",
    }
    assert model.get_layer("block").output is model.output


def test_pools():
    """3x3: a mean over the image's own pixels, or a maximum of every second one."""
    x = keras.Input((5, 5, 1))
    mean = keras.Model(x, mixed(x, "mean", [[AVERAGE_POOL], [(0,)]], times))
    largest = keras.Model(x, mixed(x, "max", [[MAX_POOL], [MAX_POOL, (2,)]], times))
    image = np.arange(25, dtype=np.float32).reshape(1, 5, 5, 1)
    image[0, 2, 2] = 100
    means = np.asarray(mean(image))[0, ..., 0]
    assert means.shape == (5, 5)
    assert means[0, 0] == pytest.approx((0 + 1 + 5 + 6) / 4)
    assert means[1, 1] == pytest.approx((0 + 1 + 2 + 5 + 6 + 7 + 10 + 11 + 100) / 9)
    maxima = np.asarray(largest(image))[0]
    np.testing.assert_array_equal(maxima[..., 0], np.full((2, 2), 100))
    np.testing.assert_array_equal(maxima[..., 1], np.full((2, 2), 200))
