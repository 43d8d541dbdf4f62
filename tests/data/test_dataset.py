import dataclasses

import numpy as np
import pytest

from tfadv import data
from tfadv.data import Dataset, Images, Source
from tfadv.errors import UsageError

TRAIN, TEST = 20, 6


def read(split, data_dir):
    """Images 4x6; training labels 0 .. 19, test labels 100 .. 105."""
    if data_dir != "somewhere":
        raise AssertionError(data_dir)
    y = np.arange(TRAIN) if split == "train" else 100 + np.arange(TEST)
    pixels = np.arange(24).reshape(1, 4, 6, 1) + np.zeros([len(y), 1, 1, 1])
    return Images(x=pixels.astype(np.uint8), y=y.astype(np.int32))


SOURCE = Source(
    image_shape=(4, 6, 1),
    num_classes=10,
    sizes={"train": TRAIN, "test": TEST},
    read=read,
)


def dataset(**options):
    return Dataset(source=SOURCE, **options)


def trained_and_watched(holdout):
    made = dataset(holdout=holdout)
    trained = made.read_train("somewhere").y.tolist()
    return trained, made.read_watched(1000, "somewhere").y.tolist()


@pytest.mark.parametrize("holdout", [1, 2, 3, 7, 10, 13, TRAIN - 1])
def test_the_holdout_is_watched_and_never_trained_on(holdout):
    trained, watched = trained_and_watched(holdout)
    assert len(watched) == holdout
    assert sorted(trained + watched) == list(range(TRAIN))


def test_the_holdout_is_spread_over_the_split():
    """Four of twenty from the first to the last: gaps of 19 / 3, cut to integers."""
    assert trained_and_watched(4)[1] == [0, 6, 12, 19]


def test_a_large_holdout_is_complete():
    """No two of the evenly spread positions fall on the same image."""
    made = Dataset(source=data.get("mnist"), holdout=59_999)
    assert made._held_out(60_000).sum() == 59_999
    made = Dataset(source=data.get("mnist"), holdout=5000)
    positions = np.flatnonzero(made._held_out(60_000))
    assert len(positions) == 5000
    # 59,999 / 4,999 = 12.002 apart.
    assert set(np.diff(positions)) == {12, 13}


def test_without_holdout_test_images_are_watched():
    trained, watched = trained_and_watched(0)
    assert trained == list(range(TRAIN))
    assert watched == [100, 101, 102, 103, 104, 105]


@pytest.mark.parametrize("holdout, expected", [(0, [100, 101]), (4, [0, 6])])
def test_no_more_are_watched_than_asked_for(holdout, expected):
    watched = dataset(holdout=holdout).read_watched(2, "somewhere")
    assert watched.y.tolist() == expected and len(watched.x) == 2


@pytest.mark.parametrize("holdout, name", [(0, "test_subset"), (1, "holdout")])
def test_watched_name(holdout, name):
    assert dataset(holdout=holdout).watched_name == name


@pytest.mark.parametrize("holdout", [0, 4])
def test_only_training_sees_whole_images(holdout):
    """The centre 2x2 of 4x6: rows 1 and 2, columns 2 and 3, 6 pixels a row."""
    made = dataset(crop=2, flip=True, holdout=holdout)
    assert made.image_shape == (2, 2, 1)
    assert made.read_train("somewhere").x.shape == (TRAIN - holdout, 4, 6, 1)
    for images, count in (
        (made.read_test("somewhere"), TEST),
        (made.read_all_train("somewhere"), TRAIN),
        (made.read_watched(3, "somewhere"), 3),
    ):
        assert images.x.shape == (count, 2, 2, 1) and len(images.y) == count
        assert np.all(images.x[..., 0] == [[8, 9], [14, 15]])


def test_test_and_all_training_images_keep_their_order():
    made = dataset(holdout=4)
    assert made.read_test("somewhere").y.tolist() == list(range(100, 106))
    assert made.read_all_train("somewhere").y.tolist() == list(range(TRAIN))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"crop": 5}, "`crop` must be at most the image's side, 4; received 5"),
        ({"crop": 0}, "`crop` must be at least 1"),
        ({"pad": -1}, "`pad` must be at least 0"),
        ({"holdout": TRAIN}, "`holdout` must be from 0 to 19; received 20"),
        ({"holdout": -1}, "`holdout` must be from 0 to 19; received -1"),
    ],
)
def test_impossible_requests_fail_before_anything_is_read(options, message):
    with pytest.raises(ValueError, match=message):
        dataset(**options)


def test_images_take():
    images = read("train", "somewhere")
    assert len(images) == TRAIN
    taken = images.take(np.array([3, 1]))
    assert taken.y.tolist() == [3, 1] and taken.x.shape == (2, 4, 6, 1)
    assert images.take(slice(2)).y.tolist() == [0, 1]


@pytest.mark.parametrize("name", data.DATASETS)
def test_every_source_is_described(name):
    source = data.get(name)
    assert len(source.image_shape) == 3 and source.num_classes > 1
    assert set(source.sizes) == {"train", "test"} and source.licence
    assert dataclasses.is_dataclass(source)


def test_get_lists_the_names():
    with pytest.raises(UsageError, match=r"unknown data set 'cifar'.*Known: cifar10"):
        data.get("cifar")


def test_standardised_images_are_read_as_numbers_around_a_half():
    """Pixels 0 .. 23 have the mean 11.5: from -1 to 1 in steps of 2 / 23; then halved,
    so that they stay in [0, 1]. The crop comes after."""
    made = dataset(standardize=True, crop=4, holdout=3)
    expected = np.arange(24).reshape(4, 6)[:, 1:5] / 23
    for images in (
        made.read_test("somewhere"),
        made.read_all_train("somewhere"),
        made.read_watched(2, "somewhere"),
    ):
        assert images.x.dtype == np.float32
        for image in images.x:
            np.testing.assert_allclose(image[..., 0], expected, atol=1e-6)
    trained = made.read_train("somewhere")
    assert trained.x.shape == (TRAIN - 3, 4, 6, 1)
    np.testing.assert_allclose(trained.x[5].ravel(), np.arange(24) / 23, atol=1e-6)
    assert trained.y.tolist() == dataset(holdout=3).read_train("somewhere").y.tolist()


def test_standardised_images_are_read_in_parts():
    """Of 20 images in parts of 1,000 there is one; of 2,500 there are three."""
    n = 2500
    x = np.random.default_rng(0).integers(0, 256, (n, 2, 2, 1)).astype(np.uint8)
    source = dataclasses.replace(
        SOURCE, read=lambda split, data_dir: Images(x=x, y=np.zeros(n, np.int32))
    )
    found = Dataset(source=source, standardize=True).read_test().x
    s = x - x.mean((1, 2, 3), keepdims=True)
    s /= np.abs(s).max((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(found, (s + 1) / 2, atol=1e-6)
