import keras
import numpy as np
import pytest
from keras import layers

from tests.models.test_inception import HE
from tests.models.test_residual import assert_truncated_normal, of_type
from tfadv import models


def head(shape, classes=4, **options):
    """Of 16 filters; statistics and biases are not those of a new one."""
    model = models.auxiliary_head(shape, classes, **({"width": 0.02} | options))
    rng = np.random.default_rng(0)
    for v in model.weights:
        if v.name != "kernel":
            v.assign(rng.uniform(0.1, 1, size=v.shape).astype(np.float32))
        else:
            v.assign(np.sign(v) * rng.uniform(0.1, 0.5, size=v.shape))
    return model


def in_numpy(model, x, pool, size):
    """Pools and kernels of the sides `pool` and `size`, then the mean and dense K."""
    first, second = of_type(model, layers.Conv2D)
    norms = of_type(model, layers.BatchNormalization)

    def windows(x, sides, stride):
        """[n, i, j, c, height, width]."""
        found = np.lib.stride_tricks.sliding_window_view(x, sides, (1, 2))
        return found[:, ::stride, ::stride]

    def normalised(x, norm):
        beta, mean, variance = norm.get_weights()
        return np.tanh((x - mean) / np.sqrt(variance + 0.001) + beta)

    x = windows(x, pool, 3).mean((-2, -1))
    x = normalised(x @ first.get_weights()[0][0, 0], norms[0])
    kernel = second.get_weights()[0]
    assert kernel.shape == (*size, 16, 16)
    x = np.einsum("nijchw,hwcf->nijf", windows(x, size, 1), kernel)
    x = normalised(x, norms[1]).mean((1, 2))
    kernel, bias = model.get_layer("auxiliary_logits").get_weights()
    return x @ kernel + bias


@pytest.mark.parametrize(
    ("side", "pool", "size"),
    [
        ((17, 17), (5, 5), (5, 5)),
        # 12 -> 3, and kernels as small.
        ((12, 17), (5, 5), (3, 5)),
        ((3, 4), (3, 4), (1, 1)),
        ((1, 1), (1, 1), (1, 1)),
        # 24 -> 7 -> 3 positions, of which the mean is taken.
        ((24, 17), (5, 5), (5, 5)),
    ],
)
def test_the_head_in_numpy(side, pool, size):
    model = head((*side, 3), activation="tanh")
    x = np.random.default_rng(1).normal(size=(2, *side, 3)).astype(np.float32)
    expected = in_numpy(model, x, pool, size)
    np.testing.assert_allclose(model(x, training=False), expected, rtol=1e-3, atol=1e-3)
    assert np.ptp(expected, axis=0).min() > 0.01


@pytest.fixture(scope="module")
def full():
    keras.utils.set_random_seed(0)
    return models.auxiliary_head((17, 17, 768), 1000)


def test_parameters(full):
    """beta, mean and variance of 128 and 768 filters; logits with a bias."""
    expected = (768 + 3) * 128 + (25 * 128 + 3) * 768 + (768 + 1) * 1000
    assert full.count_params() == expected
    assert full.output_shape == (None, 1000)
    logits = full.get_layer("auxiliary_logits")
    assert logits.output is full.output
    assert logits.activation is keras.activations.linear


def test_defaults(full):
    for norm in of_type(full, layers.BatchNormalization):
        assert (norm.momentum, norm.epsilon) == (0.9997, 1e-3)
        assert norm.center and not norm.scale
    assert len(of_type(full, layers.ReLU)) == 2
    kernels = [v for v in full.trainable_variables if v.name == "kernel"]
    assert len(full.losses) == len(kernels) == 3
    squares = sum(np.sum(np.square(k, dtype=np.float64)) for k in kernels)
    assert float(sum(full.losses)) == pytest.approx(2e-5 * squares, rel=1e-4)


def test_initial_kernels(full):
    """He normal; truncated normal of .01 and .001, cut off at two of these."""
    first, second = (conv.get_weights()[0] for conv in of_type(full, layers.Conv2D))
    std = np.sqrt(2 / 768)
    assert_truncated_normal(first, std, 2 * std * HE)
    assert_truncated_normal(second, 0.01 / HE, 0.02)
    kernel, bias = full.get_layer("auxiliary_logits").get_weights()
    assert_truncated_normal(kernel, 0.001 / HE, 0.002)
    assert np.all(bias == 0)


@pytest.mark.parametrize(
    ("width", "filters"), [(0.5, (64, 384)), (2.0, (256, 1536)), (0.1, (16, 76))]
)
def test_width(width, filters):
    """Of the convolutions, at least 16; not of the classes."""
    model = models.auxiliary_head((5, 5, 2), 7, width=width)
    found = tuple(conv.filters for conv in of_type(model, layers.Conv2D))
    assert found == filters and model.output_shape == (None, 7)


def test_options():
    model = head((6, 6, 2), activation="elu", bn_momentum=0.5, weight_decay=0.0)
    assert model.losses == [] and len(of_type(model, layers.ELU)) == 2
    momenta = [norm.momentum for norm in of_type(model, layers.BatchNormalization)]
    assert momenta == [0.5, 0.5]


def test_a_saved_head_is_the_same(tmp_path):
    model = head((17, 17, 3), activation="relu_decay_0.1")
    model.save(tmp_path / "head.keras")
    loaded = keras.models.load_model(tmp_path / "head.keras")
    x = np.random.default_rng(1).normal(size=(2, 17, 17, 3)).astype(np.float32)
    np.testing.assert_array_equal(loaded(x, training=False), model(x, training=False))


@pytest.mark.parametrize("shape", [(768,), (17, 17), (None, 17, 768), (0, 17, 3)])
def test_impossible_features(shape):
    message = r"`features_shape` must be \(h, w, c\), .* mixed_6e .*; received"
    with pytest.raises(ValueError, match=message):
        models.auxiliary_head(shape, 10)


def test_other_impossible_arguments():
    with pytest.raises(ValueError, match="`width` must be a positive number"):
        models.auxiliary_head((17, 17, 768), 10, width=0.0)
    with pytest.raises(ValueError, match="unknown activation 'swish'"):
        models.auxiliary_head((17, 17, 768), 10, activation="swish")
