import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from tfadv import config, craft
from tfadv.attacks import core
from tfadv.data import Images, pipeline
from tfadv.evaluation import suite, whitebox

EPS = (3 / 255, 8 / 255)


def entry(attack, eps=EPS):
    return suite.build(config.Evaluate(attacks=(attack,), eps=eps), where="here")[0]


def write(predict, images, attack, output, **changes):
    options = {"eps": EPS, "name": "some_images", "split": "test", "batch_size": 4}
    options |= changes
    return craft.write(predict, images, entry(attack), output=output, **options)


def read(path, split="test"):
    """The stored examples in order, each key stacked."""
    builder = tfds.builder_from_directory(path)
    examples = list(tfds.as_numpy(builder.as_dataset(split=split)))
    return {key: np.stack([e[key] for e in examples]) for key in examples[0]}


def random_images(n, channels):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (n, 4, 4, channels), np.uint8)
    # The ends of the range, where clipping to [0, 1] acts.
    x[0], x[1] = 0, 255
    return Images(x=x, y=rng.integers(0, 5, n).astype(np.int32))


def random_predict(channels):
    """A smooth classifier of 5 classes, of any 4x4 images."""
    rng = np.random.default_rng(1)
    v, w = (
        rng.normal(size=shape).astype(np.float32)
        for shape in ((16 * channels, 7), (7, 5))
    )
    return lambda x: tf.tanh(tf.reshape(x, [-1, 16 * channels]) @ v) @ w


def crafted(predict, images, attack, *, batch_size=4, seed=0):
    """x_adv of every eps in turn, batch by batch, without writing anything."""
    return np.concatenate(
        [
            dataclasses.replace(entry(attack).attack, eps=eps)(
                predict, x, y, seed=core.fold(seed, number)
            )
            for eps in EPS
            for number, (x, y) in enumerate(whitebox.batches(images, batch_size))
        ]
    )


# 10 images in batches of 4: the last one is short.
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("attack", ["iter_fgsm", "step_fgsm", "pgd", "random_normal"])
def test_stored_images_are_the_rounded_attack(tmp_path, channels, attack):
    images, predict = random_images(10, channels), random_predict(channels)
    found = read(write(predict, images, attack, tmp_path, seed=3))
    x_adv = crafted(predict, images, attack, seed=3)
    assert found["image"].dtype == np.uint8
    np.testing.assert_array_equal(found["image"], np.round(255 * x_adv))
    np.testing.assert_array_equal(found["label"], np.tile(images.y, 2))
    np.testing.assert_array_equal(found["source_index"], np.tile(np.arange(10), 2))
    np.testing.assert_array_equal(found["eps"], np.repeat(np.float32(EPS), 10))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("attack", ["iter_fgsm", "iter_ll", "step_fgsm"])
def test_whole_pixel_attacks_are_stored_without_loss(tmp_path, channels, attack):
    images, predict = random_images(10, channels), random_predict(channels)
    found = read(write(predict, images, attack, tmp_path))
    stored = pipeline.to_float(found["image"])
    np.testing.assert_allclose(stored, crafted(predict, images, attack), atol=1e-6)
    moved = np.abs(found["image"].astype(int) - np.tile(images.x, (2, 1, 1, 1)))
    largest = moved.reshape(2, -1).max(axis=1)
    np.testing.assert_array_equal(largest, [3, 8])


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
    path = write(predict, images, "pgd", tmp_path, name="a_name", split="train")
    assert path == tmp_path / "a_name" / "1.0.0"
    info = tfds.builder_from_directory(path).info
    assert info.name == "a_name"
    assert info.splits["train"].num_examples == 10
    assert info.description == "pgd at eps 3/255, 8/255"


def test_a_second_write_replaces_the_first(tmp_path):
    predict = random_predict(1)
    first = write(predict, random_images(10, 1), "iter_fgsm", tmp_path)
    second = write(
        predict, random_images(6, 1), "iter_fgsm", tmp_path, eps=EPS[:1], split="train"
    )
    assert second == first
    assert len(read(second, "train")["label"]) == 6
    assert list(tfds.builder_from_directory(second).info.splits) == ["train"]
    assert list(tmp_path.glob("*/*")) == [second]


def test_a_failure_in_the_middle_leaves_the_first(tmp_path, monkeypatch):
    images, predict = random_images(10, 1), random_predict(1)
    path = write(predict, images, "iter_fgsm", tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    def one_batch(images, batch_size):
        yield next(whitebox.batches(images, batch_size))
        raise OSError("the disk is on fire")

    monkeypatch.setattr(craft, "batches", one_batch)
    with pytest.raises(Exception, match="the disk is on fire"):
        write(predict, images, "pgd", tmp_path)
    after = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert after == before
    assert list(tmp_path.glob("*/*")) == [path]
