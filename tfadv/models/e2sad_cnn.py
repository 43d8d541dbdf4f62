"""The networks of e2SAD 2019, for MNIST and for SVHN. No batch normalisation."""

import keras
from keras import layers

from tfadv.data import standardization
from tfadv.models.layers import decay, normalization


def e2sad_mnist(
    input_shape,
    num_classes,
    *,
    weight_decay: float = 0.0,
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
):
    """Twice conv 5x5 (32, 64) - ReLU - max pool 2; dense 1024 - ReLU - dense K.

    Convolutions are SAME, everything has a bias, kernels are Glorot uniform.

    Args:
        input_shape: (h, w, c).
        num_classes: K.
        weight_decay: wd in wd / 2 * sum(kernel^2).
        mean, std: of the channels, applied to x in [0, 1] by the first layer.

    Returns:
        A functional `keras.Model` from x to logits; 3,274,634 parameters on MNIST.

    Source: e2SAD 2019, Table 4.
    """
    inputs = keras.Input(input_shape)
    x = normalization(mean, std, input_shape[-1])(inputs)
    for filters in (32, 64):
        x = _conv(filters, 5, "same", weight_decay)(x)
        x = layers.MaxPooling2D(2)(x)
    logits = _classify(x, 1024, num_classes, weight_decay)
    return keras.Model(inputs, logits, name="e2sad_mnist")


def e2sad_svhn(
    input_shape,
    num_classes,
    *,
    weight_decay: float = 0.0,
    standardize: bool = True,
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
):
    """conv 5x5x32, conv 5x5x64, pool, conv 3x3x128, pool, dense 512, dense K.

    Convolutions are VALID with ReLU, pools 2x2 maxima, everything has a bias, kernels
    are Glorot uniform.

    Args:
        input_shape: (h, w, c), sides of 16 or more.
        num_classes: K.
        weight_decay: wd in wd / 2 * sum(kernel^2).
        standardize: whether the network begins with `standardization.standardize`, so
            that attacks move plain pixels. For images that are standardised already
            (`[data] standardize`) turn it off.
        mean, std: of the channels, applied to x in [0, 1] by the first layer where it
            is not that; standardised images, stored as (s + 1) / 2, want 0.5 for both.

    Returns:
        A functional `keras.Model` from x to logits; 1,771,594 parameters on SVHN.

    Raises:
        ValueError: images too small; channel means together with `standardize`.

    Source: e2SAD 2019, Table 5.
    """
    if min(input_shape[:2]) < 16:
        raise ValueError(
            "e2sad_svhn takes images with sides of 16 or more; received "
            f"{'x'.join(map(str, input_shape))}"
        )
    if standardize and (mean or std):
        raise ValueError(
            "`standardize` takes the mean and the deviation of each image: leave out "
            "`mean` and `std`, or set `standardize` to false"
        )
    inputs = keras.Input(input_shape)
    if standardize:
        x = standardization.standardize(inputs)
    else:
        x = normalization(mean, std, input_shape[-1])(inputs)
    x = _conv(32, 5, "valid", weight_decay)(x)
    x = _conv(64, 5, "valid", weight_decay)(x)
    x = layers.MaxPooling2D(2)(x)
    x = _conv(128, 3, "valid", weight_decay)(x)
    x = layers.MaxPooling2D(2)(x)
    logits = _classify(x, 512, num_classes, weight_decay)
    return keras.Model(inputs, logits, name="e2sad_svhn")


def _conv(filters, size, padding, weight_decay):
    return layers.Conv2D(
        filters,
        size,
        padding=padding,
        activation="relu",
        kernel_regularizer=decay(weight_decay),
    )


def _classify(x, units, num_classes, weight_decay):
    """dense `units` - ReLU - dense K, of a stack of feature maps."""
    hidden = layers.Dense(
        units, activation="relu", kernel_regularizer=decay(weight_decay)
    )
    logits = layers.Dense(
        num_classes, kernel_regularizer=decay(weight_decay), name="embedding"
    )
    return logits(hidden(layers.Flatten()(x)))
