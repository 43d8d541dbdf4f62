import numpy as np
import pytest
import tensorflow as tf

from tfadv.data import Augment, Images, pipeline

N = 10


def numbered(n=N, side=1):
    """Images with label i whose first pixel is i; the others tell pixels apart."""
    x = np.arange(side * side, dtype=np.uint8).reshape(1, side, side, 1)
    first = np.arange(n, dtype=np.uint8)[:, None, None, None]
    return Images(x=first + x, y=np.arange(n, dtype=np.int32))


def batches(images=None, *, m=4, seed=0, start=0, stop=20, augment=None):
    data = pipeline.batches(
        images or numbered(),
        batch_size=m,
        seed=seed,
        start=start,
        stop=stop,
        augment=augment or Augment(),
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


def test_to_uint8_rounds_to_the_nearest():
    """10.4 and 10.6 of 255."""
    values = tf.constant([10.4, 10.6]) / 255
    assert pipeline.to_uint8(values).numpy().tolist() == [10, 11]
