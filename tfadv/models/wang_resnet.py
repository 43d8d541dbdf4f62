"""The CIFAR and SVHN classifier D2 of Wang & Yu 2019 (Fig. 3b)."""

import functools
from typing import Literal

import keras
from keras import layers

from tfadv import errors
from tfadv.models.layers import decay, normalization
from tfadv.models.residual import batch_norm, convolution, residual_block

KERNELS = {
    "cifar": keras.initializers.LecunNormal,
    "svhn": functools.partial(keras.initializers.TruncatedNormal, stddev=0.02),
}


def wang_resnet(
    input_shape,
    num_classes,
    *,
    variant: Literal["cifar", "svhn"] = "cifar",
    bn_momentum: float = 0.997,
    weight_decay: float = 0.0,
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
):
    """conv 3x3x16; three stages of three residual blocks of 16, 32, 64; mean; dense K.

    The 20 layers of the paper's "ResNet-18". The first block of stages 2 and 3 halves
    the size. Unlike `resnet_cifar`, the first block of every stage, of stage 1 as well,
    projects its shortcut: see `residual.residual_block`.

    | variant | after conv 3x3x16 | before the mean | kernels, dense K included |
    |---------|-------------------|-----------------|---------------------------|
    | cifar   | BN - ReLU         |                 | LeCun normal              |
    | svhn    |                   | BN - ReLU       | truncated normal (0.02)   |

    The paper prints one network for both data sets, without either BN - ReLU; what
    differs, and the projections, are in its code.

    Args:
        input_shape: (h, w, c). The paper's average pool of 8x8 is the mean over the
            positions, here for every size.
        num_classes: K.
        variant: see above.
        bn_momentum: of the moving statistics; .997 in the paper's code.
        weight_decay: wd in wd / 2 * sum(kernel^2); 1e-5 in the paper.
        mean, std: of the channels, applied to x in [0, 1] by the first layer. The
            paper's inputs 2 x - 1 are `mean=(0.5,)`, `std=(0.5,)`.

    Returns:
        A functional `keras.Model` from x [n, h, w, c] to logits [n, K]. Trainable
        parameters for 3 channels and 10 classes: 272,762 (cifar), 272,858 (svhn).

    Raises:
        UsageError: an unknown variant (a `ValueError`).
    """
    initializer = errors.lookup(KERNELS, variant, "variant")()
    kernel = {"kernel_initializer": initializer, "weight_decay": weight_decay}

    def bn_relu(x):
        return layers.ReLU()(batch_norm(x, momentum=bn_momentum))

    inputs = keras.Input(input_shape)
    x = normalization(mean, std, input_shape[-1])(inputs)
    x = convolution(x, 3, 1, 16, **kernel)
    if variant == "cifar":
        x = bn_relu(x)
    for filters in (16, 32, 64):
        for i in range(3):
            x = residual_block(
                x,
                3,
                2 if i == 0 and filters > 16 else 1,
                filters,
                project=i == 0,
                bn_momentum=bn_momentum,
                **kernel,
            )
    if variant == "svhn":
        x = bn_relu(x)
    x = layers.GlobalAveragePooling2D()(x)
    logits = layers.Dense(
        num_classes,
        kernel_initializer=initializer,
        kernel_regularizer=decay(weight_decay),
        name="embedding",
    )(x)
    return keras.Model(inputs, logits, name="wang_resnet")
