"""What the Inception networks and their auxiliary head share: convolutions, branches.

As in TF-slim, with which Kurakin et al. 2017 trained.
"""

import math
import string

from keras import layers

from tfadv.models import activations
from tfadv.models.layers import decay

AVERAGE_POOL, MAX_POOL = "average", "max"


def convolutions(*, width, activation, bn_momentum, weight_decay):
    """A function that adds a convolution, BN and the activation to a network.

    BN has a centre but no scale, and epsilon 1e-3; the convolution has no bias.

    Args:
        width: rho; a convolution of d filters here has max(int(d rho), 16).
        activation: a name, see `activations.get`.
        bn_momentum: of the moving statistics.
        weight_decay: wd in wd / 2 * sum(kernel^2).

    Returns:
        (x, label, filters, size, strides=1, padding="same", initializer="he_normal")
        -> [n, h', w', max(int(filters rho), 16)], through the layers
        `<label>_<h>x<w>`, `.._bn` and `.._<activation>`; h x w is the kernel's size.

    Raises:
        ValueError: a width that is not positive, an unknown activation.
    """
    if not 0 < width < math.inf:
        raise ValueError(f"`width` must be a positive number; received {width}")
    activate = activations.get(activation)

    def conv(
        x, label, filters, size, strides=1, padding="same", initializer="he_normal"
    ):
        height, breadth = (size, size) if isinstance(size, int) else size
        label = f"{label}_{height}x{breadth}"
        x = layers.Conv2D(
            max(int(filters * width), 16),
            (height, breadth),
            strides=strides,
            padding=padding,
            use_bias=False,
            kernel_initializer=initializer,
            kernel_regularizer=decay(weight_decay),
            name=label,
        )(x)
        x = layers.BatchNormalization(
            momentum=bn_momentum, epsilon=1e-3, scale=False, name=f"{label}_bn"
        )(x)
        return activate(x, label)

    return conv


def mixed(x, name, branches, conv):
    """Branches side by side; what they end in, concatenated by the layer `name`.

    The steps of branch i are `<name>_<i>a_..`, `<name>_<i>b_..`, so names of
    convolutions sort in the order in which they are made.

    Args:
        x: [n, h, w, c].
        name: of the block.
        branches: lists of steps. A step is the arguments of `conv` from `filters` on;
            `AVERAGE_POOL` (3x3, SAME); `MAX_POOL` (3x3 / 2, VALID); or, at the end, a
            list of steps side by side.
        conv: see `convolutions`.

    Returns:
        [n, h', w', sum of the filters at the ends].
    """
    ends = []
    for i, branch in enumerate(branches):
        letters = iter(string.ascii_lowercase)
        tips = [x]
        for step in branch:
            (before,) = tips
            tips = [
                _step(before, f"{name}_{i}{next(letters)}", one, conv)
                for one in (step if isinstance(step, list) else [step])
            ]
        ends += tips
    return layers.Concatenate(name=name)(ends)


def _step(x, label, step, conv):
    if step == AVERAGE_POOL:
        pool = layers.AveragePooling2D(
            3, strides=1, padding="same", name=f"{label}_pool"
        )
        return pool(x)
    if step == MAX_POOL:
        return layers.MaxPooling2D(3, strides=2, name=f"{label}_pool")(x)
    return conv(x, label, *step)
