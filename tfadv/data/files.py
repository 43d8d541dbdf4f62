"""Images in files: found, checked and decoded only when they are needed."""

import collections
import os
import stat
import time

import numpy as np
import tensorflow as tf
from absl import logging
from tqdm import tqdm

from tfadv.data.on_disk import ImagesOnDisk, decode, resize
from tfadv.errors import RunError

# Of the files of a split, how many may be unreadable: this share, but always two, so
# that a set of a few dozen images is no stricter than one of thousands.
TOLERATED_SHARE, TOLERATED = 0.01, 2


class ImageFiles(ImagesOnDisk):
    """Images in files, which stand for an array [n, h, w, c] uint8: `Images.x`.

    See `OnDisk` for what they can do without being read.

    Every image is stretched to h x w by bilinear interpolation between the four pixels
    around a point, without smoothing before, as `resize` of OpenCV does by default, and
    rounded to whole pixel values. JPEG, PNG and GIF that does not move are known,
    whatever the names of the files; grey images become c equal channels.

    Args:
        paths: [n] names of files.
        image_shape: (h, w, c), c 1 or 3.

    Raises:
        RunError: an image that is asked for cannot be read; see `readable`, which
            tells before.
    """

    def __init__(self, paths, image_shape):
        keys = np.empty(len(paths), object)
        keys[:] = [os.fspath(path) for path in paths]
        super().__init__(keys, image_shape)
        self._image_shape = tuple(image_shape)

    @property
    def paths(self):
        """[n] names of the files, an array of str."""
        return self.keys

    def _read(self, path):
        h, w, c = self._image_shape
        return resize(decode(tf.io.read_file(path), c), (h, w))

    def _lost(self, path):
        return RunError(
            f"{path} cannot be read as an image any more, and could when the data set "
            "was opened. Was it moved or changed? Start again once it is back."
        )


def readable(paths, *, what, advice):
    """Which files can be decoded. Those that cannot are logged, with their count.

    Every file is decoded once in a process, unless it has changed since; nothing is
    written anywhere. A bar on a terminal, lines in a log, show how far that is.

    Args:
        paths: [n] names of files.
        what: the data set and split, for messages.
        advice: a sentence on what to do where too many are missing.

    Returns:
        [n] bool.

    Raises:
        RunError: more than 1 % of them, and more than two, are missing or damaged.
    """
    paths = [os.fspath(path) for path in paths]
    reasons = _unreadable(paths, what)
    if not reasons:
        return np.ones(len(paths), bool)
    counts = collections.Counter(reasons.values())
    each = ", ".join(f"{count} {reason}" for reason, count in counts.items())
    shown = ", ".join(list(reasons)[:3]) + (", ..." if len(reasons) > 3 else "")
    found = f"{what}: {len(reasons)} of {len(paths)} images cannot be read ({each}): "
    if len(reasons) > max(TOLERATED, TOLERATED_SHARE * len(paths)):
        raise RunError(f"{found}{shown}. {advice}")
    logging.warning("%s%s. They are left out.", found, shown)
    return np.array([path not in reasons for path in paths], bool)


# path -> (size, time of change, whether it could be decoded), of this process.
_CHECKED = {}


def _unreadable(paths, what):
    """dict from path to `"missing"` or `"damaged"`, in the order of `paths`."""
    marks = {path: _mark(path) for path in paths}
    new = [
        path
        for path, mark in marks.items()
        if mark is not None and _CHECKED.get(path, ())[:2] != mark
    ]
    decoded = _decodable(new, what)
    for path, good in zip(new, decoded, strict=True):
        _CHECKED[path] = (*marks[path], bool(good))
    return {
        path: "missing" if mark is None else "damaged"
        for path, mark in marks.items()
        if mark is None or not _CHECKED[path][2]
    }


def _mark(path):
    """(size, time of change) of a file, or None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


def _decodable(paths, what, every_seconds=20.0):
    """[n] bool: whether each of the files can be decoded."""
    good = np.zeros(len(paths), bool)
    numbered = tf.data.Dataset.from_tensor_slices(
        (np.arange(len(paths)), tf.constant(paths, tf.string))
    )
    # What is computed must be used, or the graph is optimised until nothing is left.
    sizes = numbered.map(
        lambda i, path: (i, tf.shape(decode(tf.io.read_file(path), 3))),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    ).ignore_errors()
    begin = last = time.monotonic()
    with tqdm(
        total=len(paths), desc=f"checking {what}", disable=None, leave=False
    ) as bar:
        for i, _ in sizes.as_numpy_iterator():
            good[i] = True
            bar.update(i + 1 - bar.n)
            now = time.monotonic()
            if bar.disable and now - last >= every_seconds:
                last = now
                left = (now - begin) / (i + 1) * (len(paths) - i - 1)
                logging.info(
                    "checking %s: %d of %d images, %.0f s left",
                    *(what, i + 1, len(paths), left),
                )
    return good
