"""Seven images of one pixel with seven classes in a row, measured by hand.

`UP` ranks class c by how near the pixel is to 10 c, `DOWN` ranks class 6 - c so. An
attack of ten pixels makes every image brighter. The five nearest of

    2: 0 1 2 3 4    12: 1 2 0 3 4    22: 2 3 1 4 0    32: 3 4 2 5 1    42: 4 5 3 6 2

(22 is 22 from class 0 and 28 from class 5, 32 is 22 from 1 and 28 from 6), so of

| pixel | y | UP: rank, attacked | 6 - y | DOWN: rank, attacked |
|-------|---|--------------------|-------|----------------------|
|  2    | 4 | 5, 5               | 2     | 3, 2                 |
|  2    | 5 | -, -               | 1     | 2, 1                 |
| 32    | 3 | 1, 3               | 3     | 1, 3                 |
| 32    | 1 | 5, -               | 5     | 4, 2                 |
| 12    | 0 | 3, 5               | 6     | -, -                 |
| 22    | 0 | 5, -               | 6     | -, -                 |
| 22    | 6 | -, -               | 0     | 5, -                 |
"""

import numpy as np
import tensorflow as tf

from tests.evaluation.groups import ATTACK, EPS
from tfadv.data import Images

IMAGES = Images(
    x=np.array([2, 2, 32, 32, 12, 22, 22], np.uint8).reshape(7, 1, 1, 1),
    y=np.array([4, 5, 3, 1, 0, 0, 6], np.int32),
)


def UP(x):
    pixels = 255 * tf.reshape(x, [-1, 1])
    return -((pixels - 10 * tf.range(7.0)) ** 2)


def DOWN(x):
    return tf.reverse(UP(x), axis=[1])


# Of seven: how many are right, how many by top-5.
CLEAN_UP, ATTACKED_UP = (1, 5), (0, 3)
CLEAN_DOWN, ATTACKED_DOWN = (1, 5), (1, 4)

__all__ = [
    "ATTACK",
    "ATTACKED_DOWN",
    "ATTACKED_UP",
    "CLEAN_DOWN",
    "CLEAN_UP",
    "DOWN",
    "EPS",
    "IMAGES",
    "UP",
]
