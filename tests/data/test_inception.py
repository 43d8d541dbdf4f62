import colorsys

import numpy as np
import pytest
import tensorflow as tf

from tests.data import directories
from tfadv import data
from tfadv.data import Inception, inception
from tfadv.data.inception import distort_color


def resized(x, size):
    """Between the four pixels around (i + 1/2) h / size - 1/2, in float64."""

    def weights(n):
        at = np.clip((np.arange(size) + 0.5) * n / size - 0.5, 0, n - 1)
        low = np.minimum(np.floor(at).astype(int), n - 1)
        found = np.zeros([size, n])
        found[np.arange(size), low] += 1 - (at - low)
        found[np.arange(size), np.minimum(low + 1, n - 1)] += at - low
        return found

    return np.einsum("ih,hwc,jw->ijc", weights(x.shape[0]), x, weights(x.shape[1]))


# Colours.


def by_pixel(x, change):
    """`change` of hue, saturation and value."""
    found = np.empty_like(x)
    for place in np.ndindex(x.shape[:2]):
        found[place] = colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*x[place])))
    return found


def recoloured(x, order, brightness, saturation, hue, contrast):
    """`distort_color` in NumPy, where nothing leaves [0, 1] on the way."""

    def saturated(x):
        factor = 1 + 0.5 * saturation
        return by_pixel(x, lambda h, s, v: (h, min(s * factor, 1), v))

    def turned(x):
        return by_pixel(x, lambda h, s, v: ((h + 0.2 * hue) % 1, s, v))

    def contrasted(x):
        mean = x.mean((0, 1))
        return mean + (1 + 0.5 * contrast) * (x - mean)

    x = x + 32 / 255 * brightness
    steps = {0: (saturated, turned, contrasted), 1: (contrasted, saturated, turned)}
    for step in steps[order]:
        x = step(x)
    return np.clip(x, 0, 1)


PIXELS = np.array([[[0.8, 0.4, 0.4], [0.4, 0.8, 0.4]]], np.float32)


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ((0, 0, 0, 0), PIXELS),
        ((1, 0, 0, 0), PIXELS + 32 / 255),
        ((-0.5, 0, 0, 0), PIXELS - 16 / 255),
        # s = 1/2 becomes 1/4 and 3/4 of the largest value.
        ((0, -1, 0, 0), [[[0.8, 0.6, 0.6], [0.6, 0.8, 0.6]]]),
        ((0, 1, 0, 0), [[[0.8, 0.2, 0.2], [0.2, 0.8, 0.2]]]),
        # A fifth of the circle: from red beyond yellow, from green beyond cyan.
        ((0, 0, 1, 0), [[[0.72, 0.8, 0.4], [0.4, 0.72, 0.8]]]),
        # The means are 0.6, 0.6 and 0.4.
        ((0, 0, 0, 1), [[[0.9, 0.3, 0.4], [0.3, 0.9, 0.4]]]),
        ((0, 0, 0, -1), [[[0.7, 0.5, 0.4], [0.5, 0.7, 0.4]]]),
    ],
)
def test_each_change_by_hand(order, changes, expected):
    found = distort_color(tf.constant(PIXELS), order, *changes)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("order", [0, 1])
def test_all_changes_in_their_order(order):
    x = np.random.default_rng(0).uniform(0.4, 0.6, (5, 4, 3)).astype(np.float32)
    changes = (0.7, 0.9, -0.8, 0.6)
    found = distort_color(tf.constant(x), order, *changes)
    np.testing.assert_allclose(found, recoloured(x, order, *changes), atol=1e-5)
    other = recoloured(x, 1 - order, *changes)
    assert np.abs(found - other).max() > 1e-3


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("sign", [1, -1])
def test_colours_are_clipped(order, sign):
    x = tf.constant(np.random.default_rng(0).uniform(0, 1, (6, 6, 3)), tf.float32)
    found = distort_color(x, order, sign, 1, 0, 1).numpy()
    assert found.min() >= 0 and found.max() <= 1
    assert (found == (sign > 0)).mean() > 0.1


# Images to train on.


def box(shape, seed):
    """(top, left, height, width) that is drawn for an image of `shape`."""
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape,
        tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
        seed,
        min_object_covered=0.1,
        aspect_ratio_range=(0.75, 1.33),
        area_range=(0.05, 1),
        max_attempts=100,
    )
    return (*begin.numpy()[:2], *extent.numpy()[:2])


@pytest.mark.parametrize("compiled", [False, True])
def test_an_image_equals_a_replay_of_the_draws(compiled):
    """Of little contrast, so that no colour leaves [0, 1] before the end."""
    random = np.random.default_rng(0)
    image = random.integers(100, 150, (40, 50, 3), np.uint8)
    distort = Inception(size=6).random_one
    if compiled:
        distort = tf.function(distort)
    seen = set()
    for number in range(30):
        seed = tf.constant([3, number], tf.int64)
        top, left, height, width = box(image.shape, seed)
        x = resized(image[top : top + height, left : left + width] / 255, 6)
        fold = tf.random.experimental.stateless_fold_in(
            seed, tf.constant(1, tf.int64), alg="philox"
        )
        draws = tf.random.stateless_uniform([6], fold, -1, 1, alg="philox").numpy()
        mirrored, order = draws[0] < 0, int(draws[1] < 0)
        seen.add((bool(mirrored), order))
        x = x[:, ::-1] if mirrored else x
        found = distort(tf.constant(image), seed)
        assert found.dtype == tf.float32 and found.shape == (6, 6, 3)
        np.testing.assert_allclose(
            found, recoloured(x, order, *draws[2:]), atol=1e-4, err_msg=str(number)
        )
    assert len(seen) == 4


@pytest.fixture(scope="module")
def boxes():
    """(top, left, height, width, mirrored) of 600 images, read off their pixels.

    The row of a pixel is its red and its column its green value, in an image of
    200 x 250; the colours stay as they are. Of a box that is shrunk to 8 x 8, the
    first and the last pixel lie 7/8 of its side apart.
    """
    image = np.zeros((200, 250, 3), np.uint8)
    image[..., 0], image[..., 1] = np.mgrid[:200, :250]
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inception, "distort_color", lambda x, *changes: x)
        distort = tf.function(Inception(size=8).random_one)
        for number in range(600):
            x = 255 * distort(image, tf.constant([1, number], tf.int64)).numpy()
            first, last = x[0, 0, :2], x[-1, -1, :2]
            mirrored = last[1] < first[1]
            if mirrored:
                first[1], last[1] = last[1], first[1]
            sides = 8 / 7 * (last - first)
            found.append([*(first + 0.5 - sides / 16), *sides, mirrored])
    return np.array(found).T


def test_boxes_are_inside(boxes):
    top, left, height, width, _ = boxes
    assert min(top.min(), left.min()) > -0.01
    assert (top + height).max() < 200.01 and (left + width).max() < 250.01
    # Anywhere: of small boxes some are at each end.
    assert top.min() < 10 and (top + height).max() > 190
    assert left.min() < 10 and (left + width).max() > 240


def test_areas_and_aspects_are_in_their_ranges(boxes):
    """A side is a whole number of pixels, of which the shortest has about 60."""
    _, _, height, width, _ = boxes
    area, aspect = height * width / (200 * 250), width / height
    assert area.min() > 0.0999 and area.max() <= 1.0001
    assert area.min() < 0.12 and area.max() > 0.9
    assert aspect.min() > 0.75 - 0.02 and aspect.max() < 1.33 + 0.02
    assert aspect.min() < 0.8 and aspect.max() > 1.25
    np.testing.assert_allclose(height, np.round(height), atol=0.01)


def test_half_of_the_images_are_mirrored(boxes):
    """300 of 600 expected, one standard deviation is sqrt(600 / 4) = 12.2."""
    assert abs(boxes[-1].sum() - 300) < 5 * 12.2


def test_half_of_the_images_take_each_order(monkeypatch):
    orders = []

    def note(x, order, *changes):
        orders.append(int(order))
        return x

    monkeypatch.setattr(inception, "distort_color", note)
    image = np.zeros((4, 4, 3), np.uint8)
    for number in range(100):
        Inception(size=2).random_one(image, (1, number))
    # One standard deviation is 5.
    assert abs(sum(orders) - 50) < 25


def test_the_seed_decides():
    image = np.random.default_rng(0).integers(0, 256, (30, 20, 3), np.uint8)
    first, again, other, another = (
        Inception(size=5).random_one(image, seed).numpy()
        for seed in ((1, 2), (1, 2), (1, 3), (2, 2))
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any() and (first != another).any()
    assert (other != another).any()


def test_one_pixel_is_enough():
    found = Inception(size=4).random_one(np.full((1, 1, 3), 100, np.uint8), (1, 2))
    assert found.shape == (4, 4, 3)
    np.testing.assert_allclose(found, np.broadcast_to(found[0, 0], (4, 4, 3)))


# Images to test on.


def ramp(h, w):
    """4 for each row, 2 for each column and 10 for each channel."""
    rows, columns, channels = np.ogrid[:h, :w, :3]
    return (4 * rows + 2 * columns + 10 * channels).astype(np.uint8)


@pytest.mark.parametrize(
    ("h", "w", "size", "top", "left", "step"),
    [
        # 7/8 of 16 are 14 pixels, one less on each side.
        (16, 16, 14, 1, 1, 1),
        # Every other one of 14, half a pixel on.
        (16, 16, 7, 1.5, 1.5, 2),
        # 24 rows: a sixteenth is 1.5, of which 1 is cut off.
        (24, 24, 22, 1, 1, 1),
        (32, 32, 14, 2.5, 2.5, 2),
    ],
)
def test_the_middle_of_a_ramp(h, w, size, top, left, step):
    rows, columns, channels = np.ogrid[:size, :size, :3]
    expected = 4 * (top + step * rows) + 2 * (left + step * columns) + 10 * channels
    found = Inception(size=size).center(ramp(h, w)[None])
    assert found.dtype == np.uint8 and found.shape == (1, size, size, 3)
    np.testing.assert_array_equal(found[0], expected)


def test_the_middle_of_an_oblong_is_stretched():
    """14 x 28 of 16 x 32 become 14 x 14: every other column, half a pixel on."""
    rows, columns, channels = np.ogrid[:14, :14, :3]
    expected = 4 * (1 + rows) + 2 * (2.5 + 2 * columns) + 10 * channels
    found = Inception(size=14).center(ramp(16, 32)[None])
    np.testing.assert_array_equal(found[0], expected)


def test_values_are_rounded_to_the_nearest():
    """From 14 columns to 28: a quarter and three quarters between two old ones."""
    x = np.zeros((16, 16, 3), np.uint8)
    x[:, np.arange(16) // 2 % 2 == 1] = 3
    # The first is cut off: 0 3 3 0 0 3 3 .. remain. 0.75 and 2.25 become 1 and 2.
    expected = ([0, 1, 2, 3, 3, 2, 1, 0] * 4)[:28]
    found = Inception(size=28).center(x[None])[0]
    np.testing.assert_array_equal(found[5, :, 1], expected)


def test_many_are_done_in_parts():
    x = np.random.default_rng(0).integers(0, 256, (2100, 8, 8, 3), np.uint8)
    found = Inception(size=8).center(x)
    # 7/8 of 8 are 7, but what is cut off is rounded down: nothing.
    np.testing.assert_array_equal(found, x)
    assert Inception(size=3).center(x[:0]).shape == (0, 3, 3, 3)


def test_the_middle_of_images_on_disk(tmp_path):
    """Of any sizes, and nothing is read for it."""
    images = directories.photographs(9)
    directory = directories.write(tmp_path, {"train": images})
    x = data.get("imagenette").read("train", str(tmp_path)).x
    made = Inception(size=6)
    found = made.center(x)
    assert found.shape == (9, 6, 6, 3)
    one_by_one = [made.center(image[None])[0] for image in images]
    np.testing.assert_array_equal(found[[8, 2]], [one_by_one[i] for i in (8, 2)])
    np.testing.assert_array_equal(found, one_by_one)
    for path in directory.glob("*.array_record*"):
        path.unlink()
    assert made.center(x[3:]).shape == (6, 6, 6, 3)


# What cannot be.


@pytest.mark.parametrize("size", [0, -3])
def test_no_size(size):
    with pytest.raises(ValueError, match=f"`size` must be at least 1; received {size}"):
        Inception(size=size)


def test_images_without_colours():
    made = Inception(size=4)
    with pytest.raises(ValueError, match="needs images with 3 channels; received 1"):
        made.center(np.zeros((2, 8, 8, 1), np.uint8))
    assert made.output_shape((None, None, 3)) == (4, 4, 3)


def test_images_that_are_no_pixels():
    made, image = Inception(size=4), np.zeros((8, 8, 3), np.float32)
    for call in (
        lambda: made.center(image[None]),
        lambda: made.random_one(image, (1, 2)),
    ):
        with pytest.raises(ValueError, match="as pixels, uint8; received float32"):
            call()
