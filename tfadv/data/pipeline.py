"""Training batches as a pure function of (seed, step): resumable anywhere, for free."""

import tensorflow as tf

from tfadv.data.adversarial import draw_pixels
from tfadv.data.files import ImageFiles
from tfadv.errors import RunError


def batches(
    images,
    *,
    batch_size,
    seed,
    start,
    stop,
    augment,
    stored=None,
    stored_positions=(),
):
    """The batches of the steps `start` .. `stop - 1`.

    Step s holds positions s * m .. s * m + m - 1 of an endless sequence in which
    every epoch is a permutation of the images of its own (`index_shuffle`, a
    pseudo-random bijection: nothing is stored, and a run that starts at step 1,000
    costs no more than one that starts at 0). Batches run across epochs, so none is
    short.

    Images in files are decoded in the background, several at once, as far ahead as a
    few batches; the batches are bitwise those of the same images in memory.

    Args:
        images: `Images` with at least `batch_size` examples.
        batch_size: m.
        seed: int.
        start, stop: int, optimizer steps.
        augment: `Augment`.
        stored: `adversarial.StoredImages` made of these images, or None.
        stored_positions: [s] positions in a batch. There, x holds the centre crop,
            not mirrored, which is what the stored images are made of; all other
            positions hold what they hold without `stored`.

    Returns:
        A `tf.data.Dataset` of (x [m, h, w, c] float32 in [0, 1], y [m] int32); with
        `stored` of ((x, x_stored [s, h, w, c] float32 in [0, 1]), y), where
        x_stored[j] is made of x[stored_positions[j]] at an eps drawn for it by
        `adversarial.draw_pixels`.

    Raises:
        ValueError: `stored` without positions or the reverse, or a position that is
            not in the batch.
        RunError: `stored` was made of other images; fewer images than a batch, which
            only shows when they are read.
    """
    if (stored is None) != (len(stored_positions) == 0):
        raise ValueError(
            "`stored` and `stored_positions` belong together; received "
            f"{'no' if stored is None else 'some'} stored images and "
            f"{len(stored_positions)} positions"
        )
    if any(not 0 <= position < batch_size for position in stored_positions):
        raise ValueError(
            f"`stored_positions` must be from 0 to {batch_size - 1}; received "
            f"{list(stored_positions)}"
        )
    if stored is not None:
        stored.check(images, augment)
    n = len(images)
    if n < batch_size:
        raise RunError(
            f"a batch of {batch_size} images needs as many to train on, and the data "
            f"directory holds only {n}: set train.batch_size to {n} or less"
        )
    y = tf.constant(images.y, tf.int32)
    source_index = tf.constant(images.source_index, tf.int64)
    at = tf.constant(list(stored_positions), tf.int32)
    key = tf.constant(seed, tf.int64)

    def seed_of(purpose, step):
        return tf.random.experimental.stateless_fold_in(
            tf.stack([key, tf.constant(purpose, tf.int64)]), step, alg="philox"
        )

    def shuffled(position, epoch):
        return tf.random.experimental.index_shuffle(
            position, seed=tf.stack([key, epoch]), max_index=n - 1
        )

    def indices(step):
        position = step * batch_size + tf.range(batch_size, dtype=tf.int64)
        epoch = step * batch_size // n
        # As m <= n a batch touches two epochs at most.
        first, second = (shuffled(position % n, epoch + e) for e in (0, 1))
        return tf.where(position < (epoch + 1) * n, first, second)

    def batch(step, whole):
        index = indices(step)
        picked = augment.random(whole, seed_of(2, step))
        if stored is None:
            return to_float(picked), tf.gather(y, index)
        picked = tf.tensor_scatter_nd_update(
            picked, at[:, None], augment.center(tf.gather(whole, at))
        )
        x_stored = read_stored(tf.gather(index, at), step)
        return (to_float(picked), to_float(x_stored)), tf.gather(y, index)

    def read_stored(index, step):
        s = len(stored_positions)
        pixels = draw_pixels(stored.max_pixels, s, seed_of(3, step))
        x_stored = tf.numpy_function(
            stored.read,
            [tf.gather(source_index, index), pixels],
            tf.uint8,
            stateful=False,
        )
        return tf.ensure_shape(x_stored, [s, *stored.image_shape])

    steps = tf.data.Dataset.range(start, stop)
    if isinstance(images.x, ImageFiles):
        paths = tf.constant(images.x.paths.tolist(), tf.string)

        def load(position):
            index = shuffled(position % n, position // n)
            return images.x.load(tf.gather(paths, index))

        positions = tf.data.Dataset.range(start * batch_size, stop * batch_size)
        wholes = positions.map(
            load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        ).batch(batch_size, drop_remainder=True)
        data, make = tf.data.Dataset.zip(steps, wholes), batch
    else:
        x = tf.constant(images.x)
        data, make = steps, lambda step: batch(step, tf.gather(x, indices(step)))
    # Two calls at once keep order; the work is small gathers and crops.
    return data.map(make, num_parallel_calls=2, deterministic=True).prefetch(4)


def to_float(x):
    """uint8 images as float32 in [0, 1]: x / 255; floating point stays as it is."""
    x = tf.convert_to_tensor(x)
    return tf.cast(x, tf.float32) / (1.0 if x.dtype.is_floating else 255.0)


def to_uint8(x):
    """The inverse of `to_float`, rounded to the nearest pixel value."""
    return tf.cast(tf.round(x * 255.0), tf.uint8)
