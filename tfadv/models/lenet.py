"""The MNIST classifier D1 of Wang & Yu 2019 (Fig. 3a), a LeNet."""

import keras
from keras import layers

from tfadv.models.layers import decay, normalization


def lenet(
    input_shape,
    num_classes,
    *,
    weight_decay: float = 0.0,
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
):
    """conv 5x5x32 - ReLU - max pool 2 - conv 5x5x64 - ReLU - max pool 2 - dense K.

    Convolutions are SAME with bias, kernels Glorot uniform; no batch normalisation.

    Args:
        input_shape: (h, w, c).
        num_classes: K.
        weight_decay: wd in wd / 2 * sum(kernel^2).
        mean, std: of the channels, applied to x in [0, 1] by the first layer. The
            paper's inputs 2 x - 1 are `mean=(0.5,)`, `std=(0.5,)`.

    Returns:
        A functional `keras.Model` from x to logits; 83,466 parameters on MNIST.
    """

    def conv(filters, x):
        x = layers.Conv2D(
            filters,
            5,
            padding="same",
            activation="relu",
            kernel_regularizer=decay(weight_decay),
        )(x)
        return layers.MaxPooling2D(2)(x)

    inputs = keras.Input(input_shape)
    x = normalization(mean, std, input_shape[-1])(inputs)
    x = layers.Flatten()(conv(64, conv(32, x)))
    logits = layers.Dense(
        num_classes, kernel_regularizer=decay(weight_decay), name="embedding"
    )(x)
    return keras.Model(inputs, logits, name="lenet")
