import numpy as np
import pytest
import tensorflow as tf

from tests.data import directories
from tfadv.data import ImageFiles, Images, on_disk
from tfadv.data.on_disk import middle_square


def place(h, w):
    """Pixels that say where they are: row, column, and 7."""
    x = np.full((h, w, 3), 7, np.uint8)
    x[..., 0], x[..., 1] = np.mgrid[:h, :w]
    return x


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    ("h", "w", "size", "rows", "columns"),
    [
        (4, 4, 4, [0, 1, 2, 3], [0, 1, 2, 3]),
        # The middle columns 2 .. 5 of 8, the middle rows 2 .. 4 of 8.
        (4, 8, 4, [0, 1, 2, 3], [2, 3, 4, 5]),
        (8, 3, 3, [2, 3, 4], [0, 1, 2]),
        # Half way between rows 1 and 2, 4 and 5, 7 and 8; the same from column 3 on.
        (9, 15, 3, [1, 4, 7], [4, 7, 10]),
        # Twice as wide: 1 + 1/4 is 1, 1 + 3/4 is 2.
        (2, 4, 4, [0, 0, 1, 1], [1, 1, 2, 2]),
    ],
)
def test_middle_square(h, w, size, rows, columns, compiled):
    function = tf.function(middle_square) if compiled else middle_square
    found = function(tf.constant(place(h, w)), size)
    assert found.dtype == tf.uint8
    expected = np.full((size, size, 3), 7)
    expected[..., 0], expected[..., 1] = np.array(rows)[:, None], columns
    np.testing.assert_array_equal(found, expected)


@pytest.fixture
def files(tmp_path):
    """Five images of noise, 6 x 8, in files; and the images."""
    images = np.stack(directories.photographs(5, sides=(6, 8)))
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for image, path in zip(images, paths, strict=True):
        tf.io.write_file(str(path), tf.io.encode_png(image))
    return ImageFiles(paths, (6, 8, 3)), images


def turned(image):
    return tf.transpose(255 - image, (1, 0, 2))


def test_map_changes_each_image(files):
    found, images = files
    changed = found.map(turned, (8, 6, 3))
    expected = 255 - images.transpose(0, 2, 1, 3)
    assert changed.shape == (5, 8, 6, 3) and changed.dtype == np.uint8
    np.testing.assert_array_equal(changed, expected)
    np.testing.assert_array_equal(changed[3], expected[3])
    # What it was made of is what it was.
    np.testing.assert_array_equal(found, images)


def test_map_of_a_window_and_a_window_of_map(files):
    found, images = files
    changed = found[1:4, 2:, :5].map(turned, (5, 4, 3))[[2, 0], 1:, :3]
    expected = (255 - images[1:4, 2:, :5].transpose(0, 2, 1, 3))[[2, 0], 1:, :3]
    assert changed.shape == expected.shape
    np.testing.assert_array_equal(changed, expected)
    again = changed.map(lambda image: image[::-1], expected.shape[1:])
    np.testing.assert_array_equal(again, expected[:, ::-1])


def test_a_mapped_image_is_loaded_with_its_shape(files):
    changed = files[0].map(turned, (8, 6, 3))[:, 2:]
    load = tf.function(changed.load)
    assert load(tf.constant(changed.keys[1])).shape == (6, 6, 3)
    np.testing.assert_array_equal(load(changed.keys[1]), changed[1])


def test_a_shape_that_is_not_what_map_gives(files):
    with pytest.raises(ValueError, match="must be equal, but are 6 and 8"):
        np.asarray(files[0].map(turned, (6, 8, 3)))


def test_images_know_their_number_unread(files):
    found, _ = files
    images = Images(x=found, y=np.arange(5, dtype=np.int32))
    for path in found.paths:
        tf.io.gfile.remove(path)
    taken = images.take(slice(1, 3)).take(np.array([False, True]))
    assert len(taken) == 1 and taken.x.paths[0] == found.paths[2]


def test_a_picture_is_decoded_as_pillow_does(tmp_path):
    """JPEG of a smooth picture, by the accurate transform."""
    from PIL import Image

    rows, columns = np.mgrid[:32, :40]
    x = np.stack([4 * rows, 5 * columns, 100 + rows + columns], 2).astype(np.uint8)
    Image.fromarray(x).save(tmp_path / "it.jpg", quality=95)
    with Image.open(tmp_path / "it.jpg") as image:
        expected = np.asarray(image).astype(int)
    found = on_disk.decode(tf.io.read_file(str(tmp_path / "it.jpg")), 3)
    np.testing.assert_allclose(found.numpy().astype(int), expected, atol=1)
