import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tests.models.test_residual import of_type
from tfadv.errors import UsageError
from tfadv.models import activations

X = [-2.0, 0.5, 2.0, 10.0]
E2 = np.exp(-2.0)
# name: (values at X, derivatives there). Of relu decay with b = beta x^2 the derivative
# is (1 - b) / (1 + b)^2 where x > 0, so none at x = 10 for beta = 1 / 100.
EXPECTED = {
    "relu": ([0, 0.5, 2, 10], [0, 1, 1, 1]),
    "relu6": ([0, 0.5, 2, 6], [0, 1, 1, 0]),
    "tanh": (np.tanh(X), 1 - np.tanh(X) ** 2),
    "elu": ([E2 - 1, 0.5, 2, 10], [E2, 1, 1, 1]),
    "relu_decay_0.1": (
        [0, 0.5 / 1.025, 2 / 1.4, 10 / 11],
        [0, 0.975 / 1.025**2, 0.6 / 1.4**2, -9 / 11**2],
    ),
    "relu_decay_0.01": (
        [0, 0.5 / 1.0025, 2 / 1.04, 5],
        [0, 0.9975 / 1.0025**2, 0.96 / 1.04**2, 0],
    ),
    "relu_decay_.001": (
        [0, 0.5 / 1.00025, 2 / 1.004, 10 / 1.1],
        [0, 0.99975 / 1.00025**2, 0.996 / 1.004**2, 0.9 / 1.1**2],
    ),
    "relu_decay_2": ([0, 1 / 3, 2 / 9, 10 / 201], [0, 2 / 9, -7 / 81, -199 / 201**2]),
}
every_activation = pytest.mark.parametrize("name", EXPECTED)


def network(name, label=None):
    """The activation of each of four features."""
    x = keras.Input((4,))
    return keras.Model(x, activations.get(name)(x, label))


def gradient(model, x):
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = model(x)
    return tape.gradient(y, x)


@every_activation
def test_values_and_derivatives(name):
    values, derivatives = EXPECTED[name]
    model = network(name)
    np.testing.assert_allclose(model(np.array([X])), [values], rtol=1e-5)
    np.testing.assert_allclose(
        gradient(model, [X]), [derivatives], rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("beta", [0.1, 0.001])
def test_where_relu_decay_is_largest(beta):
    """At 1 / sqrt(beta), where it halves x; at 1 / 4 and 4 times that, 4 / 17 of it."""
    peak = 1 / np.sqrt(beta)
    x = peak * np.array([[0.25, 1, 4, -1]], np.float32)
    expected = peak * np.array([[4 / 17, 1 / 2, 4 / 17, 0]])
    np.testing.assert_allclose(network(f"relu_decay_{beta}")(x), expected, rtol=1e-5)


def test_relu_decay_far_out():
    """Where the square is infinite in float32 neither it nor its gradient is NaN."""
    x = [[1e18, 1e25, -1e25, 0.0]]
    model = network("relu_decay_0.01")
    np.testing.assert_allclose(model(np.array(x)), [[1e-16, 0, 0, 0]], rtol=1e-5)
    np.testing.assert_allclose(gradient(model, x)[0, :3], 0, atol=1e-30)


@pytest.mark.parametrize(
    ("name", "kind", "layer"),
    [
        ("relu", layers.ReLU, "first_relu"),
        ("relu6", layers.ReLU, "first_relu6"),
        ("tanh", layers.Activation, "first_tanh"),
        ("elu", layers.ELU, "first_elu"),
        ("relu_decay_0.1", layers.ReLU, "first_relu"),
    ],
)
def test_the_names_of_layers(name, kind, layer):
    (found,) = of_type(network(name, "first"), kind)
    assert found.name == layer
    assert not of_type(network(name), kind)[0].name.startswith("None")


@pytest.mark.parametrize(
    "name",
    [
        "relu_decay",
        "relu_decay_",
        "relu_decay_0",
        "relu_decay_0.0",
        "relu_decay_-0.1",
        "relu_decay_0_1",
        "relu_decay_nan",
        "relu_decay_x",
    ],
)
def test_impossible_betas(name):
    message = "takes a positive decimal number .* as relu_decay_0.01; received"
    with pytest.raises(UsageError, match=f"{message} {name!r}"):
        activations.get(name)


@pytest.mark.parametrize("name", ["relu7", "", None, "ReLU", "softmax"])
def test_unknown_names(name):
    with pytest.raises(UsageError, match=f"unknown activation {name!r}") as error:
        activations.get(name)
    assert "elu, relu, relu6, relu_decay_0.01, tanh" in str(error.value)


LOAD = """
import sys
sys.modules["tfadv"] = None  # From here on, importing it fails.
import keras, numpy as np
folder, *names = sys.argv[1:]
x = np.load(f"{folder}/x.npy")
values = {n: keras.models.load_model(f"{folder}/{n}.keras")(x) for n in names}
np.savez(f"{folder}/values.npz", **values)
"""


def test_saved_networks_need_no_tfadv(tmp_path):
    np.save(tmp_path / "x.npy", np.array([X], np.float32))
    for name in EXPECTED:
        network(name).save(tmp_path / f"{name}.keras")
    command = [sys.executable, "-c", LOAD, str(tmp_path), *EXPECTED]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "values.npz") as loaded:
        for name, (values, _) in EXPECTED.items():
            np.testing.assert_allclose(loaded[name], [values], rtol=1e-5, err_msg=name)
