import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.data import directories
from tfadv import attacks, craft, data
from tfadv.data import Augment, ImageFiles, Images, Inception, pipeline, records
from tfadv.data.adversarial import StoredImages, draw_pixels
from tfadv.defenses import Kurakin
from tfadv.errors import RunError
from tfadv.evaluation.suite import Entry

N = 10


def numbered(n=N, side=1):
    """Images with label i whose first pixel is i; the others tell pixels apart."""
    x = np.arange(side * side, dtype=np.uint8).reshape(1, side, side, 1)
    first = np.arange(n, dtype=np.uint8)[:, None, None, None]
    return Images(x=first + x, y=np.arange(n, dtype=np.int32))


def batches(images=None, *, m=4, seed=0, start=0, stop=20, augment=None, **stored):
    data = pipeline.batches(
        images or numbered(),
        batch_size=m,
        seed=seed,
        start=start,
        stop=stop,
        augment=augment or Augment(),
        **stored,
    )
    return list(data.as_numpy_iterator())


def labels(**kwargs):
    return np.concatenate([y for _, y in batches(**kwargs)]).tolist()


@pytest.mark.parametrize("m", [1, 3, 4, 7, N])
def test_every_epoch_is_a_permutation_of_its_own(m):
    """Whether or not the batch size divides the 10 images."""
    sequence = labels(m=m, stop=-(-4 * N // m))
    epochs = [tuple(sequence[e * N : (e + 1) * N]) for e in range(4)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(N))
    assert len(set(epochs)) == 4


def test_batches_cut_one_sequence():
    """The same images in the same order, whatever the size of the pieces."""
    assert labels(m=4, stop=10) == labels(m=5, stop=8) == labels(m=1, stop=40)


def test_no_batch_is_short():
    data = pipeline.batches(
        numbered(), batch_size=4, seed=0, start=0, stop=6, augment=Augment()
    )
    assert data.element_spec[0].shape == (4, 1, 1, 1)
    assert data.element_spec[1].shape == (4,)
    assert data.cardinality() == 6
    assert [len(y) for _, y in data.as_numpy_iterator()] == [4] * 6


@pytest.mark.parametrize("start", [1, 5, 13])
def test_a_later_start_equals_skipping(start):
    """Bitwise, with crops and flips, within an epoch and across its end."""
    options = {"images": numbered(side=8), "augment": Augment(crop=5, pad=1, flip=True)}
    whole = batches(stop=16, **options)[start:]
    resumed = batches(start=start, stop=16, **options)
    assert len(resumed) == 16 - start
    for (x, y), (again_x, again_y) in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(again_x, x)
        np.testing.assert_array_equal(again_y, y)


def test_a_start_far_away():
    """Of a run of 94,000 steps, as quickly as at 0; 4 * 94,000 positions of 10."""
    sequence = labels(start=94_000, stop=94_005)
    assert sorted(sequence[:N]) == sorted(sequence[N:]) == list(range(N))


def test_the_seed_decides_the_order():
    first, second, other = (labels(seed=seed) for seed in (1, 1, 2))
    assert first == second != other
    assert sorted(first) == sorted(other)


@pytest.mark.parametrize("seed", [0, 2**31 - 1])
def test_the_seed_decides_the_crops(seed):
    """One image alone: whatever differs is the crop."""
    options = {"images": numbered(1, side=8), "m": 1, "augment": Augment(crop=4)}
    crops = [x.tobytes() for x, _ in batches(seed=seed, **options)]
    assert crops == [x.tobytes() for x, _ in batches(seed=seed, **options)]
    assert crops != [x.tobytes() for x, _ in batches(seed=seed + 1, **options)]


def test_every_step_crops_anew():
    """25 possible windows, 20 steps: on average 14 different ones."""
    options = {"images": numbered(1, side=8), "m": 1, "augment": Augment(crop=4)}
    assert len({x.tobytes() for x, _ in batches(**options)}) > 7


def test_images_are_floats_in_the_unit_interval_and_keep_their_labels():
    images = Images(
        x=np.array([0, 51, 255], np.uint8).reshape(3, 1, 1, 1),
        y=np.array([7, 8, 9], np.int64),
    )
    for x, y in batches(images, m=3, stop=5):
        assert x.dtype == np.float32 and y.dtype == np.int32
        values = dict(zip(y.tolist(), x[:, 0, 0, 0].tolist(), strict=True))
        assert values == {7: 0.0, 8: pytest.approx(51 / 255), 9: 1.0}


def test_crops_are_cut_from_the_image_of_the_label():
    """The smallest pixel of a crop 3x3 out of 4x4 is i + 0, 1, 4 or 5."""
    for x, y in batches(numbered(side=4), augment=Augment(crop=3), stop=10):
        smallest = np.round(x.min((1, 2, 3)) * 255) - y
        assert set(smallest) <= {0, 1, 4, 5}


def test_uint8_and_float_are_inverse():
    pixels = tf.range(256)
    floats = pipeline.to_float(pixels)
    assert floats.dtype == tf.float32
    assert (float(floats[0]), float(floats[255])) == (0.0, 1.0)
    back = pipeline.to_uint8(floats)
    assert back.dtype == tf.uint8
    np.testing.assert_array_equal(back, pixels)


def test_floating_point_is_in_its_range_already():
    x = np.array([0.0, 0.25, 1.0], np.float32)
    np.testing.assert_array_equal(pipeline.to_float(x), x)


def test_to_uint8_rounds_to_the_nearest():
    """10.4 and 10.6 of 255."""
    values = tf.constant([10.4, 10.6]) / 255
    assert pipeline.to_uint8(values).numpy().tolist() == [10, 11]


# With stored adversarial images.


class Noted:
    """Stored images whose pixels say what was asked for: index + 100, and the size."""

    max_pixels = 16

    def __init__(self, side=1):
        self.image_shape = (side, side, 1)
        self.checked = []

    def check(self, images, augment):
        self.checked.append((images, augment))

    def read(self, index, pixels):
        x = np.empty((len(index), *self.image_shape), np.uint8)
        x[:] = np.reshape(pixels, (-1, 1, 1, 1))
        x[:, 0, 0, 0] = index + 100
        return x


AUGMENT = Augment(crop=5, pad=1, flip=True)
STORED = {"m": 6, "stop": 12, "stored": Noted(5), "stored_positions": [2, 3, 5]}


def pixels(x):
    return np.round(255 * x).astype(int)


@pytest.mark.parametrize("kept", [None, [9, 4, 7, 0, 2, 8]])
def test_stored_images_belong_to_the_clean_ones_beside_them(kept):
    """Also where some images of the source were left out and the rest moved up."""
    images = numbered(side=8)
    images = images if kept is None else images.take(np.array(kept))
    for (x, x_stored), y in batches(images, augment=AUGMENT, **STORED):
        assert x.shape == (6, 5, 5, 1) and x_stored.shape == (3, 5, 5, 1)
        assert x.dtype == x_stored.dtype == np.float32
        # The label of an image is its position in the source.
        np.testing.assert_array_equal(
            pixels(x_stored)[:, 0, 0, 0], 100 + y[STORED["stored_positions"]]
        )


def test_stored_positions_hold_the_centre_crop_and_the_others_what_they_held():
    images = numbered(side=8)
    plain = batches(images, m=6, stop=12, augment=AUGMENT)
    moved = 0
    for (x, y), ((x_new, _), y_new) in zip(
        plain, batches(images, augment=AUGMENT, **STORED), strict=True
    ):
        np.testing.assert_array_equal(y_new, y)
        np.testing.assert_array_equal(x_new[[0, 1, 4]], x[[0, 1, 4]])
        # 8x8 to 5x5: rows and columns 1 .. 5.
        center = images.x[y[[2, 3, 5]], 1:6, 1:6]
        np.testing.assert_array_equal(pixels(x_new[[2, 3, 5]]), center)
        moved += int((x_new != x).any())
    assert moved > 6


def sizes(**changes):
    """The sizes drawn for 3 images at each of 12 steps."""
    found = batches(numbered(side=8), augment=AUGMENT, **STORED | changes)
    return np.array([pixels(x_stored)[:, 1, 1, 0] for (_, x_stored), _ in found])


def test_every_stored_image_has_a_size_of_its_own():
    """By the law of cascade training: 36 draws of which half are at most 6 of 16."""
    found = sizes()
    assert found.min() >= 1 and found.max() <= 16
    assert len(set(found.ravel())) > 6
    assert len(set(map(tuple, found))) > 9
    expected = draw_pixels(16, 30_000, [0, 1]).numpy().mean()
    assert abs(np.mean(sizes(stop=500)) - expected) < 0.5


def test_the_seed_decides_the_sizes():
    assert (sizes() == sizes()).all()
    assert (sizes() != sizes(seed=1)).any()


@pytest.mark.parametrize("start", [1, 7])
def test_a_later_start_equals_skipping_with_stored_images(start):
    options = {"images": numbered(side=8), "augment": AUGMENT} | STORED
    whole, resumed = batches(**options)[start:], batches(start=start, **options)
    for one, again in zip(whole, resumed, strict=True):
        for a, b in zip(tf.nest.flatten(one), tf.nest.flatten(again), strict=True):
            np.testing.assert_array_equal(a, b)


def test_stored_images_are_checked_against_the_clean_ones():
    images, stored = numbered(side=8), Noted(5)
    batches(images, augment=AUGMENT, **STORED | {"stored": stored})
    assert [(a is images, b is AUGMENT) for a, b in stored.checked] == [(True, True)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stored": None}, "belong together; received no stored images and 3 pos"),
        ({"stored_positions": ()}, "received some stored images and 0 positions"),
        ({"stored_positions": [2, 6]}, r"from 0 to 5; received \[2, 6\]"),
        ({"stored_positions": range(-1, 2)}, r"received \[-1, 0, 1\]"),
    ],
)
def test_positions_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        batches(numbered(side=8), augment=AUGMENT, **STORED | changes)


def test_two_replicas_get_the_stored_images_of_their_own(mirrored):
    """Of a batch of 8 with k = 4: 2 adversarial images on each, 1 of them stored."""
    with mirrored.scope():
        classifier = keras.Sequential([keras.Input((1, 1, 1)), keras.layers.Flatten()])
        defense = Kurakin(classifier, attack=attacks.StepLL(eps=0.1), k=4, stored=2)
    positions = defense.stored_positions(8, 2)
    assert positions == [1, 5]
    data = pipeline.batches(
        numbered(),
        batch_size=8,
        seed=0,
        start=0,
        stop=10,
        augment=Augment(),
        stored=Noted(),
        stored_positions=positions,
    )
    split = mirrored.experimental_distribute_dataset(data)
    # x, x_stored and y, each twice: their sizes are known when a step is traced.
    specs = tf.nest.flatten(split.element_spec, expand_composites=True)
    assert [spec.shape[0] for spec in specs] == [4, 4, 1, 1, 4, 4]
    for whole, parts in zip(data, split, strict=True):
        per_replica = [
            tf.nest.map_structure(lambda v, r=r: v.values[r], parts) for r in (0, 1)
        ]
        assert [tf.nest.map_structure(len, part) for part in per_replica] == [
            ((4, 1), 4)
        ] * 2
        for (x, x_stored), y in per_replica:
            np.testing.assert_array_equal(pixels(x)[:, 0, 0, 0], y)
            assert pixels(x_stored)[:, 0, 0, 0] == 100 + y[1]
        joined = [
            np.concatenate(pair)
            for pair in zip(*map(tf.nest.flatten, per_replica), strict=True)
        ]
        for a, b in zip(tf.nest.flatten(whole), joined, strict=True):
            np.testing.assert_array_equal(a, b)


def test_with_images_on_disk(tmp_path):
    """x_adv of the sign of the middle pixels: each moves by its eps, all upwards."""
    x = np.random.default_rng(0).integers(0, 200, (20, 6, 6, 1), np.uint8)
    images = Images(x=x, y=np.zeros(20, np.int32))
    augment = Augment(crop=4, flip=True)
    path = craft.write(
        lambda x: tf.reduce_mean(x, axis=(1, 2)) * [[0.0, 1.0]],
        Images(x=augment.center(x), y=images.y),
        Entry("iter_fgsm", "iter_fgsm", attacks.IterFGSM(eps=3 / 255)),
        [1 / 255, 2 / 255, 3 / 255],
        tmp_path,
        data="some",
        split="train",
        batch_size=10,
    )
    stored = StoredImages(path, data="some", split="train", image_shape=(4, 4, 1))
    options = {"stored": stored, "stored_positions": [0, 3], "augment": augment}
    seen = set()
    for (x, x_stored), _ in batches(images.take(np.arange(5, 20)), **options):
        moved = (pixels(x_stored) - pixels(x[[0, 3]])).reshape(2, -1)
        assert (moved == moved[:, :1]).all()
        seen |= set(moved[:, 0].tolist())
    assert seen == {1, 2, 3}
    with pytest.raises(RunError, match="not made of these images"):
        batches(Images(x=images.x[::-1], y=images.y), **options)


# Images in files.


@pytest.fixture
def both(tmp_path):
    """The same ten images of 8x8 in memory and in files."""
    x = np.random.default_rng(0).integers(0, 256, (N, 8, 8, 3), np.uint8)
    paths = [tmp_path / f"{i}.png" for i in range(N)]
    for image, path in zip(x, paths, strict=True):
        Image.fromarray(image).save(path)
    y = np.arange(N, dtype=np.int32)
    return Images(x=x, y=y), Images(x=ImageFiles(paths, (8, 8, 3)), y=y)


def assert_equal_batches(found, expected):
    for one, other in zip(found, expected, strict=True):
        for a, b in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("m", [1, 3, 4, N])
@pytest.mark.parametrize("augment", [Augment(), AUGMENT])
def test_images_in_files_give_the_batches_of_images_in_memory(both, m, augment):
    """Bitwise, within epochs and across their ends."""
    memory, on_disk = (batches(one, m=m, augment=augment) for one in both)
    assert len(memory) == 20
    assert_equal_batches(on_disk, memory)


def test_some_of_the_images_in_files(both):
    """Left out by `take`, as a holdout is, and cut to a window."""
    kept = np.arange(N) % 3 != 1
    memory, on_disk = (
        batches(Images(x=one.x[:, 1:, :6], y=one.y).take(kept), augment=Augment(crop=4))
        for one in both
    )
    assert_equal_batches(on_disk, memory)
    assert {label for _, y in on_disk for label in y} == {0, 2, 3, 5, 6, 8, 9}


@pytest.mark.parametrize("start", [1, 7, 13])
def test_a_later_start_equals_skipping_with_images_in_files(both, start):
    options = {"images": both[1], "augment": AUGMENT}
    assert_equal_batches(batches(start=start, **options), batches(**options)[start:])


def test_stored_images_beside_images_in_files(both):
    stored = STORED | {"stored": Noted(5), "augment": AUGMENT}
    memory, on_disk = (batches(one, **stored) for one in both)
    assert_equal_batches(on_disk, memory)


def test_no_batch_of_images_in_files_is_short(both):
    data = pipeline.batches(
        both[1], batch_size=4, seed=0, start=2, stop=9, augment=AUGMENT
    )
    assert data.element_spec[0].shape == (4, 5, 5, 3)
    assert data.element_spec[1].shape == (4,)
    assert data.cardinality() == 7


def test_a_file_that_is_lost_while_training_is_named(both):
    """The batches before it are what they were."""
    memory, on_disk = both
    order = np.concatenate([y for _, y in batches(memory, m=1, stop=N)])
    on_disk.x.paths[order[-1]] += ".moved"
    options = {"batch_size": 1, "seed": 0, "start": 0, "stop": N}
    iterator = iter(pipeline.batches(on_disk, augment=Augment(), **options))
    assert [int(next(iterator)[1][0]) for _ in range(N - 1)] == order[:-1].tolist()
    with pytest.raises(tf.errors.NotFoundError, match=r"\.png\.moved"):
        next(iterator)


def test_two_replicas_share_batches_of_images_in_files(mirrored, both):
    memory, on_disk = (
        pipeline.batches(one, batch_size=8, seed=0, start=0, stop=6, augment=AUGMENT)
        for one in both
    )
    split = mirrored.experimental_distribute_dataset(on_disk)
    specs = tf.nest.flatten(split.element_spec, expand_composites=True)
    assert [spec.shape[0] for spec in specs] == [4, 4, 4, 4]
    for whole, parts in zip(memory, split, strict=True):
        joined = [np.concatenate([v.numpy() for v in part.values]) for part in parts]
        assert_equal_batches([joined], [[v.numpy() for v in whole]])


@pytest.mark.parametrize("where", [0, 1])
def test_fewer_images_than_a_batch(both, where):
    with pytest.raises(RunError, match=r"holds only 10: set train\.batch_size to 10"):
        batches(both[where], m=N + 1)


# Images in records, and images that are distorted one by one.


INCEPTION = Inception(size=6)


@pytest.fixture(params=["array_record", "tfrecord"])
def recorded(request, tmp_path):
    """The same ten images of 64x64 in memory and in records."""
    images = directories.photographs(N, sides=(64, 64))
    directories.write(
        tmp_path,
        {"train": images},
        name="imagenet_resized",
        config="64x64",
        version="0.1.0",
        file_format=request.param,
    )
    on_disk = data.get("imagenet_resized_64x64").read("train", str(tmp_path))
    return Images(x=np.stack(images), y=np.arange(N, dtype=np.int32)), on_disk


@pytest.fixture
def photographs(tmp_path):
    """Ten images of many sizes."""
    directories.write(tmp_path, {"train": directories.photographs(N)})
    return data.get("imagenette").read("train", str(tmp_path))


@pytest.mark.parametrize("m", [3, 4, N])
@pytest.mark.parametrize("augment", [Augment(crop=5, flip=True), INCEPTION])
def test_images_in_records_give_the_batches_of_images_in_memory(recorded, m, augment):
    """Bitwise, within epochs and across their ends, and where some are left out."""
    for images in (recorded, [one.take(np.arange(N) % 4 != 1) for one in recorded]):
        if len(images[0]) < m:
            continue
        memory, on_disk = (batches(one, m=m, augment=augment) for one in images)
        assert len(memory) == 20
        assert_equal_batches(on_disk, memory)


@pytest.mark.parametrize("start", [1, 7, 13])
def test_a_later_start_equals_skipping_with_images_in_records(photographs, start):
    options = {"images": photographs, "augment": INCEPTION}
    assert_equal_batches(batches(start=start, **options), batches(**options)[start:])


def test_distorted_images_are_those_of_their_places_in_the_sequence(photographs):
    """Whatever the size of the batches; the labels are those of the images."""
    options = {"augment": INCEPTION, "stop": 4}
    whole = batches(photographs, m=6, **options)
    pieces = batches(photographs, m=4, **options | {"stop": 6})
    for k in (0, 1):
        joined = [
            np.concatenate([one[k] for one in found]) for found in (whole, pieces)
        ]
        np.testing.assert_array_equal(*joined)
    x, y = (np.concatenate(values) for values in zip(*whole, strict=True))
    assert x.dtype == np.float32 and y.dtype == np.int32
    assert x.min() >= 0 and x.max() <= 1
    # No image of this seed comes twice alike.
    assert sorted(y[:N]) == list(range(N)) and len({one.tobytes() for one in x}) == 24
    # The image at position p by the seed, 4 and p.
    for p in (0, 5, 23):
        seed = tf.random.experimental.stateless_fold_in(
            tf.constant([0, 4], tf.int64), tf.constant(p, tf.int64), alg="philox"
        )
        expected = INCEPTION.random_one(photographs.x[int(y[p])], seed)
        np.testing.assert_allclose(x[p], expected, atol=1e-6)


def test_the_seed_decides_how_images_are_distorted(photographs):
    one = photographs.take(slice(1))
    options = {"m": 1, "augment": INCEPTION, "stop": 3}
    first, again, other = (
        [x.tobytes() for x, _ in batches(one, seed=seed, **options)]
        for seed in (1, 1, 2)
    )
    assert first == again and not set(first) & set(other)


def test_batches_of_distorted_images_are_not_short(photographs):
    data = pipeline.batches(
        photographs, batch_size=4, seed=0, start=2, stop=9, augment=INCEPTION
    )
    assert data.element_spec[0].shape == (4, 6, 6, 3)
    assert data.element_spec[1].shape == (4,)
    assert data.cardinality() == 7


def test_stored_positions_hold_the_middle_of_the_image(photographs):
    """And the others what they held."""
    stored = STORED | {"stored": Noted(6), "augment": INCEPTION}
    plain = batches(photographs, m=6, stop=12, augment=INCEPTION)
    middles = INCEPTION.center(photographs.x)
    for (x, y), ((x_new, x_stored), y_new) in zip(
        plain, batches(photographs, **stored), strict=True
    ):
        np.testing.assert_array_equal(y_new, y)
        np.testing.assert_array_equal(x_new[[0, 1, 4]], x[[0, 1, 4]])
        np.testing.assert_array_equal(pixels(x_new[[2, 3, 5]]), middles[y[[2, 3, 5]]])
        np.testing.assert_array_equal(pixels(x_stored)[:, 0, 0, 0], 100 + y[[2, 3, 5]])


def test_stored_images_are_made_of_the_middles_of_photographs(photographs, tmp_path):
    """No pixel is further away than the largest eps, and most images have moved."""
    middles = Images(x=INCEPTION.center(photographs.x), y=photographs.y)
    path = craft.write(
        lambda x: tf.reduce_mean(x, axis=(1, 2, 3))[:, None] * tf.range(10.0),
        middles,
        Entry("iter_fgsm", "iter_fgsm", attacks.IterFGSM(eps=2 / 255)),
        [1 / 255, 2 / 255],
        tmp_path / "adversarial",
        data="imagenette",
        split="train",
        batch_size=10,
    )
    expected = {"data": "imagenette", "split": "train", "image_shape": (6, 6, 3)}
    stored = StoredImages(path, **expected)
    options = {"stored": stored, "stored_positions": [0, 3], "augment": INCEPTION}
    moved = 0
    for (x, x_stored), _ in batches(photographs, **options):
        change = np.abs(pixels(x_stored) - pixels(x[[0, 3]])).max(axis=(1, 2, 3))
        assert (change <= 2).all()
        moved += int((change > 0).sum())
    assert moved > 20
    turned = Images(x=photographs.x[::-1], y=photographs.y[::-1])
    with pytest.raises(RunError, match="not made of these images"):
        batches(turned, **options)


def test_two_replicas_share_batches_of_distorted_images(mirrored, photographs):
    one, other = (
        pipeline.batches(
            photographs, batch_size=8, seed=0, start=0, stop=4, augment=INCEPTION
        )
        for _ in range(2)
    )
    split = mirrored.experimental_distribute_dataset(other)
    for whole, parts in zip(one, split, strict=True):
        joined = [np.concatenate([v.numpy() for v in part.values]) for part in parts]
        assert_equal_batches([joined], [[v.numpy() for v in whole]])


@pytest.mark.parametrize("augment", [Augment(crop=5), INCEPTION])
def test_a_record_is_read_once_for_image_and_label(recorded, augment, monkeypatch):
    """Two batches of five are each of the ten records once."""
    read, positions = records.Records.read, []

    def noted(self, position):
        positions.append(int(position))
        return read(self, position)

    monkeypatch.setattr(records.Records, "read", noted)
    assert len(batches(recorded[1], m=5, stop=2, augment=augment)) == 2
    assert sorted(positions) == list(range(N))


def test_a_record_that_is_lost_while_training_is_named(photographs, monkeypatch):
    def read(self, position):
        raise OSError("gone")

    monkeypatch.setattr("tfadv.data.records.Records.read", read)
    with pytest.raises(tf.errors.OpError, match=r"example \d+ cannot be read: gone"):
        batches(photographs, augment=INCEPTION)


# Parts of batches, for several workers.


def in_parts(count, images, **options):
    """Every batch as its parts one after the other, made apart."""
    parts = [batches(images, part=(i, count), **options) for i in range(count)]
    return [
        [
            np.concatenate(values)
            for values in zip(*map(tf.nest.flatten, one), strict=True)
        ]
        for one in zip(*parts, strict=True)
    ]


def flat(found):
    return [tf.nest.flatten(batch) for batch in found]


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("augment", [Augment(), AUGMENT])
def test_parts_make_up_the_whole_batches(count, augment):
    """Bitwise: who is in a batch, and how each is cropped and mirrored."""
    images, options = numbered(side=8), {"m": 6, "augment": augment}
    assert_equal_batches(
        in_parts(count, images, **options), flat(batches(images, **options))
    )


def test_parts_of_images_in_files_and_of_distorted_ones(both, photographs):
    for images, augment in ((both[1], AUGMENT), (photographs, INCEPTION)):
        options = {"m": 6, "augment": augment, "start": 1, "stop": 6}
        assert_equal_batches(
            in_parts(3, images, **options), flat(batches(images, **options))
        )


@pytest.mark.parametrize("augment", [AUGMENT, INCEPTION])
def test_parts_have_the_stored_images_of_their_own(photographs, augment):
    """Those at 1 and 2 of 0 .. 2, and at 3 and 5 of 3 .. 5."""
    images = numbered(side=8) if augment is AUGMENT else photographs
    size = 5 if augment is AUGMENT else 6
    stored = STORED | {"stored_positions": [1, 2, 3, 5], "stored": Noted(size)}
    options = stored | {"augment": augment, "stop": 6}
    assert_equal_batches(
        in_parts(2, images, **options), flat(batches(images, **options))
    )


def test_a_part_reads_nothing_else(recorded, monkeypatch):
    read, positions = records.Records.read, []

    def noted(self, position):
        positions.append(int(position))
        return read(self, position)

    monkeypatch.setattr(records.Records, "read", noted)
    found = batches(recorded[1], m=4, stop=2, part=(1, 2))
    assert sorted(positions) == sorted(np.concatenate([y for _, y in found]))
    assert len(positions) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"part": (2, 2)}, r"0 <= i < p; received \(2, 2\)"),
        ({"part": (-1, 2)}, r"received \(-1, 2\)"),
        ({"part": (0, 4)}, "a batch of 6 is not 4 equal parts"),
        ({"part": (0, 2)}, "stored positions of 3 is not 2 equal parts"),
        (
            {"part": (0, 2), "stored_positions": [0, 4, 3, 5]},
            r"images 0 .. 1 do not belong to the rows 0 .. 2 .* \[0, 4, 3, 5\]",
        ),
    ],
)
def test_parts_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        batches(numbered(side=8), augment=AUGMENT, **STORED | changes)
