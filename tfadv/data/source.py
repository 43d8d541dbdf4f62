"""What a data set is before and after it is read."""

import dataclasses
from collections.abc import Callable

import numpy as np

from tfadv.data.on_disk import ImagesOnDisk, OnDisk


@dataclasses.dataclass(frozen=True, kw_only=True)
class Images:
    """Images in memory, or on disk, which are decoded when they are needed.

    Args:
        x: [n, h, w, c] uint8, or float32 in [0, 1]; or `ImagesOnDisk`, of which
            `np.asarray` and `tf.constant` make such an array.
        y: [n] int32; or `OnDisk` beside such images, of which they make the same.
        source_index: [n], the position of each in the split that it comes from (those
            of the split `extra` go on after those of `train`); None where these are
            the first n of it.
    """

    x: np.ndarray | ImagesOnDisk
    y: np.ndarray | OnDisk
    source_index: np.ndarray | None = None

    def __post_init__(self):
        if self.source_index is None:
            object.__setattr__(self, "source_index", np.arange(len(self.x)))

    def __len__(self):
        return len(self.x)

    def take(self, index):
        """The images at `index`, a slice or an array of positions or of booleans."""
        return Images(
            x=self.x[index], y=self.y[index], source_index=self.source_index[index]
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A data set by name: known well enough to build a network before it is read.

    Args:
        image_shape: (h, w, c) as stored, h and w None where images differ in size.
        num_classes: K.
        sizes: examples in `train` and `test`, and in `extra` where there are more to
            train on: of the whole data set as it was published, which is what requests
            are checked against before anything is read. A directory may hold less (a
            part of the set, or images that cannot be read), so whoever needs a number
            of images looks again at what `read` returned.
        read: (split, data_dir) -> `Images`. A source with the split `extra` takes a
            third argument, a sorted array of the positions to keep.
        licence: one line on where it comes from.
        on_disk: whether `read` returns `ImagesOnDisk`, because the whole set is too
            much for the memory.
        ordered: whether neighbouring classes are alike, as groups of age.
    """

    image_shape: tuple[int | None, int | None, int]
    num_classes: int
    sizes: dict[str, int]
    read: Callable[..., Images]
    licence: str = ""
    on_disk: bool = False
    ordered: bool = False

    @property
    def ordered_classes(self):
        """K where the classes have an order, else None, as `measure` takes it."""
        return self.num_classes if self.ordered else None
