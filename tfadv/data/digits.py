"""The embedded data: 1,797 real handwritten digits of 8x8 pixels, from scikit-learn."""

import functools

import numpy as np

from tfadv.data.source import Images, Source

TEST_SIZE = 450


@functools.cache
def _splits():
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    # Stored as 0..16; 8-bit pixels so that it is like every other source.
    x = np.round(x * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    index = np.arange(len(x))
    train, test = train_test_split(
        index, test_size=TEST_SIZE, random_state=0, stratify=y
    )
    y = y.astype(np.int32)
    return {
        "train": Images(x=x[train], y=y[train]),
        "test": Images(x=x[test], y=y[test]),
    }


def read(split, data_dir=None):
    """One split; nothing is fetched and `data_dir` is not used."""
    del data_dir
    return _splits()[split]


DIGITS = Source(
    image_shape=(8, 8, 1),
    num_classes=10,
    sizes={"train": 1797 - TEST_SIZE, "test": TEST_SIZE},
    read=read,
    licence="UCI Optical Recognition of Handwritten Digits, in scikit-learn",
)
