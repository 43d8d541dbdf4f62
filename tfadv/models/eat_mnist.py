"""The MNIST networks A, B, C and D of Tramer et al. 2018 (ensemble training)."""

import keras
from keras import layers


def eat_a(input_shape, num_classes):
    """conv 5x5x64 twice - drop 1/4 - dense 128 - drop 1/2 - dense K.

    In all four: convolutions VALID unless said otherwise, everything with a bias and,
    but for the logits, ReLU; kernels Glorot uniform.

    Args:
        input_shape: (h, w, c), sides of 9 or more.
        num_classes: K.

    Returns:
        A functional `keras.Model` from x in [0, 1] to logits; 3,382,346 parameters on
        MNIST.

    Raises:
        ValueError: images too small.

    Source: the code of Tramer et al. 2018.
    """
    inputs = _input(input_shape, 9, "eat_a")
    x = _conv(64, 5)(inputs)
    x = _conv(64, 5)(x)
    x = layers.Flatten()(layers.Dropout(0.25)(x))
    x = layers.Dense(128, activation="relu")(x)
    return _model(inputs, layers.Dropout(0.5)(x), num_classes, "eat_a")


def eat_b(input_shape, num_classes):
    """drop 1/5 - conv 8x8x64 / 2 SAME - conv 6x6x128 / 2 - conv 5x5x128 - drop 1/2 -
    dense K.

    Args:
        input_shape: (h, w, c), sides of 27 or more.
        num_classes: K.

    Returns, Raises, Source: see `eat_a`; 710,218 parameters on MNIST.
    """
    inputs = _input(input_shape, 27, "eat_b")
    x = layers.Dropout(0.2)(inputs)
    x = _conv(64, 8, strides=2, padding="same")(x)
    x = _conv(128, 6, strides=2)(x)
    x = layers.Flatten()(_conv(128, 5)(x))
    return _model(inputs, layers.Dropout(0.5)(x), num_classes, "eat_b")


def eat_c(input_shape, num_classes):
    """conv 3x3x128 - conv 3x3x64 - drop 1/4 - dense 128 - drop 1/2 - dense K.

    Args:
        input_shape: (h, w, c), sides of 5 or more.
        num_classes: K.

    Returns, Raises, Source: see `eat_a`; 4,795,082 parameters on MNIST.
    """
    inputs = _input(input_shape, 5, "eat_c")
    x = _conv(64, 3)(_conv(128, 3)(inputs))
    x = layers.Flatten()(layers.Dropout(0.25)(x))
    x = layers.Dense(128, activation="relu")(x)
    return _model(inputs, layers.Dropout(0.5)(x), num_classes, "eat_c")


def eat_d(input_shape, num_classes):
    """Four times dense 300 (He normal) - drop 1/2; dense K.

    Args:
        input_shape: (h, w, c).
        num_classes: K.

    Returns, Source: see `eat_a`; 509,410 parameters on MNIST.
    """
    inputs = keras.Input(input_shape)
    x = layers.Flatten()(inputs)
    for _ in range(4):
        x = layers.Dense(300, activation="relu", kernel_initializer="he_normal")(x)
        x = layers.Dropout(0.5)(x)
    return _model(inputs, x, num_classes, "eat_d")


def _input(input_shape, least, name):
    if min(input_shape[:2]) < least:
        raise ValueError(
            f"{name} takes images with sides of {least} or more; received "
            f"{'x'.join(map(str, input_shape))}"
        )
    return keras.Input(input_shape)


def _conv(filters, size, strides=1, padding="valid"):
    return layers.Conv2D(
        filters, size, strides=strides, padding=padding, activation="relu"
    )


def _model(inputs, x, num_classes, name):
    logits = layers.Dense(num_classes, name="embedding")(x)
    return keras.Model(inputs, logits, name=name)
