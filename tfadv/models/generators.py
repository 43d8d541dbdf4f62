"""The generators G1, G2 and G3 of Wang & Yu 2019 (Fig. 4): noise for images.

The attack is x + eps G(.); G ends in tanh, so no pixel moves by more than eps. What the
three share, for images of h x w x c:

- residual-block(3, 1, 4 k) six times at h/4 x w/4, the first with a projection;
- deconv2d(3, 2, 2 k) and deconv2d(3, 2, k), each with BN - ReLU;
- conv2d(3, 1, c) - tanh.

A deconv2d is a transposed convolution, SAME, which doubles the size. Of all these only
the last convolution has a bias. Its kernel and those of deconv2d are truncated normal
(0.02), all others LeCun normal; biases are 0. Plain Keras layers only, so a saved
generator loads without tfadv.

The paper is silent on projections, biases and initial weights. They are those of its
CIFAR code (in its SVHN code all kernels are truncated normal), which has G1 alone: G2
and G3 are built by the same rules. Its MNIST code has another, smaller generator.
"""

import functools
from typing import Literal

import keras
from keras import layers

from tfadv import errors
from tfadv.models.residual import batch_norm, convolution, residual_block

# Filters of the encoder's three convolutions in units of k.
WIDTHS = {"paper": (1, 1, 2), "code": (1, 2, 4)}


def g1(
    image_shape,
    num_classes=None,
    *,
    k: int = 64,
    widths: Literal["paper", "code"] = "paper",
    bn_momentum: float = 0.997,
):
    """G1, an encoder and a decoder: x -> noise that suits x.

    2 x - 1; conv2d(3, 1, k), conv2d(3, 2, k), conv2d(3, 2, 2 k), each with BN - ReLU
    and padded as in `residual.convolution` (28 -> 14 -> 7); then as the module says.

    Args:
        image_shape: (h, w, c), h and w multiples of 4.
        num_classes: unused.
        k: filters of the first convolution; 64 and, in the study of narrow ones, 8.
        widths: of the encoder: `"paper"` k, k, 2 k, or `"code"` k, 2 k, 4 k, where the
            first residual block keeps its number of channels and projects nevertheless.
        bn_momentum: of the moving statistics.

    Returns:
        A functional `keras.Model` from x [n, h, w, c] in [0, 1] to noise of the same
        shape in [-1, 1]. Trainable parameters for 3 channels: 7,305,987 (paper) and
        7,892,099 (code) for k = 64, 115,363 and 124,563 for k = 8.

    Raises:
        ValueError: sides that are no multiples of 4, k below 1, unknown widths.
    """
    del num_classes
    _check(image_shape, k)
    factors = errors.lookup(WIDTHS, widths, "widths")
    inputs = keras.Input(image_shape, name="image")
    x = layers.Rescaling(2.0, -1.0, name="normalize")(inputs)
    for strides, factor in zip((1, 2, 2), factors, strict=True):
        x = convolution(x, 3, strides, factor * k)
        x = layers.ReLU()(batch_norm(x, momentum=bn_momentum))
    noise = _decode(x, image_shape[-1], k, bn_momentum)
    return keras.Model(inputs, noise, name="g1")


def g2(image_shape, num_classes=None, *, k: int = 64, bn_momentum: float = 0.997):
    """G2, a decoder of Gaussian noise: z -> noise that suits no image in particular.

    z is read as h/4 x w/4 x 4 k; then as the module says.

    Args:
        image_shape: (h, w, c), h and w multiples of 4.
        num_classes: unused.
        k: filters of the last transposed convolution.
        bn_momentum: of the moving statistics.

    Returns:
        A functional `keras.Model` from z [n, (h/4) (w/4) 4 k], to be drawn from
        N(0, I), to noise [n, h, w, c] in [-1, 1]. The length of z, 256 k for 32x32, is
        `model.input_shape[-1]`. 7,520,835 trainable parameters for 3 channels, k = 64.

    Raises:
        ValueError: sides that are no multiples of 4, k below 1.
    """
    del num_classes
    h, w = _check(image_shape, k)
    inputs = keras.Input((h * w * 4 * k,), name="noise")
    x = layers.Reshape((h, w, 4 * k))(inputs)
    noise = _decode(x, image_shape[-1], k, bn_momentum)
    return keras.Model(inputs, noise, name="g2")


def g3(image_shape, num_classes, *, k: int = 64, bn_momentum: float = 0.997):
    """G3, a decoder of labels: y -> one noise for all images of a class.

    dense (h/4) (w/4) 4 k with a bias and nothing after it; then as `g2`.

    Args:
        image_shape: (h, w, c), h and w multiples of 4.
        num_classes: K.
        k: filters of the last transposed convolution.
        bn_momentum: of the moving statistics.

    Returns:
        A functional `keras.Model` from one-hot labels [n, K] to noise [n, h, w, c] in
        [-1, 1]. 7,701,059 trainable parameters for 32x32x3, 10 classes and k = 64.

    Raises:
        ValueError: sides that are no multiples of 4, k below 1.
    """
    h, w = _check(image_shape, k)
    inputs = keras.Input((num_classes,), name="label")
    x = layers.Dense(h * w * 4 * k, kernel_initializer="lecun_normal")(inputs)
    x = layers.Reshape((h, w, 4 * k))(x)
    noise = _decode(x, image_shape[-1], k, bn_momentum)
    return keras.Model(inputs, noise, name="g3")


# (image_shape, num_classes, ...) -> generator; the name of its input, `image`, `noise`
# or `label`, says what it takes.
GENERATORS = {"g1": g1, "g2": g2, "g3": g3}


def get_generator(name):
    """The builder of the generator `name`, or a `UsageError` that lists the names."""
    return errors.lookup(GENERATORS, name, "generator")


def _check(image_shape, k):
    """(h/4, w/4), the size at which the residual blocks work."""
    sides = image_shape[:2]
    if len(image_shape) != 3 or any(not side or side % 4 for side in sides):
        raise ValueError(
            "`image_shape` must be (h, w, c) with h and w multiples of 4, because "
            f"generators work at a quarter of them; received {tuple(image_shape)}"
        )
    if k < 1:
        raise ValueError(f"`k` must be at least 1; received {k}")
    return sides[0] // 4, sides[1] // 4


def _decode(x, channels, k, bn_momentum):
    """[n, h/4, w/4, .] -> [n, h, w, channels] in [-1, 1]: what the module says."""
    truncated = functools.partial(keras.initializers.TruncatedNormal, stddev=0.02)
    for i in range(6):
        x = residual_block(x, 3, 1, 4 * k, project=i == 0, bn_momentum=bn_momentum)
    for filters in (2 * k, k):
        x = layers.Conv2DTranspose(
            filters,
            3,
            strides=2,
            padding="same",
            use_bias=False,
            kernel_initializer=truncated(),
        )(x)
        x = layers.ReLU()(batch_norm(x, momentum=bn_momentum))
    return layers.Conv2D(
        channels,
        3,
        padding="same",
        activation="tanh",
        kernel_initializer=truncated(),
    )(x)
