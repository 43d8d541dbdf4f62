import dataclasses
import itertools
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import logging

from tfadv import config, craft
from tfadv.attacks import core
from tfadv.data import Images, pipeline
from tfadv.errors import RunError
from tfadv.evaluation import suite, whitebox

EPS = (3 / 255, 8 / 255)


def entry(attack, eps=EPS):
    return suite.build(config.Evaluate(attacks=(attack,), eps=eps), where="here")[0]


def write(predict, images, attack, output, **changes):
    options = {"eps": EPS, "data": "some", "split": "test", "batch_size": 4}
    options |= changes
    return craft.write(predict, images, entry(attack), output=output, **options)


def read(path, split="test"):
    """The stored examples in order, each key stacked."""
    builder = tfds.builder_from_directory(path)
    examples = list(builder.as_data_source(split=split))
    return {key: np.stack([e[key] for e in examples]) for key in examples[0]}


def random_images(n, channels):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (n, 4, 4, channels), np.uint8)
    # The ends of the range, where clipping to [0, 1] acts.
    x[0], x[1] = 0, 255
    return Images(x=x, y=rng.integers(0, 5, n).astype(np.int32))


def content(path):
    return {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}


def random_predict(channels):
    """A smooth classifier of 5 classes, of any 4x4 images."""
    rng = np.random.default_rng(1)
    v, w = (
        rng.normal(size=shape).astype(np.float32)
        for shape in ((16 * channels, 7), (7, 5))
    )
    return lambda x: tf.tanh(tf.reshape(x, [-1, 16 * channels]) @ v) @ w


def crafted(predict, images, attack, *, eps=EPS, batch_size=4, seed=0):
    """x_adv [n, len(eps), ...], each eps alone, without writing anything."""
    alone = [
        np.concatenate(
            [
                dataclasses.replace(entry(attack).attack, eps=e)(
                    predict, x, y, seed=core.fold(seed, number)
                )
                for number, (x, y) in enumerate(whitebox.batches(images, batch_size))
            ]
        )
        for e in eps
    ]
    return np.stack(alone, axis=1)


def flat(x_adv):
    """In the order of the files."""
    return x_adv.reshape(-1, *x_adv.shape[2:])


# 10 images in batches of 4: the last one is short.
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("attack", ["iter_fgsm", "step_fgsm", "pgd", "random_normal"])
def test_stored_images_are_the_rounded_attack(tmp_path, channels, attack):
    images, predict = random_images(10, channels), random_predict(channels)
    found = read(write(predict, images, attack, tmp_path, seed=3))
    x_adv = flat(crafted(predict, images, attack, seed=3))
    assert found["image"].dtype == np.uint8
    np.testing.assert_array_equal(found["image"], np.round(255 * x_adv))
    np.testing.assert_array_equal(found["label"], np.repeat(images.y, 2))
    np.testing.assert_array_equal(found["source_index"], np.repeat(np.arange(10), 2))
    np.testing.assert_array_equal(found["eps"], np.tile(np.float32(EPS), 10))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("attack", ["iter_fgsm", "iter_ll", "step_fgsm"])
def test_whole_pixel_attacks_are_stored_without_loss(tmp_path, channels, attack):
    images, predict = random_images(10, channels), random_predict(channels)
    found = read(write(predict, images, attack, tmp_path))
    stored = pipeline.to_float(found["image"])
    x_adv = flat(crafted(predict, images, attack))
    np.testing.assert_allclose(stored, x_adv, atol=1e-6)
    moved = np.abs(found["image"].astype(int) - np.repeat(images.x, 2, axis=0))
    largest = moved.reshape(10, 2, -1).max(axis=(0, 2))
    np.testing.assert_array_equal(largest, [3, 8])


@pytest.mark.parametrize("attack", ["iter_fgsm", "iter_ll"])
def test_all_sizes_together_are_each_alone(tmp_path, attack):
    """Pixel by pixel, through the files."""
    images, predict = random_images(10, 3), random_predict(3)
    sizes = [i / 255 for i in range(1, 17)]
    together = read(write(predict, images, attack, tmp_path, eps=sizes[::-1]))
    np.testing.assert_array_equal(together["eps"], np.tile(np.float32(sizes), 10))
    stored = together["image"].reshape(10, 16, 4, 4, 3)
    for e in (1, 2, 7, 16):
        alone = read(write(predict, images, attack, tmp_path / "e", eps=[e / 255]))
        np.testing.assert_array_equal(stored[:, e - 1], alone["image"])


def test_sizes_share_their_gradients(tmp_path):
    """eps 1 .. 16 take 16 + (20 - 16) + (18 - 15) + .. = 44 passes over a batch."""
    plain, passes = random_predict(1), tf.Variable(0)

    def predict(x):
        passes.assign_add(1)
        return plain(x)

    sizes = [i / 255 for i in range(1, 17)]
    write(predict, random_images(8, 1), "iter_fgsm", tmp_path, eps=sizes)
    steps = [int(min(e + 4, 1.25 * e)) for e in range(1, 17)]
    expected = 16 + sum(n - e for e, n in enumerate(steps, 1))
    assert (int(passes), expected) == (2 * 44, 44)


def test_pixels_by_hand(linear, tmp_path):
    # iter_fgsm of 3 pixels: (-3, +3) from class 1, (+3, -3) from class 0; pixels end
    # at 0 and 255.
    predict, _ = linear
    pixels = [[100, 50], [100, 120], [2, 0], [254, 255]]
    images = Images(
        x=np.array(pixels, np.uint8).reshape(-1, 1, 2, 1),
        y=np.array([1, 0, 1, 0], np.int32),
    )
    found = read(write(predict, images, "iter_fgsm", tmp_path, eps=EPS[:1]))
    expected = [[97, 53], [103, 117], [0, 3], [255, 252]]
    np.testing.assert_array_equal(found["image"].reshape(-1, 2), expected)


def test_where_it_is_and_what_it_says(tmp_path):
    images, predict = random_images(5, 1), random_predict(1)
    model = {"workdir": "runs/a", "steps": 20}
    path = write(
        predict,
        images,
        "pgd",
        tmp_path,
        data="digits",
        split="train",
        crop=4,
        model=model,
        seed=5,
    )
    assert path == tmp_path / "digits_pgd" / "1.0.0"
    info = tfds.builder_from_directory(path).info
    assert info.name == "digits_pgd"
    assert info.splits["train"].num_examples == 10
    assert info.description == "pgd at eps 3/255, 8/255"
    assert info.metadata == {
        "data": "digits",
        "split": "train",
        "crop": 4,
        "num_images": 5,
        "eps": list(EPS),
        "attack": "pgd",
        "attack_arguments": repr(entry("pgd").attack),
        "seed": 5,
        "model": model,
    }


def test_positions_are_those_of_the_source(tmp_path):
    """Of some images of a split: 1, 4 and 6 of 10."""
    images = random_images(10, 1).take(np.array([1, 4, 6]))
    found = read(write(random_predict(1), images, "step_fgsm", tmp_path))
    assert found["source_index"].tolist() == [1, 1, 4, 4, 6, 6]


def test_examples_are_written_in_files_that_are_read_as_one(tmp_path, monkeypatch):
    monkeypatch.setattr(craft, "FILE_EXAMPLES", 3)
    images, predict = random_images(10, 1), random_predict(1)
    path = write(predict, images, "iter_fgsm", tmp_path)
    shards = tfds.builder_from_directory(path).info.splits["test"].shard_lengths
    assert shards == [3] * 6 + [2]
    expected = np.round(255 * flat(crafted(predict, images, "iter_fgsm")))
    np.testing.assert_array_equal(read(path)["image"], expected)


def test_a_log_file_gets_lines_with_the_time_left(tmp_path, monkeypatch, caplog):
    """10 images at 2 sizes; 4, 4 and 2 images in 30 s each."""
    clock = itertools.count(0, 30)
    monkeypatch.setattr(craft.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(logging.get_absl_logger(), "propagate", True)
    with caplog.at_level("INFO", logger="absl"):
        write(random_predict(1), random_images(10, 1), "step_fgsm", tmp_path)
    lines = [m for m in caplog.messages if "left" in m]
    assert lines == [
        "step_fgsm: 8 of 20 images, 45 s left",
        "step_fgsm: 16 of 20 images, 15 s left",
        "step_fgsm: 20 of 20 images, 0 s left",
    ]


def test_a_second_write_replaces_the_first(tmp_path):
    predict = random_predict(1)
    first = write(predict, random_images(10, 1), "iter_fgsm", tmp_path)
    second = write(
        predict, random_images(6, 1), "iter_fgsm", tmp_path, eps=EPS[:1], split="train"
    )
    assert second == first
    assert len(read(second, "train")["label"]) == 6
    assert list(tfds.builder_from_directory(second).info.splits) == ["train"]
    assert list((tmp_path / "some_iter_fgsm").iterdir()) == [second]


def test_a_failure_in_the_middle_leaves_the_first(tmp_path, monkeypatch):
    images, predict = random_images(10, 1), random_predict(1)
    path = write(predict, images, "iter_fgsm", tmp_path)
    before = content(tmp_path)

    def one_batch(images, batch_size):
        yield next(whitebox.batches(images, batch_size))
        raise OSError("the disk is on fire")

    monkeypatch.setattr(craft, "batches", one_batch)
    with pytest.raises(Exception, match="the disk is on fire"):
        write(predict, images, "iter_fgsm", tmp_path)
    assert content(tmp_path) == before
    assert list((tmp_path / "some_iter_fgsm").iterdir()) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of file sizes there")
def test_a_full_disk_is_one_line_and_leaves_the_first(tmp_path):
    import resource

    images, predict = random_images(10, 1), random_predict(1)
    path = write(predict, images, "iter_fgsm", tmp_path)
    before = content(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Less than a file of array_record, more than the metadata.
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))
    try:
        with pytest.raises(RunError, match=f"cannot write {path}: .*too large"):
            write(predict, random_images(9, 1), "iter_fgsm", tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert content(tmp_path) == before
    assert list((tmp_path / "some_iter_fgsm").iterdir()) == [path]


def test_what_a_killed_write_left_is_removed(tmp_path):
    left = tmp_path / "some_step_fgsm" / ".writing-abc" / "new" / "1.0.0"
    left.mkdir(parents=True)
    (left / "half").write_bytes(b"0" * 1000)
    path = write(random_predict(1), random_images(4, 1), "step_fgsm", tmp_path)
    assert list((tmp_path / "some_step_fgsm").iterdir()) == [path]
