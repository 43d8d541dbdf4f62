"""The residual block of Wang & Yu 2019 (Fig. 2), of their classifier and generators."""

import keras
from keras import layers

from tfadv.models.layers import decay


def convolution(
    x, size, strides, filters, *, kernel_initializer="lecun_normal", weight_decay=0.0
):
    """conv2d(d, s, k): `filters` k kernels of d x d with stride s, without bias.

    Where s > 1 there are (d - 1) // 2 zeros on every side, so the kernels are centred
    at pixels 0, s, 2 s .. whatever the size of x. (SAME, with d = 3 and s = 2, centres
    them at 1, 3, 5 .. where the size is even.)

    Args:
        x: [n, h, w, c].
        size, strides, filters: d (odd), s and k.
        kernel_initializer: as Keras takes it. One object may serve many layers: each
            draws its own kernel.
        weight_decay: wd in wd / 2 * sum(kernel^2).

    Returns:
        [n, ceil(h / s), ceil(w / s), k].
    """
    if strides > 1 and size > 1:
        x = layers.ZeroPadding2D((size - 1) // 2)(x)
    return layers.Conv2D(
        filters,
        size,
        strides=strides,
        padding="same" if strides == 1 else "valid",
        use_bias=False,
        # Keras draws equal kernels from one unseeded initializer: clone it.
        kernel_initializer=keras.initializers.get(kernel_initializer).clone(),
        kernel_regularizer=decay(weight_decay),
    )(x)


def batch_norm(x, *, momentum=0.997, epsilon=1e-5):
    """Batch normalisation with centre and scale, as in the paper's code."""
    return layers.BatchNormalization(momentum=momentum, epsilon=epsilon)(x)


def residual_block(
    x,
    size,
    strides,
    filters,
    *,
    project=False,
    bn_momentum=0.997,
    bn_epsilon=1e-5,
    kernel_initializer="lecun_normal",
    weight_decay=0.0,
):
    """residual-block(d, s, k): ReLU(shortcut(x) + F(x)), the first convolution strided.

        F(x) = BN(conv(d, 1, k)(ReLU(BN(conv(d, s, k)(x)))))
        shortcut(x) = x, or BN(conv(1, s, k)(x)): the projection

    Args:
        x: [n, h, w, c].
        size, strides, filters: d (odd), s and k.
        project: whether the shortcut projects although x has the shape of F(x). Where
            the shapes differ it always does.
        bn_momentum, bn_epsilon: of all batch normalisations; .997 and 1e-5 in the
            paper's code.
        kernel_initializer, weight_decay: see `convolution`.

    Returns:
        [n, ceil(h / s), ceil(w / s), k].

    Source: Wang & Yu 2019, Fig. 2; the projection is in their code only.
    """

    def conv_bn(x, size, strides):
        x = convolution(
            x,
            size,
            strides,
            filters,
            kernel_initializer=kernel_initializer,
            weight_decay=weight_decay,
        )
        return batch_norm(x, momentum=bn_momentum, epsilon=bn_epsilon)

    shortcut = x
    if project or strides > 1 or x.shape[-1] != filters:
        shortcut = conv_bn(x, 1, strides)
    x = layers.ReLU()(conv_bn(x, size, strides))
    x = conv_bn(x, size, 1)
    return layers.ReLU()(layers.Add()([x, shortcut]))
