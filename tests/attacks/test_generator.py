"""Perturbations of networks whose output can be written down."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfadv import attacks
from tfadv.attacks.generator import inputs_of
from tfadv.errors import RunError, UsageError

SHAPE, CLASSES = (2, 2, 1), 3
X = tf.constant(np.linspace(0.05, 0.95, 12).reshape(3, *SHAPE), tf.float32)
Y = tf.constant([2, 0, 2], tf.int32)


def never(x):
    raise AssertionError("the model under attack is not to be asked")


def constant(kind, width, weights):
    """A generator tanh(inputs w) of SHAPE."""
    inputs = keras.Input(SHAPE if kind == "image" else (width,), name=kind)
    x = keras.layers.Flatten()(inputs)
    dense = keras.layers.Dense(4, activation="tanh", use_bias=False)
    model = keras.Model(inputs, keras.layers.Reshape(SHAPE)(dense(x)))
    dense.set_weights([np.asarray(weights, np.float32)])
    return model


RNG = np.random.default_rng(0)
BY_IMAGE = RNG.normal(size=(4, 4))
BY_LABEL = RNG.normal(size=(CLASSES, 4))
BY_NOISE = RNG.normal(size=(5, 4))


def test_from_images():
    attack = attacks.Generator(eps=0.25, generator=constant("image", 4, BY_IMAGE))
    flat = X.numpy().reshape(3, 4)
    expected = np.clip(flat + 0.25 * np.tanh(flat @ BY_IMAGE), 0, 1)
    np.testing.assert_allclose(
        attack(never, X, Y).numpy().reshape(3, 4), expected, atol=1e-6
    )


def test_from_labels():
    """Every image of a class gets the same; it is the true label that counts."""
    attack = attacks.Generator(eps=0.25, generator=constant("label", 3, BY_LABEL))
    moves = 0.25 * np.tanh(BY_LABEL)[[2, 0, 2]]
    expected = np.clip(X.numpy().reshape(3, 4) + moves, 0, 1)
    np.testing.assert_allclose(
        attack(never, X, Y).numpy().reshape(3, 4), expected, atol=1e-6
    )


def test_from_noise():
    network = constant("noise", 5, BY_NOISE)
    attack = attacks.Generator(eps=0.25, generator=network)
    z = inputs_of(network, X, Y, seed=7).numpy()
    assert z.shape == (3, 5)
    moves = 0.25 * np.tanh(z @ BY_NOISE)
    expected = np.clip(X.numpy().reshape(3, 4) + moves, 0, 1)
    np.testing.assert_allclose(
        attack(never, X, Y, seed=7).numpy().reshape(3, 4), expected, atol=1e-6
    )
    assert (attack(never, X, Y, seed=8) != attack(never, X, Y, seed=7)).numpy().any()
    with pytest.raises(ValueError, match="`seed`"):
        attack(never, X, Y)


def test_noise_is_normal():
    many = inputs_of(constant("noise", 5, BY_NOISE), tf.zeros([20_000, 2]), None, 0)
    assert np.mean(many) == pytest.approx(0, abs=0.02)
    assert np.std(many) == pytest.approx(1, abs=0.02)


def test_the_generator_works_in_inference():
    image = keras.Input(SHAPE, name="image")
    statistics = keras.layers.BatchNormalization(epsilon=0.0)
    network = keras.Model(image, keras.layers.Activation("tanh")(statistics(image)))
    statistics.set_weights([np.array([v]) for v in (1.0, 0.0, 0.5, 4.0)])
    before = [w.copy() for w in network.get_weights()]
    x_adv = attacks.Generator(eps=0.5, generator=network)(never, X, Y)
    expected = np.clip(X + 0.5 * np.tanh((X - 0.5) / 2), 0, 1)
    np.testing.assert_allclose(x_adv, expected, atol=1e-6)
    for a, b in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_from_a_file(tmp_path):
    network = constant("image", 4, BY_IMAGE)
    path = tmp_path / "generator.keras"
    network.save(path)
    one = attacks.Generator(eps=0.25, generator=str(path))
    other = attacks.Generator(eps=0.25, generator=network)
    np.testing.assert_array_equal(one(never, X, Y), other(never, X, Y))
    # The file is read once.
    assert one.network() is attacks.Generator(eps=0.5, generator=str(path)).network()


def test_files_that_hold_no_generator(tmp_path):
    def make(name):
        return attacks.Generator(eps=0.1, generator=str(tmp_path / name))

    with pytest.raises(UsageError, match=r"no generator at .*absent.keras: expected"):
        make("absent.keras")
    (tmp_path / "broken.keras").write_text("not a zip")
    with pytest.raises(RunError, match=r"cannot load the generator .*broken.keras"):
        make("broken.keras")
    inputs = keras.Input(SHAPE)
    keras.Model(inputs, keras.layers.Flatten()(inputs)).save(tmp_path / "other.keras")
    message = r"other.keras is no generator: .* called image, label or noise; received"
    with pytest.raises(UsageError, match=message):
        make("other.keras")
