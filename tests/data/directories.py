"""Small TFDS directories of photographs, for the tests of this folder."""

import pathlib

import numpy as np
import tensorflow_datasets as tfds


def photographs(n, *, sides=None, seed=0):
    """n images of noise, of 5 to 11 pixels in height and width or of given sides."""
    random = np.random.default_rng(seed)
    return [
        random.integers(0, 256, (*(sides or random.integers(5, 12, 2)), 3), np.uint8)
        for _ in range(n)
    ]


def write(
    data_dir,
    splits,
    *,
    name="imagenette",
    config="320px-v2",
    version="1.0.0",
    sides=(None, None),
    encoding="png",
    file_format="array_record",
    per_file=4,
):
    """Writes what `tfds.builder` finds in `data_dir`; the label of image i is i % 10.

    Args:
        splits: dict from the names that TFDS gives splits to lists of images.
        per_file: images in each file but the last.

    Returns:
        The directory of the files.
    """
    directory = pathlib.Path(data_dir, name, config, version)
    directory.mkdir(parents=True)
    image = tfds.features.Image(shape=(*sides, 3), encoding_format=encoding)
    info = tfds.core.DatasetInfo(
        builder=tfds.core.DatasetIdentity(
            name=name,
            config_name=config,
            version=tfds.core.Version(version),
            data_dir=str(directory),
            module_name=__name__,
        ),
        features=tfds.features.FeaturesDict(
            {"image": image, "label": tfds.features.ClassLabel(num_classes=10)}
        ),
        disable_shuffling=True,
    )
    writer = tfds.core.SequentialWriter(
        info, max_examples_per_shard=per_file, file_format=file_format
    )
    writer.initialize_splits(list(splits))
    writer.add_examples(
        {
            split: [{"image": x, "label": i % 10} for i, x in enumerate(images)]
            for split, images in splits.items()
        }
    )
    writer.close_all()
    return directory
