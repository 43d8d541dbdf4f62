"""Crops and flips, each example its own, as a pure function of a seed."""

import dataclasses
from typing import ClassVar

import tensorflow as tf


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augment:
    """Random crop and horizontal flip in training, centre crop otherwise.

    Args:
        crop: side of the square that is cut out; None keeps the size of the image.
        pad: zeros added on every side before the random crop, in training only.
            `pad=4` with `crop=None` is the usual pad-and-crop.
        flip: whether half of the training images are mirrored.

    Raises:
        ValueError: `crop` below 1, `pad` below 0.
    """

    crop: int | None = None
    pad: int = 0
    flip: bool = False

    # Whole batches at once; the images have one size.
    by_image: ClassVar[bool] = False

    def __post_init__(self):
        if self.crop is not None and self.crop < 1:
            raise ValueError(f"`crop` must be at least 1; received {self.crop}")
        if self.pad < 0:
            raise ValueError(f"`pad` must be at least 0; received {self.pad}")

    def output_shape(self, image_shape):
        """(h, w, c) of the images that leave.

        Raises:
            ValueError: the crop is larger than the image.
        """
        h, w, c = image_shape
        if self.crop is None:
            return image_shape
        if self.crop > min(h, w):
            raise ValueError(
                f"`crop` must be at most the image's side, {min(h, w)}; "
                f"received {self.crop}"
            )
        return (self.crop, self.crop, c)

    def center(self, x):
        """The centre crop of x [n, h, w, c], any array type."""
        h, w, _ = self.output_shape(tuple(x.shape[1:]))
        top, left = (x.shape[1] - h) // 2, (x.shape[2] - w) // 2
        return x[:, top : top + h, left : left + w]

    def random(self, x, seed, *, first=0, of=None):
        """A random crop and flip of every image by its own draw.

        Args:
            x: [n, h, w, c], any dtype.
            seed: [2] integers; equal seeds give equal crops.
            first, of: int, where x is the part of a batch of `of` images that begins at
                `first`: each is drawn what it is drawn in the whole batch.

        Returns:
            [n, h', w', c] with `output_shape`'s sides.
        """
        h, w, c = self.output_shape(tuple(x.shape[1:]))
        if self.pad:
            x = tf.pad(x, [[0, 0], [self.pad] * 2, [self.pad] * 2, [0, 0]])
        n = tf.shape(x)[0]
        whole = n if of is None else of
        draws = tf.random.stateless_uniform([3, whole], seed, alg="philox")
        draws = draws[:, first : first + n]
        rows = _offsets(draws[0], x.shape[1] - h)[:, None] + tf.range(h)
        columns = _offsets(draws[1], x.shape[2] - w)[:, None] + tf.range(w)
        if self.flip:
            mirrored = draws[2][:, None] < 0.5
            columns = tf.where(mirrored, columns[:, ::-1], columns)
        x = tf.gather(tf.gather(x, rows, batch_dims=1), columns, axis=2, batch_dims=1)
        return tf.ensure_shape(x, [None, h, w, c])


def _offsets(draws, largest):
    """Uniform integers 0 .. largest from draws in [0, 1)."""
    return tf.cast(draws * tf.cast(largest + 1, draws.dtype), tf.int32)
