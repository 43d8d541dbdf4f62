import json
import weakref

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from tfadv import data
from tfadv.data import tfds as source
from tfadv.errors import RunError

NAMES = ["mnist", "cifar10", "cifar100", "svhn_cropped"]


def shape(n):
    return (n, 28, 28, 1)


@pytest.fixture
def prepared(tmp_path, capfd):
    """A tiny MNIST in tmp_path: image i of `train` is i everywhere, with label i % 10.

    20 images in `train`, 10 in `test`. Returns (data_dir, directory of the files).
    """

    def split(n):
        x = np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None, None], shape(n))
        return tf.data.Dataset.from_tensor_slices(
            {"image": x, "label": np.arange(n) % 10}
        )

    tfds.dataset_builders.store_as_tfds_dataset(
        "mnist",
        version="3.0.1",
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=shape(1)[1:]),
                "label": tfds.features.ClassLabel(num_classes=10),
            }
        ),
        split_datasets={"train": split(20), "test": split(10)},
        data_dir=str(tmp_path),
    )
    capfd.readouterr()
    return str(tmp_path), tmp_path / "mnist" / "3.0.1"


@pytest.mark.parametrize("name", NAMES)
def test_a_source_knows_what_tfds_delivers(name):
    expected = data.get(name)
    with tfds.testing.mock_data(num_examples=3):
        images = expected.read("train", None)
    assert images.x.shape == (3, *expected.image_shape)
    assert images.x.dtype == np.uint8
    assert images.y.shape == (3,) and images.y.dtype == np.int32
    assert np.all((images.y >= 0) & (images.y < expected.num_classes))


@pytest.mark.parametrize("name", NAMES)
def test_a_source_knows_the_number_of_classes(name, tmp_path):
    info = tfds.builder(name, data_dir=str(tmp_path)).info
    assert data.get(name).num_classes == info.features["label"].num_classes
    assert data.get(name).image_shape == info.features["image"].shape


def test_what_was_stored_is_read(prepared):
    data_dir, _ = prepared
    train, test = (source.read("mnist", split, data_dir) for split in ("train", "test"))
    assert train.x.shape == shape(20) and test.x.shape == shape(10)
    for images in (train, test):
        np.testing.assert_array_equal(images.x.min((1, 2, 3)), images.x.max((1, 2, 3)))
        values = images.x[:, 0, 0, 0]
        assert sorted(values) == list(range(len(images)))
        np.testing.assert_array_equal(images.y, values % 10)


def test_the_order_is_always_the_same(prepared):
    data_dir, _ = prepared
    first, second = (source.read("mnist", "train", data_dir) for _ in range(2))
    np.testing.assert_array_equal(first.y, second.y)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_data_set_says_how_to_get_it(name, tmp_path):
    with pytest.raises(RunError) as caught:
        source.read(name, "train", str(tmp_path))
    message = str(caught.value)
    assert f"tfds build {name} --data_dir={tmp_path}" in message
    assert "\n" not in message
    # Nothing was fetched or made on the way.
    assert list(tmp_path.iterdir()) == []


def half(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def emptied(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [half, flipped, emptied, lambda path: path.unlink()])
def test_damaged_records(prepared, damage):
    data_dir, directory = prepared
    (records,) = directory.glob("*train.tfrecord*")
    damage(records)
    with pytest.raises(RunError) as caught:
        source.read("mnist", "train", data_dir)
    message = str(caught.value)
    assert str(directory) in message and "incomplete" in message
    assert "\n" not in message
    # The other split is whole.
    assert len(source.read("mnist", "test", data_dir)) == 10


@pytest.mark.parametrize("positions", [None, np.array([0, 3])])
@pytest.mark.parametrize("promised", [21, 19])
def test_another_number_of_examples_than_promised(prepared, promised, positions):
    data_dir, directory = prepared
    path = directory / "dataset_info.json"
    info = json.loads(path.read_text())
    (train,) = (split for split in info["splits"] if split["name"] == "train")
    train["shardLengths"] = [str(promised)]
    path.write_text(json.dumps(info))
    with pytest.raises(RunError, match="incomplete"):
        source.read("mnist", "train", data_dir, positions)


def test_damaged_metadata(prepared):
    data_dir, directory = prepared
    half(directory / "dataset_info.json")
    with pytest.raises(RunError) as caught:
        source.read("mnist", "train", data_dir)
    assert "data set mnist" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("positions", [[0, 3, 4, 19], [7], list(range(20)), []])
def test_some_positions_of_a_split(prepared, positions):
    data_dir, _ = prepared
    whole = source.read("mnist", "train", data_dir)
    found = source.read("mnist", "train", data_dir, np.array(positions, int))
    expected = whole.take(np.array(positions, int))
    np.testing.assert_array_equal(found.x, expected.x)
    np.testing.assert_array_equal(found.y, expected.y)
    assert found.y.dtype == np.int32 and found.source_index.tolist() == positions


def test_a_position_that_is_not_there(prepared):
    data_dir, _ = prepared
    with pytest.raises(RunError, match="incomplete: 20 of 21 train examples"):
        source.read("mnist", "train", data_dir, np.array([3, 20]))


def test_a_source_with_more_images_takes_positions():
    with tfds.testing.mock_data(num_examples=5):
        images = data.get("svhn_cropped").read("extra", None, np.array([1, 4]))
        with pytest.raises(RunError, match="incomplete: 5 of 6 extra examples"):
            data.get("svhn_cropped").read("extra", None, np.array([5]))
    assert images.x.shape == (2, 32, 32, 3)


def test_what_is_not_kept_is_gone_before_more_is_read():
    """Eight examples in batches of 3, 3 and 2, of which the second has none."""
    arrays = []

    def batch(start, end):
        values = np.arange(start, end)
        arrays.append(weakref.ref(values))
        return {"image": values, "label": values + 10}

    def batches():
        for start, end in ((0, 3), (3, 6), (6, 8)):
            yield batch(start, end)
            assert arrays[-1]() is None

    count, kept = source._kept(batches(), np.array([1, 2, 7]))
    assert count == 8 and len(arrays) == 3
    assert [part["image"].tolist() for part in kept] == [[1, 2], [], [7]]
    assert [part["label"].tolist() for part in kept] == [[11, 12], [], [17]]


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_real_data(data_dir, name):
    """The standard splits: as many images of every class as the papers say."""
    expected = data.get(name)
    test = expected.read("test", data_dir)
    assert test.x.shape == (10_000, *expected.image_shape)
    assert sorted(set(test.y)) == list(range(10))
    assert (test.x.min(), test.x.max()) == (0, 255)
    if name == "mnist":
        # Published: 980 zeros, 1,135 ones, ... in t10k.
        counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    else:
        counts = [1000] * 10
    assert np.bincount(test.y).tolist() == counts


@pytest.mark.parametrize("name, count", [("mnist", 60_000), ("cifar10", 50_000)])
def test_real_training_data(data_dir, name, count):
    train = data.get(name).read("train", data_dir)
    assert train.x.shape == (count, *data.get(name).image_shape)
    assert len(train.y) == count == data.get(name).sizes["train"]
