"""Data sets that TensorFlow Datasets prepares, read into memory from `data_dir`."""

import functools

import numpy as np

from tfadv.data.records import first_line
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

    builder = open_builder(name, data_dir)

    def damaged(error):
        return RunError(damage(name, builder, first_line(error)))

    files = tfds.ReadConfig(interleave_cycle_length=1)
    try:
        data = builder.as_dataset(split=split, read_config=files, shuffle_files=False)
    except AssertionError:  # How TFDS says that there are no files.
        raise RunError(
            f"data set {name} is not prepared in {builder.data_dir}. On a machine with "
            f"a network run: {how_to_prepare(name, data_dir)}."
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
        raise RunError(damage(name, builder, f"{count} of {needed} {split} examples"))
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


def open_builder(name, data_dir):
    """TFDS's builder of a data set; nothing is fetched or written.

    Args:
        name: as TFDS takes it, with a config after a slash.
        data_dir: where TFDS finds it; None for its default.

    Raises:
        RunError: what is there cannot be read, or TFDS does not know the name.
    """
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(name, data_dir=data_dir)
    except Exception as error:
        raise RunError(
            f"data set {name}: TFDS cannot open it: {first_line(error)}"
        ) from None


def how_to_prepare(name, data_dir, file_format=None):
    """The commands that make TFDS prepare a data set, and what to do without.

    Args:
        name, data_dir: as `open_builder` takes them.
        file_format: of the files, None for TFDS's default.
    """
    command, given = f"tfds build {name}", [f"{name!r}"]
    for option, value in (("file_format", file_format), ("data_dir", data_dir)):
        if value:
            command += f" --{option}={value}"
            given.append(f"{option}={str(value)!r}")
    # Some versions of the command want packages that tensorflow-datasets does not
    # bring: apache_beam and mlcroissant.
    return (
        f'{command}  (or, where that command misses a module: python -c "import '
        f"tensorflow_datasets as tfds; tfds.builder({', '.join(given)})"
        '.download_and_prepare()"; or point --data_dir at a folder that holds it)'
    )


def damage(name, builder, reason):
    """What to say of files that cannot be read."""
    return (
        f"data set {name} in {builder.data_dir} is damaged or incomplete: {reason}. "
        "Delete that folder and prepare it again."
    )


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
