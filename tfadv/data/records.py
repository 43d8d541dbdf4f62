"""Records in the files of TensorFlow Datasets, read at random and one by one."""

import atexit
import bisect
import concurrent.futures
import functools
import itertools
import os
import pathlib
import struct
import threading
import time

import numpy as np
import tensorflow as tf
from array_record.python.array_record_module import ArrayRecordReader

from tfadv.data.on_disk import ImagesOnDisk, OnDisk, decode
from tfadv.errors import RunError

# Of the files of array_record format, how many stay open: ImageNet has 1,024, and many
# systems let a process open no more.
OPEN_FILES = 256
# How many files are looked at together as they are opened.
OPENED_AT_ONCE = 16


class Records:
    """Records in several files, which count on from one file to the next.

    Opening looks at the length of every file, reading takes what is asked for, so the
    memory does not grow with the records. Files in `array_record` format say where
    their records are; those in `tfrecord` format are stepped through once.

    Args:
        paths: of the files, in order.
        lengths: how many records each must hold.
        file_format: `"array_record"` or `"tfrecord"`.

    Raises:
        ValueError: a file that is damaged or holds another number of records.
        OSError: a file that cannot be read.
    """

    def __init__(self, paths, lengths, *, file_format="array_record"):
        _stop_before_exit()
        self._files = FORMATS[file_format]([os.fspath(path) for path in paths])
        self._ends = list(itertools.accumulate(lengths))
        for path, expected, length in zip(
            paths, lengths, self._files.lengths, strict=True
        ):
            if length != expected:
                raise ValueError(
                    f"{pathlib.Path(path).name} has {length} of {expected} examples"
                )

    def __len__(self):
        return self._ends[-1] if self._ends else 0

    def read(self, position):
        """The bytes of a record. Several threads may read at once.

        Args:
            position: int, 0 .. n - 1.

        Raises:
            RunError: the process ends.
            IndexError: there is no such record.
            Exception: as many kinds as files that may be damaged.
        """
        if _STOPPED.is_set():
            raise RunError("the process ends")
        position = int(position)
        if not 0 <= position < len(self):
            raise IndexError(f"record {position} of {len(self)}")
        number = bisect.bisect_right(self._ends, position)
        before = self._ends[number - 1] if number else 0
        return self._files.read(number, position - before)


class _ArrayRecordFiles:
    """Of the format made for this."""

    def __init__(self, paths):
        self._paths = paths
        # What it would read ahead is of no use to random access.
        self._reader = functools.lru_cache(OPEN_FILES)(
            lambda path: ArrayRecordReader(path, "readahead_buffer_size:0")
        )
        self.lengths = _of_each(lambda path: self._reader(path).num_records(), paths)

    def read(self, number, i):
        # As a range: the time to read a list of positions grows with the file.
        return self._reader(self._paths[number]).read(i, i + 1)[0]


class _TFRecordFiles:
    """Of TensorFlow's older format, in which only a record says where the next begins.

    A record is its length n in 8 bytes, 4 bytes of checksum, n bytes, and 4 bytes of
    checksum. The checksums are not looked at.
    """

    HEAD, TAIL = 12, 4

    def __init__(self, paths):
        self._paths = paths
        self._ends = _of_each(self._walk, paths)
        self.lengths = [len(ends) - 1 for ends in self._ends]

    def read(self, number, i):
        start, end = self._ends[number][i : i + 2]
        with open(self._paths[number], "rb") as file:
            file.seek(start + self.HEAD)
            size = int(end - start) - self.HEAD - self.TAIL
            record = file.read(size)
        if len(record) != size:
            raise ValueError(f"{pathlib.Path(self._paths[number]).name} is cut off")
        return record

    def _walk(self, path):
        """[records + 1] int64: where each record begins, and the last one ends."""
        ends, end = [0], 0
        with open(path, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            while end < size:
                file.seek(end)
                head = file.read(self.HEAD)
                if len(head) == self.HEAD:
                    (length,) = struct.unpack_from("<Q", head)
                    end += self.HEAD + length + self.TAIL
                if len(head) < self.HEAD or end > size:
                    raise ValueError(f"{pathlib.Path(path).name} is cut off")
                ends.append(end)
        return np.array(ends, np.int64)


# By the names that TFDS gives them.
FORMATS = {"array_record": _ArrayRecordFiles, "tfrecord": _TFRecordFiles}


def _of_each(function, paths):
    """List of `function(path)`, several at once: most of it is waiting for the disk."""
    with concurrent.futures.ThreadPoolExecutor(OPENED_AT_ONCE) as pool:
        return list(pool.map(function, paths))


class Examples:
    """The images and labels of a split that TFDS has written.

    Args:
        records: `Records` of `tf.train.Example`s with `image`, the bytes of a file, and
            `label`.
        what: the data set and split, for messages.
        advice: a sentence on what to do where they are damaged.
    """

    def __init__(self, records, *, what, advice):
        self._records = records
        self._what, self._advice = what, advice
        # Of each label that was seen, -1 of the others.
        self._labels = np.full(len(records), -1, np.int32)

    def __len__(self):
        return len(self._records)

    def image(self, position):
        """The bytes of an image as a part of a graph: string scalar.

        Args:
            position: int64 scalar.
        """
        read = tf.numpy_function(
            lambda i: self._example(i)[0], [position], tf.string, stateful=False
        )
        return tf.ensure_shape(read, [])

    def label(self, position):
        """A label as a part of a graph: int32 scalar.

        Args:
            position: int64 scalar.
        """
        read = tf.numpy_function(self._label, [position], tf.int32, stateful=False)
        return tf.ensure_shape(read, [])

    def known_labels(self, positions):
        """[n] int32 labels, if all were seen before, else None."""
        labels = self._labels[positions]
        return None if (labels < 0).any() else labels

    def lost(self, position, reason=""):
        """The `RunError` where an example cannot be read."""
        return RunError(
            f"{self._what} is damaged: example {position} cannot be read{reason}. "
            f"{self._advice}"
        )

    def _label(self, position):
        label = self._labels[position]
        return label if label >= 0 else self._example(position)[1]

    def _example(self, position):
        """(bytes of the image, label)."""
        try:
            example = tf.train.Example.FromString(self._records.read(position))
            (image,) = example.features.feature["image"].bytes_list.value
            (label,) = example.features.feature["label"].int64_list.value
        except RunError:
            raise
        except Exception as error:
            raise self.lost(position, f": {first_line(error)}") from None
        self._labels[position] = label
        return image, np.int32(label)


class ImageRecords(ImagesOnDisk):
    """Images in records, which stand for an array [n, h, w, c] uint8: `Images.x`.

    See `OnDisk` for what they can do without being read.

    Args:
        examples: `Examples`.
        image_shape: (h, w, c) as they are stored; h and w None where images differ.

    Raises:
        RunError: an image that is asked for cannot be read.
    """

    def __init__(self, examples, image_shape):
        super().__init__(np.arange(len(examples)), image_shape)
        self._examples = examples
        self._image_shape = tuple(image_shape)

    def _read(self, position):
        image = decode(self._examples.image(position), self._image_shape[2])
        return tf.ensure_shape(image, self._image_shape)

    def _lost(self, position):
        return self._examples.lost(position)


class RecordLabels(OnDisk, np.lib.mixins.NDArrayOperatorsMixin):
    """The labels beside `ImageRecords`, which stand for an array [n] int32: `Images.y`.

    They are in the records of the images and nowhere else, so knowing all means to read
    all; each is read once in a process. Arithmetic and comparisons give arrays.

    Args:
        examples: `Examples`.

    Raises:
        RunError: a label that is asked for cannot be read.
    """

    def __init__(self, examples):
        super().__init__(np.arange(len(examples)), (), np.int32)
        self._examples = examples

    def __getitem__(self, index):
        if isinstance(index, tuple):
            return np.asarray(self)[index]
        return super().__getitem__(index)

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        arrays = [np.asarray(x) if isinstance(x, OnDisk) else x for x in inputs]
        return getattr(ufunc, method)(*arrays, **options)

    def load(self, position):
        return self._examples.label(position)

    def _values(self):
        known = self._examples.known_labels(self._keys)
        return super()._values() if known is None else iter(known)

    def _lost(self, position):
        return self._examples.lost(position)


def first_line(error):
    """What an error says, in one line."""
    return str(error).strip().splitlines()[0] if str(error).strip() else repr(error)


_STOPPED = threading.Event()


@functools.cache
def _stop_before_exit():
    """Lets threads of tf.data finish: Python aborts if one calls it while it ends."""

    def stop():
        _STOPPED.set()
        time.sleep(0.1)

    atexit.register(stop)
