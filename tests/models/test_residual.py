import keras
import numpy as np
import pytest
from keras import layers

from tfadv.models.residual import batch_norm, convolution, residual_block


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)


def of_type(model, kind):
    return [layer for layer in model.layers if isinstance(layer, kind)]


def before(layer):
    """The layers that `layer` takes its inputs of."""
    inputs = layer._inbound_nodes[0].input_tensors
    return [tensor._keras_history.operation for tensor in inputs]


def after(layer):
    return [node.operation for node in layer._outbound_nodes]


def count(variables):
    return sum(int(np.prod(v.shape)) for v in variables)


def projecting(model):
    """For each block, whether both sides of its sum are normalised convolutions."""
    return [
        all(isinstance(side, layers.BatchNormalization) for side in before(add))
        for add in of_type(model, layers.Add)
    ]


def scrambled(model, seed=0):
    """`model` with batch normalisations that are not those of a new one, and biases."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            gamma, beta, mean = rng.normal(size=(3, layer.gamma.shape[0]))
            layer.set_weights([gamma, beta, mean, rng.uniform(0.5, 2, gamma.shape)])
        elif getattr(layer, "use_bias", False):
            layer.bias.assign(rng.normal(size=layer.bias.shape))
    return model


def conv2d(x, kernel, strides=1):
    """NumPy: kernels of d x d, d odd, centred at pixels 0, s, 2 s .., zeros outside."""
    d = kernel.shape[0]
    p = d // 2
    padded = np.pad(x, [(0, 0), (p, p), (p, p), (0, 0)])
    out = [
        [
            np.einsum("nijc,ijcf->nf", padded[:, r : r + d, q : q + d], kernel)
            for q in range(0, x.shape[2], strides)
        ]
        for r in range(0, x.shape[1], strides)
    ]
    return np.array(out).transpose(2, 0, 1, 3)


def conv_bn(conv, x, epsilon=1e-5):
    """NumPy: what follows from x by the layer `conv` and the BN behind it."""
    (norm,) = after(conv)
    gamma, beta, mean, variance = norm.get_weights()
    x = conv2d(x, conv.get_weights()[0], conv.strides[0])
    return gamma * (x - mean) / np.sqrt(variance + epsilon) + beta


def block(add, x, epsilon=1e-5):
    """NumPy: the block whose sum is `add`."""
    norm, shortcut = before(add)
    (second,) = before(norm)
    (relu,) = before(second)
    (first,) = before(before(relu)[0])
    out = conv_bn(second, np.maximum(conv_bn(first, x, epsilon), 0), epsilon)
    if isinstance(shortcut, layers.BatchNormalization):
        x = conv_bn(before(shortcut)[0], x, epsilon)
    return np.maximum(out + x, 0)


def lecun(fan_in):
    """(standard deviation, bound) of LeCun's truncated normal.

    A normal variable that is cut off at two standard deviations s has .87962566 s.
    """
    std = np.sqrt(1 / fan_in)
    return std, 2 * std / 0.87962566


SMALL = (0.02 * 0.87962566, 0.04)  # The same of TruncatedNormal(stddev=0.02).


def assert_truncated_normal(values, std, bound):
    """A uniform or an untruncated distribution of this deviation fails."""
    values = np.ravel(values)
    assert np.std(values) == pytest.approx(std, rel=4 / np.sqrt(2 * values.size))
    assert abs(np.mean(values)) < 4 * std / np.sqrt(values.size)
    assert 1.8 * std < np.abs(values).max() <= bound * (1 + 1e-6)


def assert_only_batch_norm_trains(model, x):
    """Where all moving statistics are those of the batch, training is inference.

    `model` has `bn_momentum=0`, so one pass makes them so.
    """
    trained = np.asarray(model(x, training=True))
    np.testing.assert_allclose(
        model(x, training=False), trained, rtol=1e-4, atol=1e-5 * np.abs(trained).max()
    )


def make(shape, size, strides, filters, **options):
    x = keras.Input(shape)
    return keras.Model(x, residual_block(x, size, strides, filters, **options))


@pytest.mark.parametrize("shape", [(4, 6, 3), (5, 3, 3), (1, 1, 3)])
@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize(
    ("strides", "filters", "options", "projects"),
    [
        (1, 3, {}, False),
        (1, 3, {"project": True}, True),
        (1, 2, {}, True),
        (2, 3, {}, True),
        (2, 4, {"bn_epsilon": 0.1}, True),
        (3, 4, {}, True),
    ],
)
def test_the_block_in_numpy(shape, size, strides, filters, options, projects):
    model = scrambled(make(shape, size, strides, filters, **options))
    assert projecting(model) == [projects]
    x = np.random.default_rng(1).normal(size=(2, *shape)).astype(np.float32)
    (add,) = of_type(model, layers.Add)
    expected = block(add, x, options.get("bn_epsilon", 1e-5))
    sides = [-(-side // strides) for side in shape[:2]]
    assert expected.shape == (2, *sides, filters)
    np.testing.assert_allclose(model(x, training=False), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("project", "kernels"),
    [
        (False, [(3, 3, 4, 4), (3, 3, 4, 4)]),
        (True, [(1, 1, 4, 4), (3, 3, 4, 4), (3, 3, 4, 4)]),
    ],
)
def test_the_weights_of_a_block(project, kernels):
    """Kernels without biases, each with the gamma, beta, mean and variance of a BN."""
    model = make((6, 6, 4), 3, 1, 4, project=project)
    shapes = sorted(tuple(v.shape) for v in model.variables)
    assert shapes == sorted([*kernels, *[(4,)] * (4 * len(kernels))])


@pytest.mark.parametrize(
    ("pixel", "expected"),
    [
        # Row 0 is the middle of the kernels at 0; row 3 the last of those at 2. SAME
        # would have kernels at 1 and 3, for which it is the first and the middle.
        ((0, 0), [[5, 0], [0, 0]]),
        ((3, 3), [[0, 0], [0, 9]]),
        ((1, 0), [[8, 0], [2, 0]]),
    ],
)
def test_a_strided_convolution_pads_all_sides(pixel, expected):
    """One bright pixel of 4x4 shows the kernel [1 2 3; 4 5 6; 7 8 9] where it is."""
    inputs = keras.Input((4, 4, 1))
    model = keras.Model(inputs, convolution(inputs, 3, 2, 1))
    model.set_weights([np.arange(1, 10).reshape(3, 3, 1, 1)])
    x = np.zeros([1, 4, 4, 1], np.float32)
    x[0, *pixel] = 1
    np.testing.assert_array_equal(np.asarray(model(x))[0, ..., 0], expected)


@pytest.mark.parametrize("sides", [(4, 4), (5, 7)])
@pytest.mark.parametrize("size", [1, 3, 5])
def test_without_stride_a_convolution_keeps_the_size(sides, size):
    inputs = keras.Input((*sides, 2))
    model = keras.Model(inputs, convolution(inputs, size, 1, 3))
    x = np.random.default_rng(0).normal(size=(2, *sides, 2)).astype(np.float32)
    expected = conv2d(x, model.get_weights()[0])
    np.testing.assert_allclose(model(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, (0.997, 1e-5)), ({"bn_momentum": 0.5, "bn_epsilon": 0.1}, (0.5, 0.1))],
)
def test_every_batch_norm_of_a_block_is_told(options, expected):
    norms = of_type(make((4, 4, 2), 3, 2, 2, **options), layers.BatchNormalization)
    assert [(norm.momentum, norm.epsilon) for norm in norms] == [expected] * 3
    assert all(norm.center and norm.scale for norm in norms)


def test_batch_norm_moves_by_its_momentum():
    """momentum * 0 + (1 - momentum) * mean of the batch."""
    inputs = keras.Input((2, 2, 1))
    model = keras.Model(inputs, batch_norm(inputs, momentum=0.75))
    model(np.full([3, 2, 2, 1], 8, np.float32), training=True)
    (norm,) = of_type(model, layers.BatchNormalization)
    np.testing.assert_allclose(norm.moving_mean, [2])


def test_a_block_trains_by_its_batch_norms_alone():
    model = make((6, 6, 2), 3, 2, 4, bn_momentum=0.0)
    x = np.random.default_rng(0).normal(size=(5, 6, 6, 2)).astype(np.float32)
    untrained = np.asarray(model(x, training=False))
    assert np.abs(untrained - model(x, training=True)).max() > 0.1
    assert_only_batch_norm_trains(model, x)


def test_kernels_decay():
    model = make((6, 6, 2), 3, 2, 4, weight_decay=0.1)
    kernels = [conv.kernel for conv in of_type(model, layers.Conv2D)]
    expected = 0.1 / 2 * sum(np.square(k).sum() for k in kernels)
    assert len(model.losses) == len(kernels) == 3
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-5)
    assert make((6, 6, 2), 3, 2, 4).losses == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, lecun),
        (
            {"kernel_initializer": keras.initializers.TruncatedNormal(stddev=0.02)},
            lambda fan_in: SMALL,
        ),
    ],
)
def test_initial_kernels(options, expected):
    """All have the distribution asked for and no two are equal."""
    model = make((4, 4, 32), 3, 1, 32, project=True, **options)
    convs = of_type(model, layers.Conv2D)
    for conv in convs:
        rows, columns, channels, _ = conv.kernel.shape
        assert_truncated_normal(conv.kernel, *expected(rows * columns * channels))
    first, second = (conv.kernel for conv in convs if conv.kernel_size == (3, 3))
    assert np.mean(np.equal(first, second)) < 0.01
