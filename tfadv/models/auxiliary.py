"""The auxiliary classifier of the Inception networks."""

import keras
from keras import layers

from tfadv.models.inception import convolutions
from tfadv.models.layers import decay


def auxiliary_head(
    features_shape,
    num_classes,
    *,
    width: float = 1.0,
    activation: str = "relu",
    bn_momentum: float = 0.9997,
    weight_decay: float = 4e-5,
):
    """Average pool 5 / 3 - conv 1x1x128 - conv 5x5x768 - dense K; pool and 5x5 VALID.

    Its loss, times .4, is added in training so that lower layers see a gradient; its
    logits predict nothing. It takes the output of a layer in the middle:

        features = network.get_layer("mixed_6e").output  # mixed_6h of inception_v4
        both = keras.Model(network.input, [network.output, features])
        head = auxiliary_head(features.shape[1:], num_classes)

    Behind a convolution are BN without a scale and the activation. Kernels are He
    normal (1x1) and truncated normal with standard deviation .01 (5x5) and .001
    (dense).

    Args:
        features_shape: (h, w, c); (17, 17, 768) in Inception v3 for images of 299.
            Where a map is smaller than pool or kernel these are as small as it. Behind
            the convolutions of a larger one is the mean over the positions.
        num_classes: K.
        width: rho, of the convolutions: max(int(d rho), 16) filters.
        activation: see `activations.get`.
        bn_momentum: of the moving statistics.
        weight_decay: wd in wd / 2 * sum(kernel^2).

    Returns:
        A functional `keras.Model` from features [n, h, w, c] to logits [n, K], the
        layer `auxiliary_logits`.

    Raises:
        ValueError: features that are no maps, a width that is not positive, an unknown
            activation.

    Source: Szegedy et al. 2016; TF-slim, whose Inception v4 draws its 5x5 and logits
    as it does elsewhere.
    """
    shape = tuple(features_shape)
    if len(shape) != 3 or not all(isinstance(n, int) and n > 0 for n in shape):
        raise ValueError(
            "`features_shape` must be (h, w, c), as (17, 17, 768) of mixed_6e in "
            f"inception_v3; received {shape}"
        )
    conv = convolutions(
        width=width,
        activation=activation,
        bn_momentum=bn_momentum,
        weight_decay=weight_decay,
    )

    def at_most_5(x):
        return tuple(min(side, 5) for side in x.shape[1:3])

    def normal(stddev):
        return keras.initializers.TruncatedNormal(stddev=stddev)

    inputs = keras.Input(shape)
    x = layers.AveragePooling2D(at_most_5(inputs), strides=3, name="auxiliary_pool")(
        inputs
    )
    x = conv(x, "auxiliary_1b", 128, 1)
    x = conv(x, "auxiliary_2a", 768, at_most_5(x), 1, "valid", normal(0.01))
    x = layers.GlobalAveragePooling2D(name="auxiliary_mean")(x)
    logits = layers.Dense(
        num_classes,
        kernel_initializer=normal(0.001),
        kernel_regularizer=decay(weight_decay),
        name="auxiliary_logits",
    )(x)
    return keras.Model(inputs, logits, name="auxiliary_head")
