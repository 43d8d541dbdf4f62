import numpy as np
import pytest
import tensorflow as tf

from tfadv.data import Augment

SEED = (3, 5)


def numbered(n, h, w=None, c=1):
    """Images in which every pixel has a value of its own."""
    w = w or h
    return np.arange(n * h * w * c, dtype=np.int32).reshape(n, h, w, c)


def replay(x, augment, seed):
    """The crops and flips of `augment` in NumPy, from the same uniform draws."""
    n, h, w, _ = x.shape
    h, w, _ = augment.output_shape(x.shape[1:])
    x = np.pad(x, [(0, 0), (augment.pad,) * 2, (augment.pad,) * 2, (0, 0)])
    top, left, coin = tf.random.stateless_uniform([3, n], seed, alg="philox").numpy()
    out = []
    for i in range(n):
        row = int(np.floor(top[i] * (x.shape[1] - h + 1)))
        column = int(np.floor(left[i] * (x.shape[2] - w + 1)))
        window = x[i, row : row + h, column : column + w]
        mirrored = augment.flip and coin[i] < 0.5
        out.append(window[:, ::-1] if mirrored else window)
    return np.stack(out)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    "augment",
    [
        Augment(),
        Augment(crop=5),
        Augment(crop=8, flip=True),
        Augment(crop=1),
        Augment(flip=True),
        Augment(pad=2),
        Augment(pad=2, flip=True),
        Augment(pad=1, crop=6, flip=True),
    ],
)
def test_windows_equal_a_replay_of_the_draws(augment, compiled):
    x = numbered(50, 8, 9, 2)
    random = tf.function(augment.random) if compiled else augment.random
    actual = random(tf.constant(x), SEED)
    np.testing.assert_array_equal(actual, replay(x, augment, SEED))


def test_nothing_asked_for_changes_nothing():
    x = numbered(4, 6)
    np.testing.assert_array_equal(Augment().random(x, SEED), x)
    np.testing.assert_array_equal(Augment().center(x), x)


@pytest.fixture(scope="module")
def corners():
    """(row, column, flipped) of 4,500 crops 6x6 out of 8x8, read off the pixels.

    A pixel of `numbered` images is 64 i + 8 row + column; the left neighbour of a
    pixel is smaller by 1 unless the crop is mirrored.
    """
    n = 4500
    crops = Augment(crop=6, flip=True).random(tf.constant(numbered(n, 8)), SEED)
    crops = crops.numpy()[..., 0] - 64 * np.arange(n)[:, None, None]
    flipped = crops[:, 0, 0] > crops[:, 0, 1]
    smallest = crops.min((1, 2))
    return smallest // 8, smallest % 8, flipped


def test_flips_are_fair(corners):
    """2,250 of 4,500 expected, one standard deviation is sqrt(4500 / 4) = 33.5."""
    assert abs(corners[2].sum() - 2250) < 5 * 33.5


def test_offsets_are_uniform_and_independent(corners):
    """Each of 3 x 3 x 2 outcomes 250 times; sd = sqrt(4500 / 18 * 17 / 18) = 15.4."""
    outcomes, counts = np.unique(np.stack(corners, 1), axis=0, return_counts=True)
    assert outcomes.tolist() == [
        [row, column, flipped]
        for row in range(3)
        for column in range(3)
        for flipped in (0, 1)
    ]
    assert np.all(np.abs(counts - 250) < 5 * 15.4)


def test_every_example_has_its_own_draw():
    """The same image 64 times gives many crops, not one."""
    x = tf.constant(np.repeat(numbered(1, 8), 64, axis=0))
    crops = Augment(crop=5, flip=True).random(x, SEED).numpy()
    assert len({crop.tobytes() for crop in crops}) > 16


def test_the_seed_decides():
    x, augment = tf.constant(numbered(20, 8)), Augment(crop=5, flip=True)
    first = augment.random(x, SEED).numpy()
    np.testing.assert_array_equal(augment.random(x, SEED), first)
    assert np.any(augment.random(x, (3, 6)).numpy() != first)


@pytest.mark.parametrize(
    "side, crop, first",
    [
        (32, 24, 4),  # rows 4 .. 27
        (28, 24, 2),
        (8, 5, 1),  # rows 1 .. 5: one above, two below
        (8, 8, 0),
        (8, 1, 3),
    ],
)
@pytest.mark.parametrize("convert", [np.asarray, tf.constant])
def test_center(side, crop, first, convert):
    x = numbered(2, side, c=3)
    window = slice(first, first + crop)
    actual = np.asarray(Augment(crop=crop, pad=4, flip=True).center(convert(x)))
    np.testing.assert_array_equal(actual, x[:, window, window])


def test_center_of_an_oblong():
    """6x9 to 4x4: one row above, two columns to the left."""
    x = numbered(1, 6, 9)
    np.testing.assert_array_equal(Augment(crop=4).center(x), x[:, 1:5, 2:6])


def test_pad_and_crop_adds_zeros_on_every_side():
    """1x1 images padded by 1 and cut back to 1x1: the pixel survives in 1 of 9."""
    x = tf.ones([9000, 1, 1, 1], tf.uint8)
    kept = Augment(pad=1).random(x, SEED)
    assert kept.shape == (9000, 1, 1, 1) and kept.dtype == tf.uint8
    # sd = sqrt(9000 * 1/9 * 8/9) = 29.8
    assert abs(int(tf.reduce_sum(tf.cast(kept, tf.int32))) - 1000) < 5 * 29.8


@pytest.mark.parametrize(
    "augment, expected",
    [
        (Augment(), (8, 9, 3)),
        (Augment(pad=4), (8, 9, 3)),
        (Augment(crop=8), (8, 8, 3)),
        (Augment(crop=2, pad=4), (2, 2, 3)),
    ],
)
def test_output_shape(augment, expected):
    assert augment.output_shape((8, 9, 3)) == expected
    assert augment.random(numbered(2, 8, 9, 3), SEED).shape == (2, *expected)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"crop": 0}, "`crop` must be at least 1; received 0"),
        ({"pad": -1}, "`pad` must be at least 0; received -1"),
    ],
)
def test_impossible_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Augment(**arguments)


def test_a_crop_larger_than_the_image():
    for pad in (0, 4):
        with pytest.raises(ValueError, match="at most the image's side, 8; received 9"):
            Augment(crop=9, pad=pad).output_shape((8, 10, 1))
