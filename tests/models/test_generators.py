import functools
import zipfile

import keras
import numpy as np
import pytest
from keras import layers

from tests.models.test_residual import (
    SMALL,
    after,
    assert_only_batch_norm_trains,
    assert_truncated_normal,
    block,
    conv2d,
    conv_bn,
    count,
    lecun,
    of_type,
    projecting,
    scrambled,
)
from tfadv.errors import UsageError
from tfadv.models.generators import GENERATORS, g1, g2, g3, get_generator

MAKERS = {
    "g1": g1,
    "g1 code": functools.partial(g1, widths="code"),
    "g2": g2,
    "g3": lambda shape, **options: g3(shape, 5, **options),
}
every_generator = pytest.mark.parametrize("name", MAKERS)
CIFAR = (32, 32, 3)


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)


def batch(model, n=4, seed=0):
    """What the model takes: images, Gaussian noise or one-hot labels."""
    rng = np.random.default_rng(seed)
    shape = (n, *model.input_shape[1:])
    if model.name == "g1":
        return rng.uniform(size=shape).astype(np.float32)
    if model.name == "g2":
        return rng.normal(size=shape).astype(np.float32)
    return np.eye(shape[1], dtype=np.float32)[np.arange(n) % shape[1]]


def decoder_parameters(filters, k, channels):
    """From `filters` maps on. Kernels without bias; gamma and beta for each.

    The six blocks of 4 k have twelve convolutions; the first projects by 1x1.
    """
    d = 4 * k
    total = 9 * filters * d + 11 * 9 * d * d + 12 * 2 * d
    total += filters * d + 2 * d
    total += 9 * d * 2 * k + 2 * 2 * k
    total += 9 * 2 * k * k + 2 * k
    return total + 9 * k * channels + channels


def encoder_parameters(channels, widths):
    total = 0
    for filters_in, filters in zip((channels, *widths), widths, strict=False):
        total += 9 * filters_in * filters + 2 * filters
    return total


@pytest.mark.parametrize(
    ("k", "widths", "stated"),
    [
        (64, "paper", 7_305_987),
        (64, "code", 7_892_099),
        (8, "paper", 115_363),
        (8, "code", 124_563),
    ],
)
def test_parameters_of_g1(k, widths, stated):
    """The trainable ones: moving statistics are not counted."""
    filters = {"paper": (k, k, 2 * k), "code": (k, 2 * k, 4 * k)}[widths]
    expected = encoder_parameters(3, filters) + decoder_parameters(filters[-1], k, 3)
    model = g1(CIFAR, k=k, widths=widths)
    assert count(model.trainable_variables) == expected == stated
    # The encoder's, thirteen in the blocks, those of the two deconvolutions.
    moving = 2 * (sum(filters) + 13 * 4 * k + 3 * k)
    assert count(model.non_trainable_variables) == moving


def test_parameters_of_g2():
    model = g2(CIFAR)
    expected = decoder_parameters(256, 64, 3)
    assert count(model.trainable_variables) == expected == 7_520_835
    assert count(model.non_trainable_variables) == 2 * (13 * 256 + 3 * 64)


def test_parameters_of_g3():
    """Those of G2 and a dense layer with bias."""
    dense = 10 * 8 * 8 * 256 + 8 * 8 * 256
    model = g3(CIFAR, 10)
    assert count(model.trainable_variables) == 7_520_835 + dense == 7_701_059


def test_the_defaults():
    """k = 64, the paper's widths, momentum .997 and epsilon 1e-5."""
    for model in (g1(CIFAR), g2(CIFAR), g3(CIFAR, 10)):
        norms = of_type(model, layers.BatchNormalization)
        assert {(norm.momentum, norm.epsilon) for norm in norms} == {(0.997, 1e-5)}
        assert {norm.gamma.shape[0] for norm in norms} == {64, 128, 256}
    filters = [conv.filters for conv in of_type(g1(CIFAR), layers.Conv2D)]
    assert filters[:3] == [64, 64, 128]


@every_generator
def test_every_batch_norm_is_told(name):
    model = MAKERS[name]((8, 8, 1), k=1, bn_momentum=0.9)
    norms = of_type(model, layers.BatchNormalization)
    assert {(norm.momentum, norm.epsilon) for norm in norms} == {(0.9, 1e-5)}


@every_generator
@pytest.mark.parametrize("shape", [(28, 28, 1), CIFAR, (8, 8, 1), (4, 12, 2)])
def test_the_order_and_the_sizes_of_the_layers(name, shape):
    k = 3
    model = MAKERS[name](shape, k=k)
    h, w, c = shape
    quarter, half = (h // 4, w // 4), (h // 2, w // 2)
    # Additions stand for blocks, whose insides test_residual knows.
    kinds = layers.Conv2D | layers.Add | layers.Conv2DTranspose
    inside = {
        conv
        for conv in of_type(model, layers.Conv2D)
        if conv.output.shape[1:] == (*quarter, 4 * k) and conv.strides == (1, 1)
    }
    sizes = [
        (type(layer).__name__, *layer.output.shape[1:])
        for layer in model.layers
        if isinstance(layer, kinds) and layer not in inside
    ]
    first, last = (k, 2 * k) if name == "g1" else (2 * k, 4 * k)
    encoder = [
        ("Conv2D", h, w, k),
        ("Conv2D", *half, first),
        ("Conv2D", *quarter, last),
    ]
    assert sizes == [
        *(encoder if "g1" in name else []),
        *[("Add", *quarter, 4 * k)] * 6,
        ("Conv2DTranspose", *half, 2 * k),
        ("Conv2DTranspose", h, w, k),
        ("Conv2D", h, w, c),
    ]
    assert len(inside) == 6 * 2 + 1
    noise = np.asarray(model(batch(model), training=False))
    assert noise.shape == (4, *shape)


@every_generator
def test_the_first_block_projects(name):
    assert projecting(MAKERS[name]((8, 8, 1), k=1)) == [True] + [False] * 5


@pytest.mark.parametrize(
    ("shape", "length"), [(CIFAR, 256), ((28, 28, 1), 7 * 7 * 4), ((4, 8, 3), 8)]
)
@pytest.mark.parametrize("k", [1, 3])
def test_the_inputs(shape, length, k):
    """Images, a quarter of whose sides gives z; labels."""
    assert g1(shape, k=k).input_shape == (None, *shape)
    assert g2(shape, k=k).input_shape == (None, length * k)
    assert g3(shape, 7, k=k).input_shape == (None, 7)


def transposed(x, kernel):
    """NumPy: input pixel (i, j) paints kernel [3, 3, out, in] from (2 i, 2 j) on.

    What falls over the right and the lower edge is cut off.
    """
    n, h, w, _ = x.shape
    out = np.zeros([n, 2 * h + 1, 2 * w + 1, kernel.shape[2]])
    for i in range(h):
        for j in range(w):
            painted = np.einsum("nc,abfc->nabf", x[:, i, j], kernel)
            out[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3] += painted
    return out[:, :-1, :-1]


@every_generator
def test_the_generator_in_numpy(name):
    shape, k = (8, 4, 2), 3
    model = scrambled(MAKERS[name](shape, k=k))
    x = batch(model)
    convs = of_type(model, layers.Conv2D)
    # Kernels of 0.02 would make all pixels much alike.
    rng = np.random.default_rng(7)
    for kernel in (v for v in model.variables if v.name == "kernel"):
        fan_in = int(np.prod(kernel.shape[:-1]))
        kernel.assign(rng.normal(size=kernel.shape) / np.sqrt(fan_in))
    if "g1" in name:
        h = 2 * x - 1
        for conv in convs[:3]:
            h = np.maximum(conv_bn(conv, h), 0)
    else:
        h = x
        for dense in of_type(model, layers.Dense):
            kernel, bias = dense.get_weights()
            h = h @ kernel + bias
        h = h.reshape(-1, 2, 1, 4 * k)
    for add in of_type(model, layers.Add):
        h = block(add, h)
    for deconv in of_type(model, layers.Conv2DTranspose):
        h = transposed(h, deconv.get_weights()[0])
        (norm,) = after(deconv)
        gamma, beta, mean, variance = norm.get_weights()
        h = np.maximum(gamma * (h - mean) / np.sqrt(variance + 1e-5) + beta, 0)
    kernel, bias = convs[-1].get_weights()
    expected = np.tanh(conv2d(h, kernel) + bias)
    noise = np.asarray(model(x, training=False))
    np.testing.assert_allclose(noise, expected, rtol=1e-4, atol=1e-5)
    assert expected.std((0, 1, 2)).min() > 0.01


@every_generator
def test_the_noise_is_bounded(name):
    """By 1 in both directions, and it can come close to both."""
    model = MAKERS[name]((8, 8, 1), k=2)
    last = of_type(model, layers.Conv2D)[-1]
    last.set_weights([w * 1e4 for w in last.get_weights()])
    noise = np.asarray(model(batch(model), training=True))
    assert noise.min() >= -1 and noise.max() <= 1
    assert noise.min() < -0.99 and noise.max() > 0.99


@every_generator
def test_training_is_batch_normalisation(name):
    model = MAKERS[name]((8, 8, 1), k=2, bn_momentum=0.0)
    x = batch(model)
    untrained = np.asarray(model(x, training=False))
    trained = np.asarray(model(x, training=True))
    assert np.abs(untrained - trained).max() > 0.01 * np.abs(trained).max()
    assert_only_batch_norm_trains(model, x)


@every_generator
def test_initial_weights(name):
    """Transposed and last kernels small; the others by their fan in; biases 0."""
    model = MAKERS[name]((8, 8, 3), k=8)
    kernels = of_type(model, layers.Conv2D | layers.Conv2DTranspose | layers.Dense)
    small = {*of_type(model, layers.Conv2DTranspose), kernels[-1]}
    for layer in kernels:
        *window, channels, _ = layer.kernel.shape
        fan_in = int(np.prod(window)) * channels
        expected = SMALL if layer in small else lecun(fan_in)
        assert_truncated_normal(layer.kernel, *expected)
    first = {float(np.ravel(layer.kernel)[0]) for layer in kernels}
    assert len(first) == len(kernels)
    biased = [layer for layer in kernels if layer.use_bias]
    assert biased == [*of_type(model, layers.Dense), kernels[-1]]
    assert all(np.all(np.asarray(layer.bias) == 0) for layer in biased)


@every_generator
def test_a_saved_generator_needs_no_tfadv(tmp_path, name):
    model = scrambled(MAKERS[name]((8, 8, 1), k=2))
    model.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        assert b"tfadv" not in archive.read("config.json")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = batch(model)
    np.testing.assert_array_equal(loaded(x, training=False), model(x, training=False))


@every_generator
@pytest.mark.parametrize(
    ("shape", "received"),
    [
        ((30, 32, 3), r"\(30, 32, 3\)"),
        ((32, 30, 3), r"\(32, 30, 3\)"),
        ((0, 32, 3), r"\(0, 32, 3\)"),
        ((None, None, 3), r"\(None, None, 3\)"),
        ((28, 28), r"\(28, 28\)"),
    ],
)
def test_impossible_images(name, shape, received):
    message = f"`image_shape` .* multiples of 4, .* received {received}"
    with pytest.raises(ValueError, match=message):
        MAKERS[name](shape)


@every_generator
def test_impossible_widths(name):
    with pytest.raises(ValueError, match="`k` must be at least 1; received 0"):
        MAKERS[name]((8, 8, 1), k=0)


def test_unknown_widths():
    message = "unknown widths 'papers'; did you mean 'paper'"
    with pytest.raises(UsageError, match=message):
        g1((8, 8, 1), widths="papers")


def test_names():
    assert [*GENERATORS.items()] == [("g1", g1), ("g2", g2), ("g3", g3)]
    assert get_generator("g2") is g2
    with pytest.raises(UsageError, match="unknown generator 'g4'"):
        get_generator("g4")
