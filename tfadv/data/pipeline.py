"""Training batches as a pure function of (seed, step): resumable anywhere, for free."""

import tensorflow as tf

from tfadv.data.adversarial import draw_pixels
from tfadv.data.on_disk import OnDisk
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
    part=(0, 1),
):
    """The batches of the steps `start` .. `stop - 1`.

    Step s holds positions s * m .. s * m + m - 1 of an endless sequence in which
    every epoch is a permutation of the images of its own (`index_shuffle`, a
    pseudo-random bijection: nothing is stored, and a run that starts at step 1,000
    costs no more than one that starts at 0). Batches run across epochs, so none is
    short.

    Images on disk are decoded in the background, several at once, as far ahead as a few
    batches; the batches are bitwise those of the same images in memory.

    Args:
        images: `Images` with at least `batch_size` examples.
        batch_size: m.
        seed: int.
        start, stop: int, optimizer steps.
        augment: `Augment`, or `Inception`, which distorts image by image: the one at
            position p of the sequence by (seed, p).
        stored: `adversarial.StoredImages` made of these images, or None.
        stored_positions: [s] positions in a batch. There, x holds the centre crop,
            not mirrored, which is what the stored images are made of; all other
            positions hold what they hold without `stored`.
        part: (i, p), the i-th of p equal parts of every batch is made, and of the
            stored images, and nothing else is read: rows i m / p .. (i + 1) m / p - 1,
            bitwise.

    Returns:
        A `tf.data.Dataset` of (x [m, h, w, c] float32 in [0, 1], y [m] int32); with
        `stored` of ((x, x_stored [s, h, w, c] float32 in [0, 1]), y), where
        x_stored[j] is made of x[stored_positions[j]] at an eps drawn for it by
        `adversarial.draw_pixels`. Of a part m / p and s / p.

    Raises:
        ValueError: `stored` without positions or the reverse, or a position that is
            not in the batch; a `part` that is none, or batches that it does not divide.
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
    first, m = _rows(part, batch_size, "a batch")
    own_positions = _own(part, stored_positions, first, m)
    if stored is not None:
        stored.check(images, augment)
    n = len(images)
    if n < batch_size:
        raise RunError(
            f"a batch of {batch_size} images needs as many to train on, and the data "
            f"directory holds only {n}: set train.batch_size to {n} or less"
        )
    image_at, label_at = _reader(images.x), _reader(images.y, tf.int32)
    source_index = tf.constant(images.source_index, tf.int64)
    # Where the stored images belong, in the batch and in this part of it.
    at = tf.constant(list(stored_positions), tf.int32)
    at_own = tf.constant([p - first for p in own_positions], tf.int32)
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
        position = step * batch_size + tf.range(first, first + m, dtype=tf.int64)
        epoch = step * batch_size // n
        # As m <= n a batch touches two epochs at most.
        now, then = (shuffled(position % n, epoch + e) for e in (0, 1))
        return tf.where(position < (epoch + 1) * n, now, then)

    def batch(step, whole, labels):
        picked = whole
        if not augment.by_image:
            seed = seed_of(2, step)
            picked = augment.random(whole, seed, first=first, of=batch_size)
        if stored is None:
            return to_float(picked), labels
        if not augment.by_image:
            picked = tf.tensor_scatter_nd_update(
                picked, at_own[:, None], augment.center(tf.gather(whole, at_own))
            )
        x_stored = read_stored(tf.gather(indices(step), at_own), step)
        return (to_float(picked), to_float(x_stored)), labels

    def read_stored(index, step):
        s = len(own_positions)
        pixels = draw_pixels(stored.max_pixels, len(stored_positions), seed_of(3, step))
        pixels = pixels[part[0] * s : (part[0] + 1) * s]
        x_stored = tf.numpy_function(
            stored.read,
            [tf.gather(source_index, index), pixels],
            tf.uint8,
            stateful=False,
        )
        return tf.ensure_shape(x_stored, [s, *stored.image_shape])

    def example(position):
        index = shuffled(position % n, position // n)
        image = image_at(index)
        # One after the other: a record that was read for its image knows its label.
        with tf.control_dependencies([image]):
            label = label_at(index)
        if augment.by_image:
            image = tf.cond(
                tf.reduce_any(tf.cast(position % batch_size, tf.int32) == at),
                lambda: to_float(augment.center_one(image)),
                lambda: augment.random_one(image, seed_of(4, position)),
            )
        return image, label

    steps = tf.data.Dataset.range(start, stop)
    if isinstance(images.x, OnDisk) or augment.by_image:
        counted = tf.data.Dataset.range(start * m, stop * m)
        positions = counted.map(lambda i: i // m * batch_size + first + i % m)
        wholes = positions.map(
            example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        ).batch(m, drop_remainder=True)
        data = tf.data.Dataset.zip(steps, wholes)

        def make(step, whole):
            return batch(step, *whole)
    else:
        data = steps

        def make(step):
            index = indices(step)
            return batch(step, image_at(index), label_at(index))

    # Two calls at once keep order; the work is small gathers and crops.
    return data.map(make, num_parallel_calls=2, deterministic=True).prefetch(4)


def _rows(part, size, what):
    """(first, count) of the rows of a part of `size` rows."""
    i, parts = part
    if not 0 <= i < parts:
        raise ValueError(f"`part` must be (i, p) with 0 <= i < p; received {part}")
    if size % parts:
        raise ValueError(f"`part`: {what} of {size} is not {parts} equal parts")
    return i * (size // parts), size // parts


def _own(part, stored_positions, first, m):
    """The stored positions of a part, which must be those that lie in its rows."""
    start, count = _rows(part, len(stored_positions), "a list of stored positions")
    own = list(stored_positions)[start : start + count]
    if any(not first <= position < first + m for position in own):
        raise ValueError(
            f"`part`: the stored images {start} .. {start + count - 1} do not belong "
            f"to the rows {first} .. {first + m - 1} of a batch; received the "
            f"positions {list(stored_positions)}"
        )
    return own


def _reader(values, dtype=None):
    """Index, a scalar or [m] -> what is there: of values on disk a scalar alone."""
    if isinstance(values, OnDisk):
        keys = tf.constant(values.keys)
        return lambda index: values.load(tf.gather(keys, index))
    values = tf.constant(values, dtype)
    return lambda index: tf.gather(values, index)


def to_float(x):
    """uint8 images as float32 in [0, 1]: x / 255; floating point stays as it is."""
    x = tf.convert_to_tensor(x)
    return tf.cast(x, tf.float32) / (1.0 if x.dtype.is_floating else 255.0)


def to_uint8(x):
    """The inverse of `to_float`, rounded to the nearest pixel value."""
    return tf.cast(tf.round(x * 255.0), tf.uint8)
