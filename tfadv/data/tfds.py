"""Data sets that TensorFlow Datasets prepares, read into memory from `data_dir`."""

import functools

import numpy as np

from tfadv.data.source import Images, Source
from tfadv.errors import RunError


def read(name, split, data_dir):
    """One split of a prepared TFDS data set; never downloads.

    Raises:
        RunError: not prepared under `data_dir` (says how to prepare it), or the files
            are damaged or incomplete.
    """
    import tensorflow as tf
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except Exception as error:
        raise RunError(
            f"data set {name}: TFDS cannot open it: {_line(error)}"
        ) from None

    def damaged(error):
        return RunError(
            f"data set {name} in {builder.data_dir} is damaged or incomplete: "
            f"{_line(error)}. Delete that folder and prepare it again."
        )

    files = tfds.ReadConfig(interleave_cycle_length=1)
    try:
        data = builder.as_dataset(split=split, read_config=files, shuffle_files=False)
    except AssertionError:  # How TFDS says that there are no files.
        where = f" --data_dir={data_dir}" if data_dir else ""
        raise RunError(
            f"data set {name} is not prepared in {builder.data_dir}. On a machine with "
            f"a network run: tfds build {name}{where}  (or point --data_dir at a "
            "folder that holds it)."
        ) from None
    except (ValueError, OSError) as error:
        raise damaged(error) from None
    try:
        batches = list(data.batch(1000).as_numpy_iterator())
    except (tf.errors.OpError, AssertionError, ValueError, OSError) as error:
        raise damaged(error) from None
    x = np.concatenate([b["image"] for b in batches]) if batches else np.zeros([0])
    # `tfds.testing.mock_data` knows no splits.
    known = builder.info.splits.get(split)
    expected = known and known.num_examples
    if expected and len(x) != expected:
        raise RunError(
            f"data set {name} in {builder.data_dir} is incomplete: {len(x)} of "
            f"{expected} {split} examples. Delete that folder and prepare it again."
        )
    y = np.concatenate([b["label"] for b in batches]).astype(np.int32)
    return Images(x=x, y=y)


def _line(error):
    return str(error).strip().splitlines()[0] if str(error).strip() else repr(error)


def _source(name, image_shape, num_classes, train, test, licence):
    return Source(
        image_shape=image_shape,
        num_classes=num_classes,
        sizes={"train": train, "test": test},
        read=functools.partial(read, name),
        licence=licence,
    )


MNIST = _source("mnist", (28, 28, 1), 10, 60_000, 10_000, "LeCun et al., MNIST")
CIFAR10 = _source(
    "cifar10", (32, 32, 3), 10, 50_000, 10_000, "Krizhevsky 2009, CIFAR-10"
)
CIFAR100 = _source(
    "cifar100", (32, 32, 3), 100, 50_000, 10_000, "Krizhevsky 2009, CIFAR-100"
)
SVHN_CROPPED = _source(
    "svhn_cropped", (32, 32, 3), 10, 73_257, 26_032, "Netzer et al. 2011, SVHN"
)
