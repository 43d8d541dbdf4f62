"""Shared fixtures. Set up before anything touches TensorFlow: two logical CPUs."""

import gc
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import forked
from tfadv import distribution

distribution.split_cpu(2)
# Tracing makes so many objects that looking for cycles among them costs a fifth.
gc.set_threshold(50_000, 20, 50)


def pytest_collection_finish():
    gc.collect()
    gc.freeze()


ROOT = pathlib.Path(__file__).resolve().parents[1]

# The first strategy of a process must be its only one: a second breaks on CPUs.
_MIRRORED = []


@pytest.fixture(scope="session")
def mirrored():
    """The one MirroredStrategy of the session, over two logical CPUs."""
    if not _MIRRORED:
        _MIRRORED.append(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
    return _MIRRORED[0]


@pytest.fixture(scope="session")
def binaries():
    """`binaries("train", "--method=..")`: (exit code, stdout, stderr) of a binary."""
    found = forked.Binaries()
    yield found
    found.close()


@pytest.fixture(scope="session")
def fake_tensorflow(tmp_path_factory):
    """A folder for PYTHONPATH with which importing TensorFlow fails."""
    folder = tmp_path_factory.mktemp("fake")
    (folder / "tensorflow").mkdir()
    text = "raise ImportError('tensorflow was imported')\n"
    (folder / "tensorflow" / "__init__.py").write_text(text)
    return str(folder)


@pytest.fixture(scope="session")
def no_tensorflow(fake_tensorflow):
    """As `binaries`, where importing TensorFlow fails."""
    found = forked.Binaries(PYTHONPATH=fake_tensorflow)
    yield found
    found.close()


@pytest.fixture
def data_dir():
    """Real MNIST and CIFAR-10 as TFDS directories; skips where there are none."""
    path = os.environ.get("TFDS_DATA_DIR") or ROOT.parent / "shared" / "data"
    path = pathlib.Path(path)
    if not (path / "mnist").is_dir() or not (path / "cifar10").is_dir():
        pytest.skip(f"no prepared mnist and cifar10 in {path} (set TFDS_DATA_DIR)")
    return str(path)


@pytest.fixture(autouse=True)
def _fresh_names():
    """The same layer names and initial weights whatever ran before."""
    # Without the garbage collection, which costs more than most tests do.
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)


@pytest.fixture
def linear():
    """(predict, w): logits [0, w . x] on images [n, 1, 2, 1], w = (3, -4).

    With s = sigmoid(w . x): J(x, 1) = -log s with gradient -(1 - s) w, and J(x, 0) =
    -log(1 - s) with gradient s w. Away from saturation sign(grad J(x, 0)) = (1, -1)
    and sign(grad J(x, 1)) = (-1, 1).
    """
    w = np.array([3.0, -4.0], np.float32)

    def predict(x):
        z = tf.matmul(tf.reshape(x, [-1, 2]), w[:, None])
        return tf.concat([tf.zeros_like(z), z], axis=1)

    return predict, w
