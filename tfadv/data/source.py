"""What a data set is before and after it is read."""

import dataclasses
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Images:
    """Images in memory.

    Args:
        x: [n, h, w, c] uint8.
        y: [n] int32.
    """

    x: np.ndarray
    y: np.ndarray

    def __len__(self):
        return len(self.x)

    def take(self, index):
        """The images at `index`, a slice or an array of positions."""
        return Images(x=self.x[index], y=self.y[index])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A data set by name: known well enough to build a network before it is read.

    Args:
        image_shape: (h, w, c) as stored.
        num_classes: K.
        sizes: examples in `train` and `test`.
        read: (split, data_dir) -> `Images`.
        licence: one line on where it comes from.
    """

    image_shape: tuple[int, int, int]
    num_classes: int
    sizes: dict[str, int]
    read: Callable[[str, str | None], Images]
    licence: str = ""
