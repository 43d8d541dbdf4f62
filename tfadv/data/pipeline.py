"""Training batches as a pure function of (seed, step): resumable anywhere, for free."""

import tensorflow as tf


def batches(images, *, batch_size, seed, start, stop, augment):
    """The batches of the steps `start` .. `stop - 1`.

    Step s holds positions s * m .. s * m + m - 1 of an endless sequence in which
    every epoch is a permutation of the images of its own (`index_shuffle`, a
    pseudo-random bijection: nothing is stored, and a run that starts at step 1,000
    costs no more than one that starts at 0). Batches run across epochs, so none is
    short.

    Args:
        images: `Images` with at least `batch_size` examples.
        batch_size: m.
        seed: int.
        start, stop: int, optimizer steps.
        augment: `Augment`.

    Returns:
        A `tf.data.Dataset` of (x [m, h, w, c] float32 in [0, 1], y [m] int32).
    """
    n = len(images)
    x, y = tf.constant(images.x), tf.constant(images.y, tf.int32)
    key = tf.constant(seed, tf.int64)

    def shuffled(position, epoch):
        return tf.random.experimental.index_shuffle(
            position, seed=tf.stack([key, epoch]), max_index=n - 1
        )

    def batch(step):
        position = step * batch_size + tf.range(batch_size, dtype=tf.int64)
        epoch = step * batch_size // n
        # As m <= n a batch touches two epochs at most.
        first, second = (shuffled(position % n, epoch + e) for e in (0, 1))
        index = tf.where(position < (epoch + 1) * n, first, second)
        crop_seed = tf.random.experimental.stateless_fold_in(
            tf.stack([key, tf.constant(2, tf.int64)]), step, alg="philox"
        )
        picked = augment.random(tf.gather(x, index), crop_seed)
        return to_float(picked), tf.gather(y, index)

    # Two calls at once keep order; the work is small gathers, not decoding.
    data = tf.data.Dataset.range(start, stop)
    return data.map(batch, num_parallel_calls=2, deterministic=True).prefetch(4)


def to_float(x):
    """uint8 images as float32 in [0, 1]: x / 255."""
    return tf.cast(x, tf.float32) / 255.0


def to_uint8(x):
    """The inverse of `to_float`, rounded to the nearest pixel value."""
    return tf.cast(tf.round(x * 255.0), tf.uint8)
