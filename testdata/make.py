"""Writes testdata/mnist: a TFDS directory that reads like MNIST, of 60 enlarged digits.

    python testdata/make.py

The images are scikit-learn's 8x8 digits, each pixel three by three, in a black frame.
So the path from prepared data to a trained model is tested without a download.
"""

import pathlib
import shutil

import numpy as np
import tensorflow_datasets as tfds

from tfadv.data import digits

HERE = pathlib.Path(__file__).resolve().parent
SIZES = {"train": 40, "test": 20}


def main():
    shutil.rmtree(HERE / "mnist", ignore_errors=True)
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(28, 28, 1), dtype=np.uint8),
            "label": tfds.features.ClassLabel(num_classes=10),
        }
    )
    tfds.dataset_builders.store_as_tfds_dataset(
        name="mnist",
        version="3.0.1",
        data_dir=HERE,
        features=features,
        split_datasets={split: list(examples(split, n)) for split, n in SIZES.items()},
        disable_shuffling=True,
    )


def examples(split, count):
    images = digits.read(split).take(slice(count))
    for i, (x, y) in enumerate(zip(images.x, images.y, strict=True)):
        enlarged = np.pad(np.kron(x[..., 0], np.ones((3, 3), np.uint8)), 2)
        yield i, {"image": enlarged[..., None], "label": int(y)}


if __name__ == "__main__":
    main()
