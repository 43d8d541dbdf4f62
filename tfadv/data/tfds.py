"""Data sets that TensorFlow Datasets prepares, read into memory from `data_dir`."""

import functools

import numpy as np

from tfadv.data.source import Images, Source
from tfadv.errors import RunError


def read(name, split, data_dir, positions=None):
    """One split of a prepared TFDS data set; never downloads.

    Args:
        name: of the data set.
        split: of it.
        data_dir: where TFDS finds it; None for its default.
        positions: sorted array of the positions in the split to keep, None for all.
            Others are dropped as they are read, so they never fill the memory.

    Returns:
        `Images`, their `source_index` the positions.

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
        count, batches = _kept(data.batch(1000).as_numpy_iterator(), positions)
    except (tf.errors.OpError, AssertionError, ValueError, OSError) as error:
        raise damaged(error) from None
    # `tfds.testing.mock_data` knows no splits.
    known = builder.info.splits.get(split)
    expected = known and known.num_examples
    needed = expected or 0
    if positions is not None and len(positions):
        needed = max(needed, positions[-1] + 1)
    if count < needed or (expected and count > expected):
        raise RunError(
            f"data set {name} in {builder.data_dir} is incomplete: {count} of "
            f"{needed} {split} examples. Delete that folder and prepare it again."
        )
    x = np.concatenate([b["image"] for b in batches])
    y = np.concatenate([b["label"] for b in batches]).astype(np.int32)
    return Images(x=x, y=y, source_index=positions)


def _kept(batches, positions):
    """How many examples there are, and those at `positions`, batch by batch."""
    count, kept = 0, []
    for batch in batches:
        start, count = count, count + len(batch["label"])
        if positions is not None:
            first, end = np.searchsorted(positions, [start, count])
            index = positions[first:end] - start
            batch = {key: batch[key][index] for key in ("image", "label")}
        kept.append(batch)
    return count, kept


def _line(error):
    return str(error).strip().splitlines()[0] if str(error).strip() else repr(error)


def _source(name, image_shape, num_classes, train, test, licence, **more):
    return Source(
        image_shape=image_shape,
        num_classes=num_classes,
        sizes={"train": train, "test": test, **more},
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
    "svhn_cropped",
    (32, 32, 3),
    10,
    73_257,
    26_032,
    "Netzer et al. 2011, SVHN",
    extra=531_131,
)
