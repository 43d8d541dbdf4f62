import json
import math
import re
import shutil
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from tfadv import attacks, craft
from tfadv.data import Augment, Images, adversarial
from tfadv.data.adversarial import StoredImages
from tfadv.errors import RunError, UsageError
from tfadv.evaluation.suite import Entry

E, N = 4, 40
SIZES = [i / 255 for i in range(1, E + 1)]
# Far from 0 and 255, where x_adv would be clipped.
RANDOM = np.random.default_rng(0)
IMAGES = Images(
    x=RANDOM.integers(20, 230, (N, 6, 4, 1), np.uint8),
    y=RANDOM.integers(0, 2, N).astype(np.int32),
)
CROP = Augment(crop=2)
# The centre crop, pixels (1, 1) .. (2, 2) of the four in the middle.
CLEAN = IMAGES.x[:, 2:4, 1:3]
# Of logits [0, w . x]: away from class 1 against w, away from class 0 with it.
W = np.array([[3.0, -4.0], [-1.0, 2.0]], np.float32)


def predict(x):
    z = tf.reduce_sum(x[..., 0] * W, axis=(1, 2)) / 100
    return tf.stack([tf.zeros_like(z), z], axis=1)


def adversarial_image(index, pixels):
    """By hand: `pixels` along the sign of w, up for class 0 and down for class 1."""
    way = 1 - 2 * IMAGES.y[index]
    return CLEAN[index] + (way * pixels * np.sign(W)[..., None]).astype(int)


def write(path, *, images=None, eps=SIZES, split="train"):
    attack = attacks.IterFGSM(eps=max(eps))
    images = images or Images(x=CLEAN, y=IMAGES.y)
    return craft.write(
        predict,
        images,
        Entry("iter_fgsm", "iter_fgsm", attack),
        eps,
        path,
        data="some",
        split=split,
        batch_size=16,
        crop=2,
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Three files of different length: 64, 64 and 32 examples."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(craft, "FILE_EXAMPLES", 64)
        return write(tmp_path_factory.mktemp("stored"))


@pytest.fixture
def spoiled(written, tmp_path):
    """A copy, to damage."""
    return shutil.copytree(written, tmp_path / "copy")


def open_it(path, **changes):
    expected = {"data": "some", "split": "train", "image_shape": (2, 2, 1)}
    return StoredImages(path, **expected | changes)


def files(path):
    return sorted(path.glob("*.array_record*"))


def test_any_image_at_any_size(written):
    stored = open_it(written)
    assert (stored.num_images, stored.max_pixels) == (N, E)
    assert stored.metadata["attack"] == "iter_fgsm"
    index, pixels = RANDOM.integers(0, N, 100), RANDOM.integers(1, E + 1, 100)
    found = stored.read(index, pixels)
    assert found.dtype == np.uint8
    expected = [adversarial_image(i, e) for i, e in zip(index, pixels, strict=True)]
    np.testing.assert_array_equal(found, expected)


def test_they_are_what_tfds_reads(written):
    """In order of index, then of eps."""
    builder = tfds.builder_from_directory(written)
    assert builder.info.splits["train"].shard_lengths == [64, 64, 32]
    examples = list(builder.as_data_source("train"))
    index, pixels = np.repeat(np.arange(N), E), np.tile(np.arange(1, E + 1), N)
    found = open_it(written).read(index, pixels)
    np.testing.assert_array_equal(found, [e["image"] for e in examples])


def test_it_reads_in_a_graph(written):
    stored = open_it(written)

    @tf.function
    def read(index, pixels):
        return tf.numpy_function(stored.read, [index, pixels], tf.uint8)

    found = read(tf.constant([39, 0], tf.int64), tf.constant([1, 4], tf.int32))
    expected = [adversarial_image(39, 1), adversarial_image(0, 4)]
    np.testing.assert_array_equal(found, expected)


def test_color(tmp_path):
    x = RANDOM.integers(0, 256, (5, 4, 3, 3), np.uint8)
    images = Images(x=x, y=np.zeros(5, np.int32))

    def flat(x):
        return tf.tanh(tf.reshape(x, [-1, 36]) @ tf.ones([36, 2]))

    path = craft.write(
        flat,
        images,
        Entry("random_sign", "random_sign", attacks.RandomSign(eps=SIZES[1])),
        SIZES[:2],
        tmp_path,
        data="some",
        split="train",
        batch_size=5,
    )
    stored = open_it(path, image_shape=(4, 3, 3))
    stored.check(images, Augment())
    examples = list(tfds.builder_from_directory(path).as_data_source("train"))
    np.testing.assert_array_equal(stored.read([3], [2])[0], examples[7]["image"])


@pytest.mark.parametrize(
    ("index", "pixels", "message"),
    [
        ([0, N], [1, 1], f"`index` must be from 0 to {N - 1}; received 0 to {N}"),
        ([-1], [1], "`index` .* received -1 to -1"),
        ([0], [0], f"`pixels` must be from 1 to {E}; received 0 to 0"),
        ([0], [E + 1], "`pixels`"),
    ],
)
def test_what_is_not_stored_is_refused(written, index, pixels, message):
    with pytest.raises(ValueError, match=message):
        open_it(written).read(index, pixels)


def test_memory_does_not_grow_with_the_set(tmp_path):
    """Of 9 MB of pixels, no more than a few images are ever in memory."""
    images = Images(
        x=RANDOM.integers(0, 256, (24, 128, 128, 3), np.uint8),
        y=np.zeros(24, np.int32),
    )
    name = Entry("random_sign", "random_sign", attacks.RandomSign(eps=SIZES[-1]))
    path = craft.write(
        lambda x: x[:, 0, 0],
        images,
        name,
        [i / 255 for i in range(1, 9)],
        tmp_path,
        data="some",
        split="train",
        batch_size=8,
    )
    stored = open_it(path, image_shape=(128, 128, 3))
    tracemalloc.start()
    stored = open_it(path, image_shape=(128, 128, 3))
    for i in range(24):
        stored.read([i, i], [1, 8])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 2 * images.x[0].nbytes < peak < images.x.nbytes * 8 / 10


AT_EXIT = """
import sys
import numpy as np
from tfadv.data import Augment, Images, pipeline
from tfadv.data.adversarial import StoredImages

stored = StoredImages(sys.argv[1], data="some", split="train", image_shape=(2, 2, 1))
arrays = np.load(sys.argv[2])
reading = [
    iter(
        pipeline.batches(
            Images(x=arrays["x"], y=arrays["y"]),
            batch_size=40,
            seed=seed,
            start=0,
            stop=10**6,
            augment=Augment(),
            stored=stored,
            stored_positions=range(40),
        )
    )
    for seed in range(4)
]
for _ in range(50):
    for iterator in reading:
        next(iterator)
"""


def test_a_process_ends_while_it_reads_ahead(written, tmp_path):
    """Unless the reading stops first, Python aborts or hangs, often if not always."""
    np.savez(tmp_path / "clean.npz", x=CLEAN, y=IMAGES.y)
    script = [sys.executable, "-c", AT_EXIT, written, tmp_path / "clean.npz"]
    found = subprocess.run(script, capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr


# Opening.


def test_there_is_nothing(tmp_path):
    with pytest.raises(UsageError, match=f"no stored images at {tmp_path / 'no'}: "):
        open_it(tmp_path / "no")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="no stored images"):
        open_it(tmp_path / "file")


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({"data": "mnist"}, "have data set 'some'; expected 'mnist'"),
        ({"split": "test"}, "have split 'train'; expected 'test'"),
        (
            {"image_shape": (28, 28, 1)},
            r"have shape \(2, 2, 1\); expected \(28, 28, 1\)",
        ),
    ],
)
def test_other_images_than_expected(written, expected, message):
    with pytest.raises(UsageError, match=message):
        open_it(written, **expected)


@pytest.mark.parametrize("eps", [[2 / 255], [1 / 255, 3 / 255], [0.5 / 255, 1 / 255]])
def test_other_sizes_than_whole_pixels_from_one(tmp_path, eps):
    with pytest.raises(UsageError, match="eps must be all whole pixels"):
        open_it(write(tmp_path, eps=eps))


def truncate(path):
    data = files(path)[1].read_bytes()
    files(path)[1].write_bytes(data[: len(data) // 2])


def empty(path):
    files(path)[0].write_bytes(b"")


def garble(path):
    files(path)[0].write_bytes(bytes(RANDOM.integers(0, 256, 70_000, np.uint8)))


def remove(path):
    files(path)[2].unlink()


def swap(path):
    first, second, _ = files(path)
    first.rename(path / "aside")
    second.rename(first)
    (path / "aside").rename(second)


def change_metadata(**changes):
    def change(path):
        file = path / "metadata.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


DAMAGES = {
    "truncated": truncate,
    "empty": empty,
    "garbled": garble,
    "removed": remove,
    "swapped": swap,
    "more images": change_metadata(num_images=N + 1),
    "fewer sizes": change_metadata(eps=SIZES[:2]),
    "no metadata": lambda path: (path / "metadata.json").unlink(),
    "other metadata": lambda path: (path / "metadata.json").write_text("{}"),
    "metadata": lambda path: (path / "metadata.json").write_text("{"),
    "no info": lambda path: (path / "dataset_info.json").unlink(),
    "info": lambda path: (path / "dataset_info.json").write_text("{"),
    "features": lambda path: (path / "features.json").write_text("{"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged(spoiled, damage):
    DAMAGES[damage](spoiled)
    message = f"^stored images in {re.escape(str(spoiled))} are damaged or incomplete: "
    with pytest.raises(RunError, match=message) as caught:
        open_it(spoiled)
    assert "\n" not in str(caught.value)


def test_a_split_that_was_never_written(spoiled):
    """Its name in the metadata alone is not enough."""
    change_metadata(split="test")(spoiled)
    with pytest.raises(RunError, match="damaged"):
        open_it(spoiled, split="test")


# Against the clean images.


def test_the_images_that_they_are_made_of(written):
    stored = open_it(written)
    stored.check(IMAGES, CROP)
    stored.check(IMAGES.take(np.array([3, 5, 39])), CROP)
    stored.check(IMAGES.take(IMAGES.y == 1), CROP)


def rolled(by):
    """As if the data set came in another order."""
    return Images(x=np.roll(IMAGES.x, by, 0), y=np.roll(IMAGES.y, by, 0))


@pytest.mark.parametrize(
    ("images", "augment"),
    [
        (rolled(1), CROP),
        (Images(x=IMAGES.x, y=1 - IMAGES.y), CROP),
        (Images(x=IMAGES.x + np.uint8(2 * E), y=IMAGES.y), CROP),
        # Another place: the upper left corner.
        (Images(x=IMAGES.x[:, :4, :2], y=IMAGES.y), CROP),
        # Positions that were not kept beside the images.
        (Images(x=IMAGES.x[1:], y=IMAGES.y[1:]), CROP),
    ],
)
def test_other_images(written, images, augment):
    with pytest.raises(RunError, match=r"not made of these images: image \d+ at eps"):
        open_it(written).check(images, augment)


def test_images_of_another_shape(written):
    with pytest.raises(UsageError, match=r"shape \(2, 2, 1\); expected \(3, 3, 1\)"):
        open_it(written).check(IMAGES, Augment(crop=3))


def test_fewer_images_than_are_needed(tmp_path):
    few = Images(x=CLEAN[:30], y=IMAGES.y[:30])
    stored = open_it(write(tmp_path, images=few))
    stored.check(IMAGES.take(slice(30)), CROP)
    with pytest.raises(RunError, match="first 30 images; image 39 is needed"):
        stored.check(IMAGES, CROP)


# The law of sizes.


@pytest.mark.parametrize("largest", [1, 2, 16])
def test_law(largest):
    """P(e) = P(e - 1 <= |N(0, E/2)| < e), and E takes all from E - 1 on."""

    def below(s):
        return math.erf(s / (largest / 2) / math.sqrt(2))

    expected = [below(e) - below(e - 1) for e in range(1, largest)]
    expected.append(1 - below(largest - 1))
    pixels = adversarial.draw_pixels(largest, 40_000, [3, 4]).numpy()
    assert pixels.dtype == np.int32
    assert (pixels.min(), pixels.max()) == (1, largest)
    shares = np.bincount(pixels, minlength=largest + 1)[1:] / 40_000
    # The standard deviation of a share is at most 0.25 %.
    np.testing.assert_allclose(shares, expected, atol=0.01)


def test_the_seed_decides_the_sizes():
    first, again, other = (
        adversarial.draw_pixels(16, 100, seed).numpy().tolist()
        for seed in ([1, 2], [1, 2], [1, 3])
    )
    assert first == again != other
