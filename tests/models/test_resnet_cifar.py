import keras
import numpy as np
import pytest
from keras import layers

from tfadv import models


def of_type(model, kind):
    return [layer for layer in model.layers if isinstance(layer, kind)]


def count(variables):
    return sum(int(np.prod(v.shape)) for v in variables)


def expected_parameters(n, channels, classes):
    """Kernels 3x3 without bias, gamma and beta for each, then the dense layer.

    A stage of n blocks has 2n convolutions; the first of stages 2 and 3 widens.
    """
    first = 9 * channels * 16 + 2 * 16
    stage1 = 2 * n * (9 * 16 * 16 + 2 * 16)
    stage2 = 9 * 16 * 32 + (2 * n - 1) * 9 * 32 * 32 + 2 * n * 2 * 32
    stage3 = 9 * 32 * 64 + (2 * n - 1) * 9 * 64 * 64 + 2 * n * 2 * 64
    return first + stage1 + stage2 + stage3 + 64 * classes + classes


@pytest.mark.parametrize(
    "make, n, shape, published",
    [
        (models.resnet20, 3, (24, 24, 3), 269_722),
        (models.resnet20, 3, (28, 28, 1), 269_434),
        (models.resnet110, 18, (24, 24, 3), 1_727_962),
    ],
)
def test_trainable_parameters(make, n, shape, published):
    model = make(shape, 10)
    trainable = count(model.trainable_variables)
    assert trainable == expected_parameters(n, shape[-1], 10) == published
    # The moving mean and variance of 16, 32 and 64 channels.
    moving = 2 * (16 * (2 * n + 1) + 32 * 2 * n + 64 * 2 * n)
    assert count(model.non_trainable_variables) == moving


@pytest.mark.parametrize("depth, convolutions", [(8, 7), (20, 19), (32, 31)])
def test_depth_counts_the_layers_with_kernels(depth, convolutions):
    model = models.resnet_cifar((8, 8, 1), 10, depth=depth)
    assert len(of_type(model, layers.Conv2D)) == convolutions
    assert len(of_type(model, layers.BatchNormalization)) == convolutions
    assert len(of_type(model, layers.Dense)) == 1


@pytest.mark.parametrize(
    "shape, sides", [((24, 24, 3), (24, 12, 6)), ((28, 28, 1), (28, 14, 7))]
)
def test_stages(shape, sides):
    """Three blocks each of 16, 32 and 64 channels; a side halves between stages."""
    model = models.resnet20(shape, 10)
    sums = [tuple(add.output.shape[1:]) for add in of_type(model, layers.Add)]
    assert sums == [
        (side, side, filters)
        for side, filters in zip(sides, (16, 32, 64), strict=True)
        for _ in range(3)
    ]


def test_odd_sides_halve_upwards():
    """9 -> 5 -> 3, on both ways through a block."""
    sums = of_type(models.resnet_cifar((9, 9, 1), 10, depth=8), layers.Add)
    assert [add.output.shape[1] for add in sums] == [9, 5, 3]


def silenced(depth, classes):
    """A network whose blocks add nothing to their shortcuts.

    The first convolution multiplies the one input channel by 1, 2, .. 16; all others
    are 0 and the logits are the 64 averages themselves.
    """
    model = models.resnet_cifar((8, 8, 1), classes, depth=depth)
    first, *others = of_type(model, layers.Conv2D)
    kernel = np.zeros([3, 3, 1, 16])
    kernel[1, 1, 0] = np.arange(1, 17)
    first.set_weights([kernel])
    for conv in others:
        conv.set_weights([np.zeros(conv.kernel.shape)])
    model.get_layer("embedding").set_weights([np.eye(64), np.zeros(64)])
    return model


@pytest.mark.parametrize("depth", [8, 20])
def test_the_shortcut_averages_and_appends_zero_channels(depth):
    """Option A. With nothing but shortcuts the logits are the averages of

    max(0, j x) / sqrt(1 + 0.001), j = 1 .. 16 (the moving variance is 1), which 2x2
    average pools keep exactly, and 16 + 32 zeros behind them.
    """
    x = np.random.default_rng(0).uniform(size=[3, 8, 8, 1]).astype(np.float32)
    logits = np.asarray(silenced(depth, 64)(x, training=False))
    averages = x.mean((1, 2, 3))[:, None] * np.arange(1, 17) / np.sqrt(1.001)
    np.testing.assert_allclose(logits[:, :16], averages, rtol=1e-5)
    assert np.all(logits[:, 16:] == 0)


def test_the_shortcut_pools_two_by_two():
    """Of one bright pixel at (2, 5), a quarter arrives at (1, 2), in channel j."""
    model = silenced(8, 64)
    second = of_type(model, layers.Add)[1]
    x = np.zeros([1, 8, 8, 1], np.float32)
    x[0, 2, 5] = 1
    out = np.asarray(keras.Model(model.input, second.output)(x, training=False))
    expected = np.zeros([1, 4, 4, 32])
    expected[0, 1, 2, :16] = np.arange(1, 17) / 4 / np.sqrt(1.001)
    np.testing.assert_allclose(out, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "options, activation, kind",
    [
        ({}, lambda h: np.maximum(h, 0), layers.ReLU),
        ({"activation": "tanh"}, np.tanh, layers.Activation),
    ],
)
def test_a_block_is_conv_bn_relu_conv_bn_add_relu(options, activation, kind):
    """Replayed in NumPy on 1x1 images, where a 3x3 kernel is its centre.

    The first block of a network whose moving statistics are not those of a new one.
    """
    rng = np.random.default_rng(1)
    model = models.resnet_cifar((1, 1, 16), 10, depth=8, **options)
    convs = of_type(model, layers.Conv2D)[:3]
    norms = of_type(model, layers.BatchNormalization)[:3]
    for norm in norms:
        gamma, beta, mean = rng.normal(size=[3, 16])
        norm.set_weights([gamma, beta, mean, rng.uniform(0.5, 2, size=16)])

    def normalised(h, i):
        gamma, beta, mean, variance = norms[i].get_weights()
        h = h @ convs[i].get_weights()[0][1, 1]
        return gamma * (h - mean) / np.sqrt(variance + 1e-3) + beta

    x = rng.uniform(size=[4, 16]).astype(np.float32)
    h = activation(normalised(x, 0))
    expected = normalised(activation(normalised(h, 1)), 2) + h
    block = keras.Model(model.input, of_type(model, layers.Add)[0].output)
    actual = np.asarray(block(x[:, None, None], training=False))[:, 0, 0]
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
    # What follows sees the sum only after its activation.
    for add in of_type(model, layers.Add):
        (node,) = add._outbound_nodes
        assert isinstance(node.operation, kind)
    assert len(of_type(model, kind)) == 7


def test_relu_decay_in_place_of_relu():
    """Behind each of 19 convolutions a ReLU is divided."""
    model = models.resnet20((8, 8, 1), 10, activation="relu_decay_0.1")
    divisions = [o for o in model.operations if o.name.startswith("true_divide")]
    assert len(divisions) == len(of_type(model, layers.ReLU)) == 19


@pytest.mark.parametrize(
    "width, stages",
    [
        (1.0, (16, 32, 64)),
        (0.5, (8, 16, 32)),
        (2.0, (32, 64, 128)),
        (0.3, (4, 9, 19)),
        # int(1.6), int(3.2) and int(6.4), but 4 at least: stage 2 widens nothing.
        (0.1, (4, 4, 6)),
    ],
)
def test_width(width, stages):
    model = models.resnet_cifar((9, 9, 3), 5, depth=8, width=width)
    sums = [tuple(add.output.shape[1:]) for add in of_type(model, layers.Add)]
    assert sums == [
        (side, side, filters) for side, filters in zip((9, 5, 3), stages, strict=True)
    ]
    # The first convolution has the filters of stage 1; then two a stage.
    filters = [conv.filters for conv in of_type(model, layers.Conv2D)]
    assert filters == [stages[0], *(f for f in stages for _ in range(2))]
    assert model.get_layer("embedding").kernel.shape == (stages[-1], 5)


@pytest.mark.parametrize(
    "arguments, momentum", [({}, 0.999), ({"bn_momentum": 0.9}, 0.9)]
)
def test_moving_statistics(arguments, momentum):
    """momentum * 0 + (1 - momentum) * mean of the batch, in the layer that sees x."""
    model = models.resnet_cifar((8, 8, 1), 10, depth=8, **arguments)
    for norm in of_type(model, layers.BatchNormalization):
        assert (norm.momentum, norm.epsilon) == (momentum, 1e-3)
    conv = of_type(model, layers.Conv2D)[0]
    conv.set_weights([np.ones(conv.kernel.shape)])
    model(np.ones([2, 8, 8, 1], np.float32), training=True)
    # Sums of 9, 6 or 4 ones: 36 inner pixels, 24 at edges, 4 in corners.
    mean = (36 * 9 + 24 * 6 + 4 * 4) / 64
    norm = of_type(model, layers.BatchNormalization)[0]
    np.testing.assert_allclose(norm.moving_mean, (1 - momentum) * mean, rtol=1e-3)


def test_initial_weights():
    """Glorot uniform: within sqrt(6 / (fan in + fan out)), the bias 0."""
    model = models.resnet20((24, 24, 3), 10)
    for conv in of_type(model, layers.Conv2D):
        assert not conv.use_bias
        rows, columns, fan_in, fan_out = conv.kernel.shape
        limit = np.sqrt(6 / (rows * columns * (fan_in + fan_out)))
        assert 0.95 * limit < np.abs(conv.kernel).max() <= limit
    kernel, bias = model.get_layer("embedding").get_weights()
    assert 0.9 * np.sqrt(6 / 74) < np.abs(kernel).max() <= np.sqrt(6 / 74)
    assert np.all(bias == 0)


def test_weight_decay_by_default():
    model = models.resnet_cifar((8, 8, 1), 10, depth=8)
    kernels = [layer.kernel for layer in of_type(model, (layers.Conv2D, layers.Dense))]
    expected = 1e-4 / 2 * sum(np.square(k).sum() for k in kernels)
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("depth", [-4, 0, 2, 7, 9, 18, 21])
def test_impossible_depths(depth):
    message = rf"`depth` must be 6n \+ 2, as 20, 32, 44, 56 or 110; received {depth}"
    with pytest.raises(ValueError, match=message):
        models.resnet_cifar((8, 8, 1), 10, depth=depth)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"width": 0.0}, "`width` must be a positive number; received 0.0"),
        ({"width": -1.0}, "`width` must be a positive number; received -1.0"),
        ({"activation": "swish"}, "unknown activation 'swish'"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        models.resnet_cifar((8, 8, 1), 10, depth=8, **options)
