"""What a data set is before and after it is read."""

import dataclasses
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Images:
    """Images in memory.

    Args:
        x: [n, h, w, c] uint8, or float32 in [0, 1].
        y: [n] int32.
        source_index: [n], the position of each in the split that it comes from (those
            of the split `extra` go on after those of `train`); None where these are
            the first n of it.
    """

    x: np.ndarray
    y: np.ndarray
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
        image_shape: (h, w, c) as stored.
        num_classes: K.
        sizes: examples in `train` and `test`, and in `extra` where there are more to
            train on.
        read: (split, data_dir) -> `Images`. A source with the split `extra` takes a
            third argument, a sorted array of the positions to keep.
        licence: one line on where it comes from.
    """

    image_shape: tuple[int, int, int]
    num_classes: int
    sizes: dict[str, int]
    read: Callable[..., Images]
    licence: str = ""
