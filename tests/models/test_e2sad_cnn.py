import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfadv import models

MNIST, SVHN = (28, 28, 1), (32, 32, 3)


def test_parameters_on_mnist():
    """Two convolutions 5x5, dense layers on 7x7x64 and on 1024, all with biases."""
    convolutions = (25 * 1 + 1) * 32 + (25 * 32 + 1) * 64
    dense = (7 * 7 * 64 + 1) * 1024 + (1024 + 1) * 10
    assert convolutions + dense == 3_274_634
    assert models.e2sad_mnist(MNIST, 10).count_params() == 3_274_634


@pytest.mark.parametrize("standardize", [True, False])
def test_parameters_on_svhn(standardize):
    convolutions = (25 * 3 + 1) * 32 + (25 * 32 + 1) * 64 + (9 * 64 + 1) * 128
    dense = (5 * 5 * 128 + 1) * 512 + (512 + 1) * 10
    assert convolutions + dense == 1_771_594
    model = models.e2sad_svhn(SVHN, 10, standardize=standardize)
    assert model.count_params() == 1_771_594


@pytest.mark.parametrize(
    ("model", "image", "expected"),
    [
        (
            models.e2sad_mnist,
            MNIST,
            [(28, 28, 32), (14, 14, 32), (14, 14, 64), (7, 7, 64), (1024,), (10,)],
        ),
        (
            models.e2sad_svhn,
            SVHN,
            [
                *((28, 28, 32), (24, 24, 64), (12, 12, 64), (10, 10, 128)),
                *((5, 5, 128), (512,), (10,)),
            ],
        ),
    ],
)
def test_the_order_and_the_sizes_of_the_layers(model, image, expected):
    kinds = layers.Conv2D | layers.MaxPooling2D | layers.Dense
    made = [layer for layer in model(image, 10).layers if isinstance(layer, kinds)]
    assert [tuple(layer.output.shape[1:]) for layer in made] == expected
    # All but pools and the logits are rectified.
    for layer in made[:-1]:
        if not isinstance(layer, layers.MaxPooling2D):
            assert layer.activation is keras.activations.relu
    assert made[-1].activation is keras.activations.linear
    assert made[-1].name == "embedding"


@pytest.mark.parametrize("model", [models.e2sad_mnist, models.e2sad_svhn])
def test_training_and_inference_are_the_same(model):
    """No batch normalisation, no dropout: what e2SAD saves its passes by."""
    made = model((16, 16, 3), 4)
    assert not made.non_trainable_variables
    x = np.random.default_rng(0).uniform(size=(3, 16, 16, 3)).astype(np.float32)
    np.testing.assert_array_equal(made(x, training=True), made(x, training=False))


def test_svhn_standardises_each_image():
    """A brighter image, or one of more contrast, has the same logits."""
    model = models.e2sad_svhn((16, 16, 3), 4)
    x = np.random.default_rng(0).uniform(size=(3, 16, 16, 3)).astype(np.float32)
    logits = model(x, training=False)
    np.testing.assert_allclose(model(0.3 * x + 0.2, training=False), logits, atol=1e-5)
    assert np.ptp(logits, axis=0).min() > 1e-3
    # An image of one colour is no reason for a NaN, nor is its gradient.
    flat = tf.fill([1, 16, 16, 3], 0.5)
    with tf.GradientTape() as tape:
        tape.watch(flat)
        logits = model(flat, training=False)
    assert np.isfinite(tape.gradient(logits, flat)).all() and np.isfinite(logits).all()


def test_a_saved_svhn_network_needs_no_tfadv(tmp_path):
    model = models.e2sad_svhn((16, 16, 3), 4)
    model.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        assert b"tfadv" not in archive.read("config.json")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = np.random.default_rng(0).uniform(size=(3, 16, 16, 3)).astype(np.float32)
    np.testing.assert_array_equal(loaded(x), model(x))


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        ((15, 32, 3), {}, "sides of 16 or more; received 15x32x3"),
        (SVHN, {"mean": (0.5,)}, "leave out `mean` and `std`"),
        (SVHN, {"std": (0.5,)}, "or set `standardize` to false"),
    ],
)
def test_arguments_that_cannot_be(image, options, message):
    with pytest.raises(ValueError, match=message):
        models.e2sad_svhn(image, 10, **options)
