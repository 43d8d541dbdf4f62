"""ResNet-(6n+2) for small images, as in Na et al. 2018 (their released network)."""

import functools
import math

import keras
from keras import layers

from tfadv.models import activations
from tfadv.models.layers import decay, normalization


def resnet_cifar(
    input_shape,
    num_classes,
    *,
    depth: int = 20,
    width: float = 1.0,
    activation: str = "relu",
    bn_momentum: float = 0.999,
    weight_decay: float = 1e-4,
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
):
    """conv 3x3x16 - BN - ReLU; three stages of n blocks of 16, 32, 64; mean; dense K.

    A block is conv 3x3 (stride) - BN - ReLU - conv 3x3 - BN, plus the shortcut, ReLU.
    The shortcut is the identity; where the size halves, a 2x2 average pool, and the
    new channels are zeros behind the old ones (option A: no projection). Kernels are
    Glorot uniform without bias. The embedding is the logits.

    Args:
        input_shape: (h, w, c).
        num_classes: K.
        depth: 6n + 2; 20 and 110 in the paper.
        width: rho; for d = 16, 32, 64 a stage has max(int(d rho), 4) filters.
        activation: in place of every ReLU, see `activations.get`. Kurakin et al. 2017
            vary Inception v3 in these two ways.
        bn_momentum: of the moving statistics; .999 in the paper's code, which needs
            several thousand steps to settle.
        weight_decay: wd in wd / 2 * sum(kernel^2).
        mean, std: of the channels, applied to x in [0, 1] by the first layer.

    Returns:
        A functional `keras.Model` from x [n, h, w, c] to logits [n, K]. 269,722
        trainable parameters for 20 layers, 3 channels and 10 classes.

    Raises:
        ValueError: a depth that is not 6n + 2, a width that is not positive, an unknown
            activation.
    """
    blocks, rest = divmod(depth - 2, 6)
    if rest or blocks < 1:
        raise ValueError(
            f"`depth` must be 6n + 2, as 20, 32, 44, 56 or 110; received {depth}"
        )
    if not 0 < width < math.inf:
        raise ValueError(f"`width` must be a positive number; received {width}")
    stages = [max(int(filters * width), 4) for filters in (16, 32, 64)]
    activate = activations.get(activation)
    batch_norm = functools.partial(
        layers.BatchNormalization, momentum=bn_momentum, epsilon=1e-3
    )
    conv = functools.partial(
        layers.Conv2D,
        kernel_size=3,
        padding="same",
        use_bias=False,
        kernel_regularizer=decay(weight_decay),
    )

    def block(x, filters, strides):
        shortcut = x
        if strides > 1:
            shortcut = layers.AveragePooling2D(2, padding="same")(shortcut)
            new = filters - x.shape[-1]
            shortcut = keras.ops.pad(shortcut, [(0, 0), (0, 0), (0, 0), (0, new)])
        x = conv(filters, strides=strides)(x)
        x = activate(batch_norm()(x))
        x = batch_norm()(conv(filters)(x))
        return activate(layers.Add()([x, shortcut]))

    inputs = keras.Input(input_shape)
    x = conv(stages[0])(normalization(mean, std, input_shape[-1])(inputs))
    x = activate(batch_norm()(x))
    for stage, filters in enumerate(stages):
        for i in range(blocks):
            x = block(x, filters, strides=2 if i == 0 and stage > 0 else 1)
    x = layers.GlobalAveragePooling2D()(x)
    logits = layers.Dense(
        num_classes, kernel_regularizer=decay(weight_decay), name="embedding"
    )(x)
    return keras.Model(inputs, logits, name=f"resnet{depth}")


resnet20 = functools.partial(resnet_cifar, depth=20)
resnet110 = functools.partial(resnet_cifar, depth=110)
