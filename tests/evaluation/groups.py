"""Five images of one pixel with four classes in a row, measured by hand.

`UP` calls class c what is nearest to 10 c pixels, `DOWN` calls the same 3 - c. An
attack of ten pixels makes every image brighter.

| pixel | y | UP | attacked | DOWN | attacked |
|-------|---|----|----------|------|----------|
|  2    | 0 | 0  | 1        | 3    | 2        |
| 22    | 0 | 2  | 3        | 1    | 0        |
| 12    | 1 | 1  | 2        | 2    | 1        |
| 32    | 2 | 3  | 3        | 0    | 0        |
| 12    | 3 | 1  | 2        | 2    | 1        |
"""

import dataclasses

import numpy as np
import tensorflow as tf

from tfadv.data import Images
from tfadv.evaluation import suite

IMAGES = Images(
    x=np.array([2, 22, 12, 32, 12], np.uint8).reshape(5, 1, 1, 1),
    y=np.array([0, 0, 1, 2, 3], np.int32),
)
EPS = 10 / 255


@dataclasses.dataclass(frozen=True, kw_only=True)
class Brighter:
    eps: float

    def __call__(self, predict, x, y, seed=None):
        return x + self.eps


ATTACK = suite.Entry("brighter", "brighter", Brighter(eps=EPS))


def UP(x):
    pixels = 255 * tf.reshape(x, [-1, 1])
    return -((pixels - 10 * tf.range(4.0)) ** 2)


def DOWN(x):
    return tf.reverse(UP(x), axis=[1])


# Of five: how many are right, how many right or beside, and what is taken for what.
CLEAN_UP = (2, 3, [[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 1, 0, 0]])
ATTACKED_UP = (0, 4, [[0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 1, 0]])
CLEAN_DOWN = (0, 3, [[0, 1, 0, 1], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 1, 0]])
ATTACKED_DOWN = (2, 2, [[1, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0]])


def told(row):
    """What a row tells of five images: right, right or beside, the matrix."""
    return 5 * row["accuracy"], 5 * row["one_off"], row["confusion"]
