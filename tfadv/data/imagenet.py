"""ImageNet and smaller sets of its images, read from record files image by image."""

import functools
import pathlib

from absl import logging

from tfadv.data.records import (
    FORMATS,
    Examples,
    ImageRecords,
    RecordLabels,
    Records,
    first_line,
)
from tfadv.data.source import Images, Source
from tfadv.data.tfds import damage, how_to_prepare, open_builder
from tfadv.errors import RunError

# The labels of what ImageNet calls its test images are not public.
SPLITS = {"train": "train", "test": "validation"}
# The format whose files open at once, and how many images in another take a while.
FILE_FORMAT, MANY = "array_record", 100_000
MANUAL = (
    "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, which ImageNet "
    "(https://image-net.org/download-images) gives to those who register"
)


def read(name, image_shape, split, data_dir, *, manual=None):
    """One split of a prepared TFDS data set, unread; never downloads.

    Files in array_record and in tfrecord format are known. The latter say nothing of
    where an image begins, so they are stepped through as they are opened, which takes a
    while where there are many images.

    Args:
        name: as TFDS takes it, with a config after a slash.
        image_shape: (h, w, c), h and w None where images differ.
        split: `"train"` or `"test"`, which is TFDS's `validation`.
        data_dir: where TFDS finds it; None for its default.
        manual: what has to be put where TFDS looks for it, if it cannot be fetched.

    Returns:
        `Images` with `ImageRecords` and `RecordLabels`.

    Raises:
        RunError: not prepared under `data_dir` (says how to prepare it), in files of
            another format, or the files are damaged or incomplete.
    """
    builder = open_builder(name, data_dir)
    directory = pathlib.Path(builder.data_dir)
    if not (directory / "dataset_info.json").exists():
        raise RunError(_not_prepared(name, directory, data_dir, manual))

    def damaged(reason):
        return RunError(damage(name, builder, reason))

    found = builder.info.splits.get(SPLITS[split])
    if not found or not found.num_examples:
        raise damaged(f"there is no split {SPLITS[split]!r}")
    file_format, paths = _files(found, builder)
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise damaged(f"{len(missing)} files are missing, such as {missing[0].name}")
    convert = f"tfds convert_format --dataset_version_dir={directory}"
    convert += f" --out_file_format={FILE_FORMAT}"
    if file_format not in FORMATS:
        raise RunError(
            f"data set {name} in {directory} has files in {file_format} format, which "
            f"cannot be read at random. Make others beside them: {convert}"
        )
    if file_format != FILE_FORMAT and found.num_examples >= MANY:
        logging.info(
            "%s %s: looking for %d images in %d files in %s format; others open at "
            "once: %s",
            *(name, split, found.num_examples, len(paths), file_format, convert),
        )
    try:
        records = Records(paths, found.shard_lengths, file_format=file_format)
    except Exception as error:  # As many kinds as files that may be damaged.
        raise damaged(first_line(error)) from None
    examples = Examples(
        records,
        what=f"data set {name} in {directory}, {SPLITS[split]},",
        advice="Delete that folder and prepare it again.",
    )
    return Images(x=ImageRecords(examples, image_shape), y=RecordLabels(examples))


def _files(split, builder):
    """(format, paths) of the files of a split, of several formats the best."""
    own = builder.info.file_format.file_suffix
    for file_format in (*FORMATS, own):
        template = split.filename_template.replace(filetype_suffix=file_format)
        paths = template.sharded_filepaths(split.num_shards)
        paths = [pathlib.Path(path) for path in paths]
        if all(path.exists() for path in paths):
            break
    return file_format, paths


def _not_prepared(name, directory, data_dir, manual):
    message = f"data set {name} is not prepared in {directory}. "
    command = how_to_prepare(name, data_dir, FILE_FORMAT)
    if manual is None:
        return f"{message}On a machine with a network run: {command}."
    # Where TFDS keeps what it downloads: beside name/version.
    folder = directory.parents[1] / "downloads" / "manual"
    return (
        f"{message}It cannot be fetched: put {manual}, into {folder} and run: {command}"
    )


def _source(name, side, num_classes, train, test, licence, manual=None):
    image_shape = (side, side, 3)
    return Source(
        image_shape=image_shape,
        num_classes=num_classes,
        sizes={"train": train, "test": test},
        read=functools.partial(read, name, image_shape, manual=manual),
        licence=licence,
        on_disk=True,
    )


IMAGENET = {
    "imagenet2012": _source(
        *("imagenet2012", None, 1000, 1_281_167, 50_000),
        "Russakovsky et al. 2015, ImageNet, for research without profit",
        MANUAL,
    ),
    "imagenette": _source(
        *("imagenette/320px-v2", None, 10, 9_469, 3_925),
        "Howard 2019, Imagenette: ten classes of ImageNet, short sides of 320 pixels",
    ),
} | {
    f"imagenet_resized_{side}x{side}": _source(
        *(f"imagenet_resized/{side}x{side}", side, 1000, 1_281_167, 50_000),
        "Chrabaszcz et al. 2017, ImageNet in small images",
    )
    for side in (32, 64)
}
