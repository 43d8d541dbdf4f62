import subprocess
import sys

import keras
import numpy as np
import pytest

from tests.models.test_residual import of_type
from tfadv import models
from tfadv.errors import UsageError
from tfadv.models.layers import decay, normalization, pooled

MAKERS = {
    "lenet": models.lenet,
    "resnet20": models.resnet20,
    "small_cnn": models.small_cnn,
    "small_vgg": models.small_vgg,
}
every_network = pytest.mark.parametrize("name", MAKERS)


def images(n=3, channels=3):
    rng = np.random.default_rng(0)
    return rng.uniform(size=[n, 8, 8, channels]).astype(np.float32)


def scrambled(model):
    """`model` with every variable moved, biases and moving statistics included."""
    rng = np.random.default_rng(1)
    for variable in model.variables:
        noise = rng.uniform(0.1, 0.5, size=variable.shape)
        variable.assign_add(noise.astype(np.float32))
    return model


@pytest.mark.parametrize(
    "mean, std, expected_mean, expected_std",
    [
        ((), (), 0, 1),
        ((0.5,), (0.5,), 0.5, 0.5),
        ((0.1, 0.2, 0.3), (), (0.1, 0.2, 0.3), 1),
        ((), (0.5, 0.25, 2.0), 0, (0.5, 0.25, 2.0)),
        ((0.1, 0.2, 0.3), (0.5,), (0.1, 0.2, 0.3), 0.5),
        ((0.4,), (0.5, 0.25, 2.0), 0.4, (0.5, 0.25, 2.0)),
        ((0.1, 0.2, 0.3), (0.5, 0.25, 2.0), (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)),
    ],
)
def test_normalization(mean, std, expected_mean, expected_std):
    x = images()
    expected = (x - np.array(expected_mean)) / np.array(expected_std)
    actual = normalization(mean, std)(x)
    assert actual.shape == x.shape
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "mean, std, message",
    [
        ((), (0.0,), "`std` must be positive"),
        ((), (0.5, -0.5), "`std` must be positive"),
        ((0.1, 0.2), (1.0, 1.0, 1.0), "received 2 and 3 values"),
    ],
)
def test_impossible_normalization(mean, std, message):
    with pytest.raises(ValueError, match=message):
        normalization(mean, std)


def test_decay():
    """0.1 / 2 * (9 + 16); its gradient is 0.1 w."""
    assert float(decay(0.1)(np.array([3.0, -4.0]))) == pytest.approx(1.25)
    assert decay(0.0) is None


@every_network
def test_the_first_layer_normalises(name):
    """So mean = std = 1/2 on x equals none on 2 x - 1."""
    plain = scrambled(MAKERS[name]((8, 8, 3), 10))
    halves = MAKERS[name]((8, 8, 3), 10, mean=(0.5,), std=(0.5,))
    halves.set_weights(plain.get_weights())
    assert halves.layers[1].name == "normalize"
    x = images()
    np.testing.assert_allclose(
        halves(x, training=False), plain(2 * x - 1, training=False), rtol=1e-4
    )


@every_network
@pytest.mark.parametrize("option", ["mean", "std"])
def test_statistics_of_another_number_of_channels(name, option):
    """Three of them on grey images would make three channels of one."""
    with pytest.raises(ValueError, match=f"`{option}`"):
        MAKERS[name]((8, 8, 1), 10, **{option: (0.5, 0.4, 0.3)})


@every_network
@pytest.mark.parametrize("weight_decay", [0.01, 0.5])
def test_only_kernels_decay(name, weight_decay):
    model = scrambled(MAKERS[name]((8, 8, 3), 10, weight_decay=weight_decay))
    kernels = [v for v in model.variables if v.name == "kernel"]
    assert len(model.losses) == len(kernels)
    expected = weight_decay / 2 * sum(np.square(k).sum() for k in kernels)
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-5)


@every_network
def test_no_decay_no_losses(name):
    assert MAKERS[name]((8, 8, 3), 10, weight_decay=0.0).losses == []


@every_network
@pytest.mark.parametrize("classes", [2, 10])
def test_the_logits_are_the_embedding(name, classes):
    model = MAKERS[name]((8, 8, 3), classes)
    assert model.output_shape == (None, classes)
    embedding = model.get_layer("embedding")
    assert embedding.output is model.output
    assert embedding.activation is keras.activations.linear


@every_network
def test_a_name_gets_its_network(name):
    assert models.get(name) is MAKERS[name] is models.MODELS[name]


def test_get_lists_the_names():
    with pytest.raises(UsageError, match="unknown model 'resnet2'; did you mean"):
        models.get("resnet2")


LOAD = """
import sys
sys.modules["tfadv"] = None  # From here on, importing it fails.
import keras, numpy as np
folder, *names = sys.argv[1:]
x = np.load(f"{folder}/x.npy")
logits = {n: keras.models.load_model(f"{folder}/{n}.keras")(x) for n in names}
np.savez(f"{folder}/logits.npz", **logits)
"""


def test_saved_networks_need_no_tfadv(tmp_path):
    """Every network is loaded by one process that knows Keras alone."""
    x, expected = images(), {}
    np.save(tmp_path / "x.npy", x)
    for name, make in MAKERS.items():
        model = scrambled(make((8, 8, 3), 10, mean=(0.5,), weight_decay=0.1))
        model.save(tmp_path / f"{name}.keras")
        expected[name] = np.asarray(model(x, training=False))
    command = [sys.executable, "-c", LOAD, str(tmp_path), *MAKERS]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "logits.npz") as loaded:
        for name, logits in expected.items():
            np.testing.assert_allclose(loaded[name], logits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("dropout", "drops"), [(0.0, []), (0.25, [0.25])])
def test_pooled(dropout, drops):
    x = keras.Input((3, 2, 4))
    model = keras.Model(x, pooled(x, dropout))
    assert [layer.rate for layer in of_type(model, keras.layers.Dropout)] == drops
    maps = np.random.default_rng(0).normal(size=(2, 3, 2, 4)).astype(np.float32)
    np.testing.assert_allclose(model(maps), maps.mean((1, 2)), rtol=1e-5, atol=1e-6)
    assert model.layers[1].name == "avg_pool"
