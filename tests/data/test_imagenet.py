import io
import json
import re
import shutil
import tarfile
import types

import numpy as np
import pytest
import tensorflow_datasets as tfds
from absl import logging
from PIL import Image

from tests.data import directories
from tfadv import data
from tfadv.data import Dataset, imagenet
from tfadv.errors import RunError

NAMES = {
    "imagenet2012": "imagenet2012",
    "imagenette": "imagenette/320px-v2",
    "imagenet_resized_32x32": "imagenet_resized/32x32",
    "imagenet_resized_64x64": "imagenet_resized/64x64",
}
TRAIN, TEST = directories.photographs(11), directories.photographs(5, seed=1)


@pytest.mark.parametrize("name", NAMES)
def test_a_source_knows_what_tfds_delivers(name, tmp_path):
    features = tfds.builder(NAMES[name], data_dir=str(tmp_path)).info.features
    source = data.get(name)
    assert source.on_disk and not source.ordered
    assert source.image_shape == features["image"].shape
    assert source.num_classes == features["label"].num_classes


def test_sizes_as_published():
    """Kurakin et al. 2017, section 4: 1,281,167 and 50,000 images of 1,000 classes."""
    for name in set(NAMES) - {"imagenette"}:
        source = data.get(name)
        assert source.sizes == {"train": 1_281_167, "test": 50_000}
        assert source.num_classes == 1000
    assert data.get("imagenette").sizes == {"train": 9_469, "test": 3_925}


@pytest.fixture(params=["array_record", "tfrecord"])
def prepared(request, tmp_path):
    """(data_dir, directory of the files) of a tiny Imagenette."""
    splits = {"train": TRAIN, "validation": TEST}
    directory = directories.write(tmp_path, splits, file_format=request.param)
    return str(tmp_path), directory


def test_what_was_stored_is_read(prepared):
    """The test images are those that TFDS calls validation."""
    for split, images in (("train", TRAIN), ("test", TEST)):
        found = data.get("imagenette").read(split, prepared[0])
        assert len(found) == len(images)
        assert np.asarray(found.y).tolist() == [i % 10 for i in range(len(images))]
        for one, other in zip(found.x, images, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_data_set_of_it(prepared):
    """Middle squares of one size; the holdout is cut out unread."""
    made = Dataset(source=data.get("imagenette"), size=6, crop=4, flip=True, holdout=3)
    assert made.image_shape == (4, 4, 3)
    train = made.read_train(prepared[0])
    assert train.x.shape == (8, 6, 6, 3)
    squares = [data.on_disk.middle_square(image, 6).numpy() for image in TRAIN]
    # The holdout: 0, 5 and 10 of 11.
    assert train.source_index.tolist() == [1, 2, 3, 4, 6, 7, 8, 9]
    np.testing.assert_array_equal(train.x, [squares[i] for i in train.source_index])
    assert np.asarray(train.y).tolist() == train.source_index.tolist()
    watched = made.read_watched(2, prepared[0])
    expected = [squares[i][1:5, 1:5] for i in (0, 5)]
    np.testing.assert_array_equal(watched.x, expected)
    assert np.asarray(watched.y).tolist() == [0, 5]
    assert made.read_test(prepared[0]).x.shape == (5, 4, 4, 3)


def test_a_data_set_with_preprocessing(prepared):
    """To train on, images as they are; all others as the network is tested."""
    made = Dataset(source=data.get("imagenette"), size=7, preprocess="inception")
    assert made.image_shape == (7, 7, 3)
    train = made.read_train(prepared[0])
    assert train.x.shape == (11, None, None, 3)
    np.testing.assert_array_equal(train.x[4], TRAIN[4])
    for found, images in (
        (made.read_test(prepared[0]), TEST),
        (made.read_all_train(prepared[0]), TRAIN),
        (made.read_watched(3, prepared[0]), TEST[:3]),
    ):
        expected = [made.augment.center(image[None])[0] for image in images]
        np.testing.assert_array_equal(found.x, expected)
        assert np.asarray(found.y).tolist() == [i % 10 for i in range(len(images))]


def test_images_of_one_size(tmp_path):
    images = directories.photographs(6, sides=(32, 32))
    directories.write(
        tmp_path,
        {"train": images, "validation": images[4:]},
        name="imagenet_resized",
        config="32x32",
        version="0.1.0",
        sides=(32, 32),
    )
    made = Dataset(source=data.get("imagenet_resized_32x32"), crop=24)
    assert made.read_train(str(tmp_path)).x.shape == (6, 32, 32, 3)
    test = made.read_test(str(tmp_path))
    np.testing.assert_array_equal(test.x, [image[4:28, 4:28] for image in images[4:]])


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_data_set_says_how_to_get_it(name, tmp_path):
    with pytest.raises(RunError) as caught:
        data.get(name).read("train", str(tmp_path))
    message = str(caught.value)
    options = f"--file_format=array_record --data_dir={tmp_path}"
    assert f"run: tfds build {NAMES[name]} {options}  (or" in message
    assert "\n" not in message and list(tmp_path.iterdir()) == []
    # Where the command of TFDS lacks a module, this line does the same.
    (code,) = re.findall(r'python -c "(.*?)"', message)
    called = []
    fake = types.SimpleNamespace(
        builder=lambda *args, **kwargs: types.SimpleNamespace(
            download_and_prepare=lambda: called.append((args, kwargs))
        )
    )
    exec(code.replace("import tensorflow_datasets as tfds; ", ""), {"tfds": fake})
    given = {"file_format": "array_record", "data_dir": str(tmp_path)}
    assert called == [((NAMES[name],), given)]


def test_a_missing_data_set_without_a_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path))
    with pytest.raises(RunError) as caught:
        data.get("imagenette").read("test", None)
    assert "--data_dir=" not in str(caught.value)
    assert "tfds.builder('imagenette/320px-v2', file_format=" in str(caught.value)


def archives(folder, names):
    """The archives of ImageNet with two classes of two images; three to validate."""

    def add(archive, name, content):
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))

    def picture(value):
        content = io.BytesIO()
        Image.new("RGB", (9 + value % 3, 8), (value, value, value)).save(
            content, "JPEG", quality=95
        )
        return content.getvalue()

    folder.mkdir(parents=True)
    with tarfile.open(folder / "ILSVRC2012_img_train.tar", "w") as train:
        for label in (0, 7):
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as images:
                for i in (1, 2):
                    add(images, f"{names[label]}_{i}.JPEG", picture(20 * label + i))
            add(train, f"{names[label]}.tar", inner.getvalue())
    with tarfile.open(folder / "ILSVRC2012_img_val.tar", "w") as test:
        for i in range(3):
            add(test, f"ILSVRC2012_val_{i + 1:08d}.JPEG", picture(50 * i))


def test_imagenet_from_its_archives(tmp_path, capfd):
    """The message names the archives and the folder in which TFDS finds them."""
    source = data.get("imagenet2012")
    with pytest.raises(RunError, match="It cannot be fetched: put") as caught:
        source.read("train", str(tmp_path))
    message = str(caught.value)
    assert "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar" in message
    assert "https://image-net.org" in message
    (folder,) = re.findall(rf"into ({re.escape(str(tmp_path))}\S+) and run", message)
    builder = tfds.builder(
        "imagenet2012", data_dir=str(tmp_path), file_format="array_record"
    )
    archives(tmp_path / folder, builder.info.features["label"].names)
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    builder.download_and_prepare(download_config=config)
    capfd.readouterr()
    train = source.read("train", str(tmp_path))
    found = {
        (int(y), round(float(x.mean()))) for x, y in zip(train.x, train.y, strict=True)
    }
    assert found == {(0, 1), (0, 2), (7, 141), (7, 142)}
    test = source.read("test", str(tmp_path))
    assert sorted(round(float(x.mean())) for x in test.x) == [0, 50, 100]
    assert {x.shape for x in test.x} == {(8, 9, 3), (8, 11, 3), (8, 10, 3)}


@pytest.fixture
def lines(monkeypatch, caplog):
    """What is logged of other formats."""
    monkeypatch.setattr(logging.get_absl_logger(), "propagate", True)
    with caplog.at_level("INFO", logger="absl"):
        yield lambda: [line for line in caplog.messages if "convert_format" in line]


def test_many_images_in_slower_files_say_how_to_get_others(
    prepared, lines, monkeypatch
):
    data_dir, directory = prepared
    data.get("imagenette").read("train", data_dir)
    assert not lines()
    monkeypatch.setattr(imagenet, "MANY", 11)
    data.get("imagenette").read("train", data_dir)
    if "array_record" in next(directory.glob("*train*")).name:
        assert not lines()
    else:
        assert lines() == [
            "imagenette/320px-v2 train: looking for 11 images in 3 files in tfrecord "
            "format; others open at once: tfds convert_format "
            f"--dataset_version_dir={directory} --out_file_format=array_record"
        ]


def test_of_two_formats_the_quicker_is_read(tmp_path, lines, monkeypatch):
    """As `tfds convert_format` leaves them: side by side, the older in the info."""
    monkeypatch.setattr(imagenet, "MANY", 11)
    splits = {"train": TRAIN, "validation": TEST}
    old = directories.write(tmp_path / "old", splits, file_format="tfrecord")
    new = directories.write(tmp_path / "new", splits, file_format="array_record")
    for path in new.glob("*.array_record*"):
        shutil.copy(path, old)
    found = data.get("imagenette").read("train", str(tmp_path / "old"))
    np.testing.assert_array_equal(found.x[5], TRAIN[5])
    assert not lines()
    # Of one that is not complete nothing is read.
    next(old.glob("*train.array_record*")).unlink()
    for path in old.glob("*train.array_record*"):
        path.write_bytes(b"")
    found = data.get("imagenette").read("train", str(tmp_path / "old"))
    np.testing.assert_array_equal(found.x[5], TRAIN[5])
    assert lines()


def test_a_format_that_cannot_be_read_at_random(tmp_path):
    directory = directories.write(tmp_path, {"train": TRAIN})
    for path in directory.glob("*.array_record*"):
        path.rename(directory / path.name.replace("array_record", "riegeli"))
    change_info(directory, lambda info: info.update(fileFormat="riegeli"))
    convert = f"tfds convert_format --dataset_version_dir={directory} --out_file_format"
    with pytest.raises(RunError, match="has files in riegeli format, which") as caught:
        data.get("imagenette").read("train", str(tmp_path))
    assert f"{convert}=array_record" in str(caught.value)


def change_info(directory, change):
    path = directory / "dataset_info.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))


def promise(shards):
    return lambda directory: change_info(
        directory, lambda info: info["splits"][0].update(shardLengths=shards)
    )


def last(change):
    return lambda directory: change(sorted(directory.glob("*train*"))[-1])


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-20])


DAMAGES = {
    "a file is missing": (last(lambda path: path.unlink()), "1 files are missing"),
    "a file is empty": (last(lambda path: path.write_bytes(b"")), ""),
    "a file is cut off": (last(cut_off), ""),
    "more images": (promise(["4", "4", "4"]), "has 3 of 4 examples"),
    "more files": (promise(["4", "4", "3", "1"]), "1 files are missing"),
    "no images": (promise([]), "there is no split 'train'"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged(prepared, damage):
    data_dir, directory = prepared
    spoil, reason = DAMAGES[damage]
    spoil(directory)
    with pytest.raises(RunError) as caught:
        data.get("imagenette").read("train", data_dir)
    message = str(caught.value)
    assert f"in {directory} is damaged or incomplete: {reason}" in re.sub(
        r"incomplete: \S+ has", "incomplete: has", message
    )
    assert message.endswith("Delete that folder and prepare it again.")
    assert "\n" not in message
    # The other split is whole.
    assert len(data.get("imagenette").read("test", data_dir)) == 5


def test_a_split_that_was_not_prepared(tmp_path):
    """As where only the one archive of ImageNet was there."""
    directories.write(tmp_path, {"train": TRAIN})
    assert len(data.get("imagenette").read("train", str(tmp_path))) == 11
    with pytest.raises(RunError, match="there is no split 'validation'"):
        data.get("imagenette").read("test", str(tmp_path))


def test_damaged_metadata(prepared):
    data_dir, directory = prepared
    (directory / "dataset_info.json").write_text("{")
    with pytest.raises(RunError, match="imagenette/320px-v2: TFDS cannot") as caught:
        data.get("imagenette").read("train", data_dir)
    assert "\n" not in str(caught.value)


def test_photographs_are_compressed(tmp_path):
    """As they are published: JPEG, which comes close to smooth pictures."""
    rows, columns = np.mgrid[:24, :30]
    picture = np.stack([8 * rows, 7 * columns, 60 + rows + columns], 2).astype(np.uint8)
    directories.write(tmp_path, {"train": [picture]}, encoding="jpeg")
    found = data.get("imagenette").read("train", str(tmp_path)).x[0]
    np.testing.assert_allclose(found.astype(int), picture, atol=12)
