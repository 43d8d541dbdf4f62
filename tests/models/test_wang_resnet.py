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
    before,
    block,
    conv2d,
    count,
    lecun,
    of_type,
    projecting,
    scrambled,
)
from tfadv import models
from tfadv.errors import UsageError

CIFAR, MNIST = (32, 32, 3), (28, 28, 1)
both = pytest.mark.parametrize("variant", ["cifar", "svhn"])


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)


def images(shape, n=3):
    return np.random.default_rng(0).uniform(size=(n, *shape)).astype(np.float32)


def expected_parameters(variant, channels, classes):
    """Kernels 3x3 without bias, 1x1 where the first of three blocks projects.

    gamma and beta of every batch normalisation; the dense layer has a bias.
    """
    first = 9 * channels * 16 + (2 * 16 if variant == "cifar" else 0)
    total = first
    for filters_in, filters in ((16, 16), (16, 32), (32, 64)):
        total += 9 * filters_in * filters + 5 * 9 * filters**2 + 6 * 2 * filters
        total += filters_in * filters + 2 * filters
    last = 2 * 64 if variant == "svhn" else 0
    return total + last + 64 * classes + classes


@pytest.mark.parametrize(
    ("variant", "shape", "classes", "stated"),
    [
        ("cifar", CIFAR, 10, 272_762),
        ("svhn", CIFAR, 10, 272_858),
        ("cifar", CIFAR, 100, 272_762 + 65 * 90),
        ("cifar", MNIST, 10, 272_762 - 9 * 2 * 16),
    ],
)
def test_parameters(variant, shape, classes, stated):
    model = models.wang_resnet(shape, classes, variant=variant)
    expected = expected_parameters(variant, shape[-1], classes)
    assert count(model.trainable_variables) == expected == stated
    # The moving mean and variance: seven normalisations a stage, and one more.
    moving = 2 * (7 * (16 + 32 + 64) + (16 if variant == "cifar" else 64))
    assert count(model.non_trainable_variables) == moving


@both
@pytest.mark.parametrize(
    ("shape", "sides"),
    [
        (CIFAR, [(32, 32), (16, 16), (8, 8)]),
        (MNIST, [(28, 28), (14, 14), (7, 7)]),
        ((8, 9, 1), [(8, 9), (4, 5), (2, 3)]),
    ],
)
def test_stages(variant, shape, sides):
    """Three blocks each of 16, 32 and 64 channels; the first of each projects."""
    model = models.wang_resnet(shape, 10, variant=variant)
    sums = [tuple(add.output.shape[1:]) for add in of_type(model, layers.Add)]
    assert sums == [
        (*side, filters)
        for side, filters in zip(sides, (16, 32, 64), strict=True)
        for _ in range(3)
    ]
    assert projecting(model) == [True, False, False] * 3


@both
def test_twenty_layers(variant):
    """All with kernels of 3x3, and the dense one: projections do not count."""
    model = models.wang_resnet((8, 8, 3), 10, variant=variant)
    sizes = [conv.kernel_size for conv in of_type(model, layers.Conv2D)]
    assert sizes.count((3, 3)) == 19
    assert sizes.count((1, 1)) == 3 == len(sizes) - 19
    assert len(of_type(model, layers.Dense)) == 1


@both
def test_the_variants_in_numpy(variant):
    """conv, the nine blocks, the mean and the dense layer, and where a BN - ReLU is."""
    model = scrambled(models.wang_resnet((5, 4, 2), 3, variant=variant))
    x = images((5, 4, 2))

    def bn_relu(h, norm):
        gamma, beta, mean, variance = norm.get_weights()
        return np.maximum(gamma * (h - mean) / np.sqrt(variance + 1e-5) + beta, 0)

    first = of_type(model, layers.Conv2D)[0]
    h = conv2d(x, first.get_weights()[0])
    if variant == "cifar":
        h = bn_relu(h, after(first)[0])
    for add in of_type(model, layers.Add):
        h = block(add, h)
    if variant == "svhn":
        (pool,) = of_type(model, layers.GlobalAveragePooling2D)
        h = bn_relu(h, before(before(pool)[0])[0])
    kernel, bias = model.get_layer("embedding").get_weights()
    expected = h.mean((1, 2)) @ kernel + bias
    logits = model(x, training=False)
    size = np.abs(expected).max()
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3 * size)


@both
def test_training_is_batch_normalisation(variant):
    model = models.wang_resnet((8, 8, 1), 4, variant=variant, bn_momentum=0.0)
    x = images((8, 8, 1), n=8)
    untrained = np.asarray(model(x, training=False))
    trained = np.asarray(model(x, training=True))
    assert np.abs(untrained - trained).max() > 0.01 * np.abs(trained).max()
    assert_only_batch_norm_trains(model, x)


@both
@pytest.mark.parametrize(
    ("options", "momentum"), [({}, 0.997), ({"bn_momentum": 0.9}, 0.9)]
)
def test_every_batch_norm_is_told(variant, options, momentum):
    model = models.wang_resnet((8, 8, 1), 10, variant=variant, **options)
    norms = of_type(model, layers.BatchNormalization)
    assert {(norm.momentum, norm.epsilon) for norm in norms} == {(momentum, 1e-5)}


@both
def test_initial_weights(variant):
    model = models.wang_resnet(CIFAR, 10, variant=variant)
    kernels = [layer.kernel for layer in of_type(model, layers.Conv2D | layers.Dense)]
    assert len(kernels) == 23
    for kernel in kernels:
        *window, channels, _ = kernel.shape
        fan_in = int(np.prod(window)) * channels
        expected = SMALL if variant == "svhn" else lecun(fan_in)
        assert_truncated_normal(kernel, *expected)
    # Each is drawn anew: no two of them begin alike.
    assert len({float(np.ravel(kernel)[0]) for kernel in kernels}) == 23
    assert np.all(np.asarray(model.get_layer("embedding").bias) == 0)


@both
def test_only_kernels_decay(variant):
    make = functools.partial(models.wang_resnet, (8, 8, 1), 10, variant=variant)
    model = scrambled(make(weight_decay=0.1))
    kernels = [v for v in model.variables if v.name == "kernel"]
    assert len(model.losses) == len(kernels) == 23
    expected = 0.1 / 2 * sum(np.square(k).sum() for k in kernels)
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-5)
    assert make().losses == []


def test_the_first_layer_normalises():
    """So mean = std = 1/2 on x equals none on 2 x - 1."""
    plain = scrambled(models.wang_resnet((8, 8, 2), 10))
    halves = models.wang_resnet((8, 8, 2), 10, mean=(0.5,), std=(0.5,))
    halves.set_weights(plain.get_weights())
    x = images((8, 8, 2))
    np.testing.assert_allclose(
        halves(x, training=False), plain(2 * x - 1, training=False), rtol=1e-4
    )
    with pytest.raises(ValueError, match="`mean` must hold one value for each"):
        models.wang_resnet((8, 8, 2), 10, mean=(0.1, 0.2, 0.3))


@pytest.mark.parametrize("classes", [2, 10])
def test_the_logits_are_the_embedding(classes):
    model = models.wang_resnet((8, 8, 3), classes)
    embedding = model.get_layer("embedding")
    assert embedding.output is model.output
    assert embedding.activation is keras.activations.linear
    assert model.output_shape == (None, classes)


@both
def test_a_saved_network_needs_no_tfadv(tmp_path, variant):
    model = models.wang_resnet((8, 8, 1), 4, variant=variant, weight_decay=0.1)
    scrambled(model).save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        assert b"tfadv" not in archive.read("config.json")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = images((8, 8, 1))
    np.testing.assert_array_equal(loaded(x, training=False), model(x, training=False))


def test_a_name_gets_the_network():
    assert models.get("wang_resnet") is models.wang_resnet


def test_unknown_variants():
    message = "unknown variant 'cifar10'; did you mean 'cifar'"
    with pytest.raises(UsageError, match=message):
        models.wang_resnet(CIFAR, 10, variant="cifar10")
