"""A network of a few seconds, for the embedded 8x8 digits."""

import keras
from keras import layers

from tfadv.models.layers import decay, normalization


def small_cnn(
    input_shape,
    num_classes,
    *,
    width: int = 32,
    weight_decay: float = 0.0,
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
):
    """conv 3x3xw - ReLU - conv 3x3x2w - ReLU - max pool 2 - dense 4w - ReLU - dense K.

    Args:
        input_shape: (h, w, c).
        num_classes: K.
        width: w, channels of the first convolution.
        weight_decay: wd in wd / 2 * sum(kernel^2).
        mean, std: of the channels, applied to x in [0, 1] by the first layer.

    Returns:
        A functional `keras.Model` from x to logits.

    Raises:
        ValueError: a width below 1.
    """
    if width < 1:
        raise ValueError(f"`width` must be at least 1; received {width}")
    kernel = {
        "kernel_initializer": "he_normal",
        "kernel_regularizer": decay(weight_decay),
    }
    inputs = keras.Input(input_shape)
    x = normalization(mean, std, input_shape[-1])(inputs)
    x = layers.Conv2D(width, 3, padding="same", activation="relu", **kernel)(x)
    x = layers.Conv2D(2 * width, 3, padding="same", activation="relu", **kernel)(x)
    x = layers.Flatten()(layers.MaxPooling2D(2)(x))
    x = layers.Dense(4 * width, activation="relu", **kernel)(x)
    logits = layers.Dense(num_classes, name="embedding", **kernel)(x)
    return keras.Model(inputs, logits, name="small_cnn")
