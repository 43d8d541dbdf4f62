import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from absl import logging
from PIL import Image

from tfadv.data import Augment, ImageFiles, Images, files, pipeline
from tfadv.errors import RunError

N, SHAPE = 12, (6, 8, 3)
RANDOM = np.random.default_rng(0)
X = RANDOM.integers(0, 256, (N, *SHAPE), np.uint8)


def save(x, path):
    """Without loss."""
    Image.fromarray(x[..., 0] if x.shape[-1] == 1 else x).save(path, "PNG")
    return path


@pytest.fixture
def paths(tmp_path):
    """`X` in files."""
    return [save(x, tmp_path / f"{i}.png") for i, x in enumerate(X)]


@pytest.fixture
def on_disk(paths):
    return ImageFiles(paths, SHAPE)


INDICES = [
    np.s_[:],
    np.s_[3:7],
    np.s_[::-2],
    np.s_[20:],
    np.s_[-3:],
    np.array([5, 0, 5]),
    [7, 2],
    np.array([], int),
    X[:, 0, 0, 0] > 100,
    np.s_[:, 1:5],
    np.s_[2:4, 1:5, 3:],
    np.s_[[1, 9], :, -4:-1],
    np.s_[:, 4:2],
    np.s_[:, 2:100],
]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_an_index_gives_what_it_gives_of_an_array(on_disk, index):
    found = on_disk[index]
    assert isinstance(found, ImageFiles)
    assert found.shape == X[index].shape and len(found) == len(X[index])
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(np.asarray(found), X[index])
    # And what is found is unchanged by it.
    np.testing.assert_array_equal(np.asarray(on_disk), X)


def test_an_index_of_an_index(on_disk):
    found, expected = on_disk, X
    for index in (
        np.s_[1:11, 1:, :7],
        np.s_[::2],
        np.s_[[3, 1], 1:4, 2:],
        np.s_[:, 1:],
    ):
        found, expected = found[index], expected[index]
        assert found.shape == expected.shape
    assert found.shape == (2, 2, 5, 3)
    np.testing.assert_array_equal(np.asarray(found), expected)


@pytest.mark.parametrize("i", [0, 5, -1, np.int64(3)])
def test_a_number_gives_that_image(on_disk, i):
    found = on_disk[i]
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, X[i])
    np.testing.assert_array_equal(on_disk[i, 1:3], X[i, 1:3])


def test_one_after_the_other(on_disk):
    assert [image.sum() for image in on_disk] == [image.sum() for image in X]


def test_only_what_is_asked_for_is_read(paths, on_disk):
    """All the others are gone."""
    for i, path in enumerate(paths):
        if i not in (4, 7):
            path.unlink()
    mask = np.isin(np.arange(N), (4, 7))
    images = Images(x=on_disk, y=np.arange(N, dtype=np.int32)).take(slice(2, 9))
    chosen = images.take(mask[2:9])
    assert chosen.y.tolist() == chosen.source_index.tolist() == [4, 7]
    np.testing.assert_array_equal(chosen.x, X[[4, 7]])


def test_they_become_tensors(on_disk):
    for convert in (tf.constant, tf.convert_to_tensor):
        found = convert(on_disk[2:5])
        assert found.dtype == tf.uint8
        np.testing.assert_array_equal(found, X[2:5])
    floats = pipeline.to_float(on_disk[:3])
    np.testing.assert_array_equal(floats, X[:3].astype(np.float32) / np.float32(255))


def test_they_become_arrays_of_any_type(on_disk):
    found = np.asarray(on_disk, np.float64)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, X)
    with pytest.raises(ValueError, match="no array to share"):
        np.array(on_disk, copy=False)


@pytest.mark.parametrize("crop", [None, 3, 4])
def test_the_centre_crop_is_cut_from_them(on_disk, crop):
    augment = Augment(crop=crop)
    found = augment.center(on_disk)
    assert isinstance(found, ImageFiles)
    np.testing.assert_array_equal(found, augment.center(X))


@pytest.mark.parametrize("index", [np.s_[:, ::2], np.s_[:, 1], np.s_[:, :, :, :1]])
def test_other_indices_are_refused(on_disk, index):
    with pytest.raises(IndexError, match="by images, then by slices of rows"):
        on_disk[index]


def test_hundreds_keep_their_order(tmp_path):
    """They are decoded several at once."""
    x = np.arange(256, dtype=np.uint8)[:, None, None, None] + np.zeros(
        (1, 2, 2, 3), np.uint8
    )
    names = [save(image, tmp_path / f"{i}.png") for i, image in enumerate(x)]
    found = ImageFiles(names, (2, 2, 3))[::-1]
    np.testing.assert_array_equal(found, x[::-1])


# Decoding.


def row(*values):
    """[1, n, 1]: grey pixels."""
    return np.array(values, np.uint8).reshape(1, -1, 1)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        # Twice as wide: the middles of the new pixels lie at -1/4, 1/4, 3/4 and 5/4.
        (row(0, 100), [0, 25, 75, 100]),
        # 0.75 and 2.25 are rounded, not cut off.
        (row(0, 3), [0, 1, 2, 3]),
        # Four times narrower: at 1.5, 5.5, 9.5 and 13.5, between two of four pixels.
        (row(*[9, 10, 20, 9] * 3, 255, 0, 0, 255), [15, 15, 15, 0]),
        # As wide: unchanged.
        (row(1, 254, 3, 77), [1, 254, 3, 77]),
    ],
)
@pytest.mark.parametrize("upright", [False, True])
def test_images_are_stretched_by_interpolation(tmp_path, stored, expected, upright):
    expected = row(*expected)
    if upright:
        stored, expected = (x.transpose(1, 0, 2) for x in (stored, expected))
    path = save(stored, tmp_path / "it.png")
    np.testing.assert_array_equal(ImageFiles([path], expected.shape)[0], expected)


def test_colours_and_grey(tmp_path):
    grey = save(X[0, :, :, 0], tmp_path / "grey.png")
    opaque = np.concatenate([X[0], np.full((6, 8, 1), 7, np.uint8)], axis=2)
    color = save(opaque, tmp_path / "opaque.png")
    found = ImageFiles([grey, color], SHAPE)
    np.testing.assert_array_equal(found[0], X[0, :, :, :1].repeat(3, axis=2))
    np.testing.assert_array_equal(found[1], X[0])
    one = ImageFiles([grey], (6, 8, 1))
    assert one.shape == (1, 6, 8, 1)
    np.testing.assert_array_equal(one[0], X[0, :, :, :1])


def test_jpeg_whatever_it_is_called(tmp_path):
    """As Pillow decodes it, of noise in 4x4 blocks."""
    x = X[0].repeat(4, axis=0).repeat(4, axis=1)
    Image.fromarray(x).save(tmp_path / "it.png", "JPEG", quality=90)
    with Image.open(tmp_path / "it.png") as image:
        assert image.format == "JPEG"
        expected = np.asarray(image).astype(int)
    found = ImageFiles([tmp_path / "it.png"], (24, 32, 3))[0]
    np.testing.assert_allclose(found.astype(int), expected, atol=1)


@pytest.mark.parametrize("spoil", [os.remove, lambda path: path.write_bytes(b"x" * 50)])
def test_an_image_that_is_lost_later_is_named(paths, on_disk, spoil):
    spoil(paths[7])
    np.testing.assert_array_equal(on_disk[:7], X[:7])
    with pytest.raises(RunError, match=r"/7\.png cannot be read as an image any more"):
        np.asarray(on_disk)


# Looking at them before.


@pytest.fixture
def lines(monkeypatch, caplog):
    """What is logged."""
    monkeypatch.setattr(logging.get_absl_logger(), "propagate", True)
    with caplog.at_level("INFO", logger="absl"):
        yield lambda: caplog.messages


def readable(paths):
    return files.readable(paths, what="some train", advice="Get them.").tolist()


def cut_off(path):
    content = pathlib.Path(path).read_bytes()
    pathlib.Path(path).write_bytes(content[: len(content) // 2])


def to_cut_off_jpeg(path):
    Image.fromarray(X[0].repeat(8, 0).repeat(8, 1)).save(path, "JPEG")
    cut_off(path)


def to_directory(path):
    path.unlink()
    path.mkdir()


DAMAGES = {
    "removed": (os.remove, "missing"),
    "a directory": (to_directory, "missing"),
    "cut off": (cut_off, "damaged"),
    "a JPEG cut off": (to_cut_off_jpeg, "damaged"),
    "empty": (lambda path: path.write_bytes(b""), "damaged"),
    "a text": (lambda path: path.write_text("Not found\n" * 9), "damaged"),
}


def test_whole_files_are_readable(paths, lines):
    assert readable(paths) == [True] * N
    assert readable([]) == []
    assert not lines()


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_cannot_be_read_is_counted_and_named(paths, lines, damage):
    spoil, reason = DAMAGES[damage]
    spoil(paths[3])
    assert readable(paths) == [i != 3 for i in range(N)]
    assert lines() == [
        f"some train: 1 of 12 images cannot be read (1 {reason}): {paths[3]}. "
        "They are left out."
    ]


def test_reasons_are_counted_apart(paths, lines):
    paths[2].unlink()
    cut_off(paths[9])
    assert readable(paths) == [i not in (2, 9) for i in range(N)]
    assert lines() == [
        "some train: 2 of 12 images cannot be read (1 missing, 1 damaged): "
        f"{paths[2]}, {paths[9]}. They are left out."
    ]


def test_more_than_two_of_a_few_are_too_many(paths):
    for i in (1, 2, 4, 5):
        paths[i].unlink()
    with pytest.raises(RunError) as caught:
        readable(paths)
    assert str(caught.value) == (
        "some train: 4 of 12 images cannot be read (4 missing): "
        f"{paths[1]}, {paths[2]}, {paths[4]}, .... Get them."
    )


@pytest.mark.parametrize(("lost", "fails"), [(2, False), (3, False), (4, True)])
def test_more_than_one_percent_of_many_are_too_many(paths, tmp_path, lost, fails):
    """Of 300 images 3 may be missing."""
    many = [paths[i % N] for i in range(300)]
    many[50 : 50 + lost] = [tmp_path / f"no_{i}.png" for i in range(lost)]
    if fails:
        with pytest.raises(RunError, match="4 of 300 images cannot be read"):
            readable(many)
    else:
        assert readable(many).count(False) == lost


@pytest.fixture
def decoded(monkeypatch):
    """The names of the files of each look."""
    seen, decodable = [], files._decodable

    def note(paths, what):
        seen.append([pathlib.Path(path).name for path in paths])
        return decodable(paths, what)

    monkeypatch.setattr(files, "_decodable", note)
    return seen


def test_every_file_is_looked_at_once(paths, decoded):
    cut_off(paths[1])
    expected = [i != 1 for i in range(N)]
    assert readable(paths) == readable(paths) == expected
    assert readable(paths[:2]) == [True, False]
    assert decoded == [[f"{i}.png" for i in range(N)], [], []]


def test_a_file_that_has_changed_is_looked_at_again(paths, decoded):
    cut_off(paths[1])
    assert readable(paths[:3]) == [True, False, True]
    save(X[1], paths[1])
    cut_off(paths[2])
    assert readable(paths[:3]) == [True, True, False]
    paths[0].unlink()
    assert readable(paths[:3]) == [False, True, False]
    assert decoded[1:] == [["1.png", "2.png"], []]


def test_nothing_is_written_beside_them(paths):
    folder = paths[0].parent
    before = {path: path.stat().st_mtime_ns for path in (folder, *folder.iterdir())}
    readable(paths)
    np.asarray(ImageFiles(paths, SHAPE))
    after = {path: path.stat().st_mtime_ns for path in (folder, *folder.iterdir())}
    assert after == before


def test_a_long_look_says_how_far_it_is(paths, lines, monkeypatch):
    """Ten seconds an image by the clock: a line after two."""
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr(files.time, "monotonic", lambda: float(next(clock)))
    assert readable(paths) == [True] * N
    # Two of twelve after 20 seconds, then four after 40: ten a file.
    assert lines()[:2] == [
        "checking some train: 2 of 12 images, 100 s left",
        "checking some train: 4 of 12 images, 80 s left",
    ]
    assert len(lines()) == 6
