"""What stays on disk and stands for an array: each part is read when it is needed."""

import copy

import numpy as np
import tensorflow as tf


class OnDisk:
    """Values on disk, which stand for an array [n, ...].

    An index by slice, array of positions or array of booleans gives another of these
    and reads nothing: `x[3:7]`, `x[mask]`. `np.asarray(x)` and `tf.constant(x)` read
    all that is left, `x[3]` one value. So a set of any size can be cut into what is
    trained on and tested, and then into batches, and the memory holds one batch at a
    time.

    Args:
        keys: [n] array of what `load` takes.
        value_shape: of each value.
        dtype: of the array that this stands for.
    """

    def __init__(self, keys, value_shape, dtype):
        self._keys = keys
        self._value_shape = tuple(value_shape)
        self._dtype = np.dtype(dtype)

    @property
    def keys(self):
        """[n], what `load` takes for each value."""
        return self._keys

    @property
    def shape(self):
        """(n, ...) of the array that this stands for."""
        return (len(self._keys), *self._value_shape)

    @property
    def dtype(self):
        """Of the array that this stands for."""
        return self._dtype

    def __len__(self):
        return len(self._keys)

    def __getitem__(self, index):
        one = isinstance(index, (int, np.integer))
        found = copy.copy(self)
        found._keys = self._keys[[index] if one else index]
        return next(found._values()) if one else found

    def __array__(self, dtype=None, copy=None):
        if copy is False:
            raise ValueError("what is on disk has no array to share: use copy=None")
        array = np.empty(self.shape, self.dtype)
        for i, value in enumerate(self._values()):
            array[i] = value
        return array if dtype is None else array.astype(dtype, copy=False)

    def load(self, key):
        """One value, as a part of a graph.

        Args:
            key: scalar, one of `keys`.

        Returns:
            A tensor of its shape and dtype.
        """
        raise NotImplementedError

    def _values(self):
        """Each in order; several are read at once."""
        keys = tf.data.Dataset.from_tensor_slices(tf.constant(self._keys))
        data = keys.map(
            self.load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )
        done = 0
        try:
            for value in data.as_numpy_iterator():
                yield value
                done += 1
        except tf.errors.OpError:
            raise self._lost(self._keys[done]) from None

    def _lost(self, key):
        """The `RunError` where a value cannot be read."""
        raise NotImplementedError


class ImagesOnDisk(OnDisk):
    """Images [n, h, w, c] uint8 on disk: `Images.x`.

    After the images an index may cut rows and columns: `x[:, 16:240, 16:240]`.

    Args:
        keys: see `OnDisk`.
        image_shape: (h, w, c), c 1 or 3; h and w None where the images differ, until
            `map` has made them alike.
    """

    def __init__(self, keys, image_shape):
        super().__init__(keys, image_shape, np.uint8)
        self._window = _whole(image_shape)

    def __getitem__(self, index):
        images, *window = index if isinstance(index, tuple) else (index,)
        if not window:
            return super().__getitem__(images)
        if (
            len(window) > 2
            or None in self._window
            or not all(
                isinstance(part, slice) and part.step in (None, 1) for part in window
            )
        ):
            raise IndexError(
                "images on disk are indexed by images, then by slices of rows and "
                "columns without a step, and only by images where they differ in size; "
                f"received {window} after the images"
            )
        rows, columns = [*window, slice(None)][:2]
        found = copy.copy(self)
        found._window = (self._window[0][rows], self._window[1][columns])
        sides = (len(side) for side in found._window)
        found._value_shape = (*sides, self._value_shape[2])
        return found[images]

    def __array__(self, dtype=None, copy=None):
        if None in self._window:
            raise ValueError(
                "images of different sizes are no array: read them one by one, or "
                "`map` them to one size first"
            )
        return super().__array__(dtype, copy)

    def map(self, function, image_shape):
        """The same images, each changed as it is read.

        Args:
            function: [h, w, c] uint8 -> [h', w', c'] uint8, a part of a graph.
            image_shape: (h', w', c').

        Returns:
            `ImagesOnDisk`.
        """
        found = copy.copy(self)
        found._read = lambda key: tf.ensure_shape(function(self.load(key)), image_shape)
        found._value_shape = tuple(image_shape)
        found._window = _whole(image_shape)
        return found

    def load(self, key):
        """One image, as a part of a graph.

        Args:
            key: scalar, one of `keys`.

        Returns:
            [h, w, c] uint8.
        """
        image = self._read(key)
        if None in self._window:
            return image
        rows, columns = (slice(side.start, side.stop) for side in self._window)
        return image[rows, columns]

    def _read(self, key):
        """The image before rows and columns are cut; see `load`."""
        raise NotImplementedError


def decode(encoded, channels):
    """An image from the bytes of a JPEG, PNG or GIF that does not move.

    Args:
        encoded: string scalar.
        channels: int; a grey image becomes that many equal ones.

    Returns:
        [h, w, channels] uint8 of any h and w.
    """
    # Knows PNG and GIF, too. TensorFlow's own choice of a transform is faster and up to
    # 5 of 255 away from what Pillow and OpenCV give.
    return tf.io.decode_jpeg(encoded, channels=channels, dct_method="INTEGER_ACCURATE")


def middle_square(image, size):
    """The largest square in the middle of an image, stretched or shrunk to `size`.

    What a resize of the short side to `size` and a centre crop give, by bilinear
    interpolation without smoothing before, rounded to whole pixel values.

    Args:
        image: [h, w, c] uint8.
        size: int.

    Returns:
        [size, size, c] uint8.
    """
    sides = tf.shape(image)[:2]
    side = tf.reduce_min(sides)
    top, left = tf.unstack((sides - side) // 2)
    return resize(image[top : top + side, left : left + side], (size, size))


def resize(image, sides):
    """An image of another size, uint8 as it was.

    By bilinear interpolation between the four pixels around a point, without smoothing
    before, as `resize` of OpenCV does by default, and rounded to whole pixel values.

    Args:
        image: [..., h, w, c] uint8.
        sides: (h', w').

    Returns:
        [..., h', w', c] uint8.
    """
    return tf.cast(tf.round(tf.image.resize(image, sides)), tf.uint8)


def _whole(image_shape):
    return tuple(None if side is None else range(side) for side in image_shape[:2])
