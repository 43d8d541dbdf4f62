import hashlib

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tfadv.data import digits


@pytest.fixture(scope="module")
def splits():
    return {split: digits.read(split) for split in ("train", "test")}


def pairs(images):
    """Every image with its label as bytes, to compare sets of them."""
    return [x.tobytes() + bytes([y]) for x, y in zip(images.x, images.y, strict=True)]


def test_sizes_and_types(splits):
    assert {split: len(images) for split, images in splits.items()} == {
        "train": 1347,
        "test": 450,
    }
    assert digits.DIGITS.sizes == {"train": 1347, "test": 450}
    for images in splits.values():
        assert images.x.shape == (len(images), *digits.DIGITS.image_shape)
        assert images.x.dtype == np.uint8 and images.y.dtype == np.int32
        assert sorted(set(images.y)) == list(range(digits.DIGITS.num_classes))


def test_the_splits_are_disjoint_and_together_everything(splits):
    """As images of 0..16 stretched to 0..255; sklearn's set holds no image twice."""
    x, y = load_digits(return_X_y=True)
    stretched = [[round(v * 255 / 16) for v in image] for image in x]
    everything = {bytes(i) + bytes([c]) for i, c in zip(stretched, y, strict=True)}
    assert len(everything) == 1797
    train, test = pairs(splits["train"]), pairs(splits["test"])
    assert len(train) + len(test) == 1797
    assert set(train) | set(test) == everything


def test_every_class_has_its_share_of_the_test_images(splits):
    _, y = load_digits(return_X_y=True)
    share = np.bincount(y) * 450 / 1797
    assert np.all(np.abs(np.bincount(splits["test"].y) - share) < 1)


def test_pixels_use_the_whole_range(splits):
    assert (splits["train"].x.min(), splits["train"].x.max()) == (0, 255)


def test_the_split_is_the_same_everywhere(splits):
    """Guards results against a library that shuffles or splits otherwise one day."""
    digest = hashlib.sha256()
    for split in ("train", "test"):
        for image in pairs(splits[split]):
            digest.update(image)
    assert (
        digest.hexdigest()
        == "3bfcfe6e979644b76175c0240fec6990468cd09d08a53b722a77d606aa5b027c"
    )


def test_data_dir_is_not_used(splits):
    again = digits.read("test", "/nowhere")
    np.testing.assert_array_equal(again.x, splits["test"].x)
