import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tests.models.test_inception import HE
from tests.models.test_inception_v3 import images, moved, values
from tests.models.test_residual import (
    after,
    assert_truncated_normal,
    before,
    of_type,
)
from tfadv import models

# Szegedy et al. 2017, figures 3 to 9 with the filters of its table 1. A branch on each
# line: kernel x filters; /2 halves the size and v is VALID, others are SAME; what is
# in brackets stands side by side.
A = """
1x1x96
1x1x64 3x3x96
1x1x64 3x3x96 3x3x96
average 1x1x96
"""
B = """
1x1x384
1x1x192 1x7x224 7x1x256
1x1x192 7x1x192 1x7x224 7x1x224 1x7x256
average 1x1x128
"""
C = """
1x1x256
1x1x384 [1x3x256,3x1x256]
1x1x384 3x1x448 1x3x512 [1x3x256,3x1x256]
average 1x1x256
"""
NETWORK = {
    "conv_1a": "3x3x32/2",
    "conv_2a": "3x3x32v",
    "conv_2b": "3x3x64",
    "mixed_3a": "max\n3x3x96/2",
    "mixed_4a": "1x1x64 3x3x96v\n1x1x64 1x7x64 7x1x64 3x3x96v",
    "mixed_5a": "3x3x192/2\nmax",
    **dict.fromkeys(["mixed_5b", "mixed_5c", "mixed_5d", "mixed_5e"], A),
    "mixed_6a": "3x3x384/2\n1x1x192 3x3x224 3x3x256/2\nmax",
    **dict.fromkeys([f"mixed_6{i}" for i in "bcdefgh"], B),
    "mixed_7a": "1x1x192 3x3x192/2\n1x1x256 1x7x256 7x1x320 3x3x320/2\nmax",
    **dict.fromkeys(["mixed_7b", "mixed_7c", "mixed_7d"], C),
}
STEP = re.compile(r"(\d)x(\d)x(\d+)(/2|v)?")


def walk(x, pool, conv):
    """What becomes of x on its way through the table.

    Args:
        x: whatever the functions take.
        pool: (x, "max" or "average"), or (list of x, "concatenate").
        conv: (x, layer's name, (height, width), filters, None or "/2" or "v").
    """
    for name, text in NETWORK.items():
        ends = []
        for i, branch in enumerate(text.strip().split("\n")):
            tips, letters = [x], iter("abcdefgh")
            for step in branch.split():
                (tip,) = tips
                tips = []
                for one in step.strip("[]").split(","):
                    label = f"{name}_{i}{next(letters)}"
                    if one in ("max", "average"):
                        tips.append(pool(tip, one))
                        continue
                    height, width, filters, kind = STEP.fullmatch(one).groups()
                    if name.startswith("conv"):
                        label = name
                    label = f"{label}_{height}x{width}"
                    size = (int(height), int(width))
                    tips.append(conv(tip, label, size, int(filters), kind))
            ends += tips
        x = pool(ends, "concatenate")
    return x


def parameters(classes):
    """(all, trainable, BN channels) of width 1; BN has beta, mean and variance."""
    total = norms = 0

    def pool(x, kind):
        return sum(x) if kind == "concatenate" else x

    def conv(channels, label, size, filters, kind):
        nonlocal total, norms
        total += size[0] * size[1] * channels * filters
        norms += filters
        return filters

    features = walk(3, pool, conv)
    assert features == 1536
    dense = (features + 1) * classes
    return total + 3 * norms + dense, total + norms + dense, norms


def reference(model, x):
    """The features before the mean, by TensorFlow with the weights of `model`."""

    def pool(x, kind):
        if kind == "concatenate":
            return tf.concat(x, -1)
        if kind == "max":
            return tf.nn.max_pool2d(x, 3, 2, "VALID")
        return tf.nn.avg_pool2d(x, 3, 1, "SAME")

    def conv(x, label, size, filters, kind):
        (kernel,) = values(model, label)
        assert kernel.shape == (*size, x.shape[-1], max(filters // 10, 16))
        padding = "VALID" if kind else "SAME"
        x = tf.nn.conv2d(x, kernel, 2 if kind == "/2" else 1, padding)
        beta, mean, variance = values(model, f"{label}_bn")
        return tf.nn.elu((x - mean) / np.sqrt(variance + 0.001) + beta)

    return walk(tf.constant(2 * x - 1), pool, conv)


@pytest.fixture(scope="module")
def full():
    """As in the paper."""
    keras.utils.set_random_seed(0)
    return models.inception_v4((299, 299, 3), 1000)


@pytest.fixture(scope="module")
def narrow():
    keras.utils.set_random_seed(0)
    return models.inception_v4(
        (107, 75, 3),
        6,
        width=0.1,
        activation="elu",
        dropout=0.0,
        bn_momentum=0.9,
        weight_decay=0.1,
    )


def test_parameters(full):
    """The published count of trainable ones, 42,679,816, has a gamma for each channel.

    That is of TF-slim's network with scales, without the auxiliary classifier.
    """
    total, trainable, norms = parameters(1000)
    assert full.count_params() == total == 41_174_400 + 1537 * 1000
    assert trainable + norms == 42_679_816


def test_shapes(full):
    expected = {
        "conv_1a_3x3": (149, 149, 32),
        "conv_2a_3x3": (147, 147, 32),
        "conv_2b_3x3": (147, 147, 64),
        "mixed_3a": (73, 73, 160),
        "mixed_4a": (71, 71, 192),
        "mixed_5a": (35, 35, 384),
        "mixed_5e": (35, 35, 384),
        "mixed_6a": (17, 17, 1024),
        "mixed_6h": (17, 17, 1024),
        "mixed_7a": (8, 8, 1536),
        "mixed_7d": (8, 8, 1536),
        "avg_pool": (1536,),
        "embedding": (1000,),
    }
    for name, shape in expected.items():
        assert full.get_layer(name).output.shape == (None, *shape)
    # 3 of the stem and 3, A to C and what halves between them.
    assert len(of_type(full, layers.Concatenate)) == 3 + 4 + 1 + 7 + 1 + 3


def test_the_network_in_tensorflow(narrow):
    """Every kernel where the figures have it; sides that are not equal."""
    moved(narrow, 0)
    x = images(107, 75)
    features = reference(narrow, x)
    # 107 -> 53 -> 51 -> 25 -> 23 -> 11 -> 5 -> 2 and 75 -> 37 .. 7 -> 3 -> 1.
    assert features.shape[1:3] == (2, 1)
    maps = keras.Model(narrow.input, narrow.get_layer("mixed_7d").output)
    size = np.abs(features).max()
    np.testing.assert_allclose(
        maps(x, training=False), features, rtol=1e-3, atol=1e-4 * size
    )
    assert np.ptp(features, axis=0).max() > 0.02 * size
    kernel, bias = values(narrow, "embedding")
    expected = np.asarray(features).mean((1, 2)) @ kernel + bias
    size = np.abs(expected).max()
    np.testing.assert_allclose(
        narrow(x, training=False), expected, rtol=1e-3, atol=1e-4 * size
    )


def test_the_auxiliary_head_fits(full):
    """17x17x1024, of the last B."""
    features = full.get_layer("mixed_6h")
    assert {layer.name for layer in after(features)} == {
        "mixed_7a_0a_1x1",
        "mixed_7a_1a_1x1",
        "mixed_7a_2a_pool",
    }
    head = models.auxiliary_head(features.output.shape[1:], 3, width=0.1)
    assert head(np.zeros((1, 17, 17, 1024), np.float32)).shape == (1, 3)


def test_defaults(full):
    norms = of_type(full, layers.BatchNormalization)
    assert len(norms) == len(of_type(full, layers.ReLU)) == 149
    for norm in norms:
        assert (norm.momentum, norm.epsilon) == (0.9997, 1e-3)
        assert norm.center and not norm.scale
    (drop,) = of_type(full, layers.Dropout)
    embedding = full.get_layer("embedding")
    assert drop.rate == 0.2
    assert before(drop) == [full.get_layer("avg_pool")] and after(drop) == [embedding]
    assert embedding.output is full.output
    kernels = [v for v in full.trainable_variables if v.name == "kernel"]
    assert len(full.losses) == len(kernels) == 150
    squares = sum(np.sum(np.square(k, dtype=np.float64)) for k in kernels)
    assert float(sum(full.losses)) == pytest.approx(2e-5 * squares, rel=1e-4)


def test_initial_kernels(full):
    """He normal; uniform within sqrt(6 / (1536 + 1000)) that of the logits."""
    for name in ("mixed_7b_2b_3x1", "mixed_6b_1b_1x7"):
        (kernel,) = values(full, name)
        std = np.sqrt(2 / np.prod(kernel.shape[:-1]))
        assert_truncated_normal(kernel, std, 2 * std * HE)
    kernel, bias = values(full, "embedding")
    limit = np.sqrt(6 / (1536 + 1000))
    assert 0.99 * limit < np.abs(kernel).max() <= limit
    assert np.all(bias == 0)


def test_options(narrow):
    assert len(of_type(narrow, layers.ELU)) == 149
    momenta = {norm.momentum for norm in of_type(narrow, layers.BatchNormalization)}
    assert momenta == {0.9}
    assert of_type(narrow, layers.Dropout) == []
    assert narrow.output_shape == (None, 6)
    kernels = [v for v in narrow.trainable_variables if v.name == "kernel"]
    squares = sum(np.sum(np.square(k, dtype=np.float64)) for k in kernels)
    assert float(sum(narrow.losses)) == pytest.approx(0.05 * squares, rel=1e-4)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((74, 299, 3), {}, "inception_v4 takes .* 75 or more; received 74x299x3"),
        ((299, 299, 1), {}, "received 299x299x1"),
        ((75, 75, 3), {"dropout": -0.1}, "`dropout` must be a rate"),
        ((75, 75, 3), {"width": -1.0}, "`width` must be a positive number"),
        ((75, 75, 3), {"activation": "swish"}, "unknown activation 'swish'"),
    ],
)
def test_impossible_arguments(shape, options, message):
    with pytest.raises(ValueError, match=message):
        models.inception_v4(shape, 10, **options)


def test_a_name_gets_it():
    assert models.get("inception_v4") is models.inception_v4
