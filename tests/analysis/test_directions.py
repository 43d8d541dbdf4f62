import numpy as np
import pytest
import tensorflow as tf

from tfadv import attacks
from tfadv.analysis import directions


def random_model(pixels, classes, seed=0):
    """A smooth classifier of images of so many pixels."""
    rng = np.random.default_rng(seed)
    v = rng.normal(size=(pixels, 8)).astype(np.float32)
    w = rng.normal(size=(8, classes)).astype(np.float32)
    return lambda x: tf.tanh(tf.reshape(x, [-1, pixels]) @ v) @ w


# m = 3 a - 4 b is -0.1, 0.2 and 0.1. J(x, 1) grows where m falls, J(x, 0) where it
# grows; the least likely class is 1 where m < 0 and 0 where m > 0.
@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_signs_of_a_linear_model(linear, batch_size):
    predict, _ = linear
    x = np.array([[0.5, 0.4], [0.2, 0.1], [0.1, 0.05]], np.float32)
    found = directions.signs(
        predict,
        x.reshape(3, 1, 2, 1),
        np.array([0, 0, 1], np.int32),
        seed=0,
        batch_size=batch_size,
    )
    leave_1, leave_0 = [-1, 1], [1, -1]
    fgsm = found["step_fgsm"].reshape(3, 2)
    np.testing.assert_array_equal(fgsm, [leave_0, leave_0, leave_1])
    # Towards the least likely class: up in m for the first, down for the others.
    ll = found["step_ll"].reshape(3, 2)
    np.testing.assert_array_equal(ll, [leave_0, leave_1, leave_1])


@pytest.mark.parametrize("name", directions.NAMES)
def test_an_image_moved_and_clipped_is_that_of_the_attack(name):
    predict = random_model(6, 4)
    rng = np.random.default_rng(1)
    x = rng.integers(0, 256, (5, 2, 3, 1)).astype(np.float32) / 255
    y = rng.integers(0, 4, 5).astype(np.int32)
    signs = directions.signs(predict, x, y, seed=3, batch_size=2)
    eps = 40 / 255
    moved = directions.moved(x, signs[name], [eps] * 5)
    attack = attacks.get(name)(eps=eps)
    expected = attack(predict, tf.constant(x), tf.constant(y), seed=3)
    np.testing.assert_allclose(np.clip(moved, 0, 1), expected, atol=1e-7)
    assert np.abs(moved - np.clip(moved, 0, 1)).max() > 0.05


def test_random_signs_are_those_of_the_seed_for_every_model():
    x, y = np.full((4, 8, 8, 1), 0.5, np.float32), np.zeros(4, np.int32)

    def noise(seed, model, batch_size=4):
        found = directions.signs(
            random_model(64, 3, model), x, y, seed=seed, batch_size=batch_size
        )
        return found["random_sign"]

    np.testing.assert_array_equal(noise(0, model=1), noise(0, model=2, batch_size=3))
    assert (noise(0, model=1) != noise(1, model=1)).any()
    # Each image has its own.
    assert len({image.tobytes() for image in noise(0, model=1)}) == 4


def test_every_image_moves_by_its_own_size():
    x = np.array([0.5, 0.25, 0.0], np.float32).reshape(3, 1, 1, 1)
    direction = np.array([1.0, -1.0, -1.0], np.float32).reshape(3, 1, 1, 1)
    moved = directions.moved(x, direction, np.array([0.25, 0.5, 0.0]))
    assert moved.dtype == np.float32
    np.testing.assert_array_equal(moved.ravel(), [0.75, -0.25, 0.0])


@pytest.mark.parametrize("batch_size", [1, 4, 6, 100])
def test_the_grid_holds_every_size_of_every_image_once(batch_size):
    batches = list(directions.grid(3, 2, batch_size, ""))
    assert [len(j) for j, _ in batches[:-1]] == [batch_size] * (len(batches) - 1)
    pairs = [pair for j, i in batches for pair in zip(j, i, strict=True)]
    assert pairs == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
