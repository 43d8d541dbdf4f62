"""A small VGG for images of 32 x 32: a network without batch normalisation."""

import keras
from keras import layers

from tfadv.models.layers import decay, normalization


def small_vgg(
    input_shape,
    num_classes,
    *,
    width: int = 32,
    weight_decay: float = 0.0,
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
):
    """Twice conv 3x3xw, pool; twice 2w, pool; twice 4w, pool; dense 256; dense K.

    ReLU behind all but the logits. Convolutions are SAME, pools 2x2 maxima, everything
    has a bias. Kernels are He normal: without batch normalisation nothing restores the
    variance of the activations, and under Glorot's law each ReLU halves it, eight
    layers in a row.

    Args:
        input_shape: (h, w, c), sides of 8 or more.
        num_classes: K.
        width: w, channels of the first two convolutions.
        weight_decay: wd in wd / 2 * sum(kernel^2).
        mean, std: of the channels, applied to x in [0, 1] by the first layer.

    Returns:
        A functional `keras.Model` from x [n, h, w, c] to logits [n, K]; 814,122
        parameters for 32x32x3 and 10 classes.

    Raises:
        ValueError: images too small, a width below 1.

    Source: ours, after Simonyan & Zisserman 2015: what VGG16-Face is among the faces
    of Liao 2018, for CIFAR-10.
    """
    if min(input_shape[:2]) < 8:
        raise ValueError(
            "small_vgg takes images with sides of 8 or more; received "
            f"{'x'.join(map(str, input_shape))}"
        )
    if width < 1:
        raise ValueError(f"`width` must be at least 1; received {width}")
    kernel = {
        "kernel_initializer": "he_normal",
        "kernel_regularizer": decay(weight_decay),
    }
    inputs = keras.Input(input_shape)
    x = normalization(mean, std, input_shape[-1])(inputs)
    for filters in (width, 2 * width, 4 * width):
        for _ in range(2):
            x = layers.Conv2D(filters, 3, padding="same", activation="relu", **kernel)(
                x
            )
        x = layers.MaxPooling2D(2)(x)
    x = layers.Dense(256, activation="relu", **kernel)(layers.Flatten()(x))
    logits = layers.Dense(num_classes, name="embedding", **kernel)(x)
    return keras.Model(inputs, logits, name="small_vgg")
