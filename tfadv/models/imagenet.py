"""Networks of keras.applications, trained on ImageNet and then on faces by Liao 2018.

There they make the images of black-box attacks; resnet50 is also trained as a partner.
Here they begin untrained: nothing is downloaded, `weights.load_weights` takes files.
Their layers have the names of keras.applications. In front is what its
`preprocess_input` does, behind are the mean over the positions (`avg_pool`) and dense K
(`embedding`), which returns logits.
"""

import keras
from keras import layers

from tfadv.models.layers import bgr, check_rate, decay, embedding, pooled, rgb_input

# Means of the channels B, G, R of ImageNet, in units of 1/255.
IMAGENET_MEAN = (103.939, 116.779, 123.68)


def resnet50(
    input_shape, num_classes, *, weight_decay: float = 0.0, dropout: float = 0.0
):
    """ResNet-50 (v1): x in [0, 1] and RGB becomes 255 x - mean in BGR.

    Args:
        input_shape: (h, w, 3), sides of 32 or more; 224 on ImageNet.
        num_classes: K.
        weight_decay: wd in wd / 2 * sum(kernel^2).
        dropout: rate behind avg_pool.

    Returns:
        A functional `keras.Model` from x [n, h, w, 3] in [0, 1] to logits [n, K].
        23,587,712 parameters and 2,049 for each class.

    Raises:
        ValueError: images too small or not of three channels, an impossible rate.

    Source: He et al. 2016; keras.applications.ResNet50.
    """
    return _network(
        "resnet50",
        keras.applications.ResNet50,
        32,
        lambda x: bgr(x, IMAGENET_MEAN),
        input_shape,
        num_classes,
        weight_decay,
        dropout,
    )


def resnet101(
    input_shape, num_classes, *, weight_decay: float = 0.0, dropout: float = 0.0
):
    """ResNet-101 (v1): x in [0, 1] and RGB becomes 255 x - mean in BGR.

    Args:
        input_shape: (h, w, 3), sides of 32 or more; 224 on ImageNet.
        num_classes: K.
        weight_decay: wd in wd / 2 * sum(kernel^2).
        dropout: rate behind avg_pool.

    Returns:
        A functional `keras.Model` from x [n, h, w, 3] in [0, 1] to logits [n, K].
        42,658,176 parameters and 2,049 for each class.

    Raises:
        ValueError: images too small or not of three channels, an impossible rate.

    Source: He et al. 2016; keras.applications.ResNet101.
    """
    return _network(
        "resnet101",
        keras.applications.ResNet101,
        32,
        lambda x: bgr(x, IMAGENET_MEAN),
        input_shape,
        num_classes,
        weight_decay,
        dropout,
    )


def inception_v3_imagenet(
    input_shape, num_classes, *, weight_decay: float = 0.0, dropout: float = 0.0
):
    """Inception v3 without its auxiliary classifier: x becomes 2 x - 1.

    Args:
        input_shape: (h, w, 3), sides of 75 or more; 299 on ImageNet.
        num_classes: K.
        weight_decay: wd in wd / 2 * sum(kernel^2).
        dropout: rate behind avg_pool.

    Returns:
        A functional `keras.Model` from x [n, h, w, 3] in [0, 1] to logits [n, K].
        21,802,784 parameters and 2,049 for each class.

    Raises:
        ValueError: images too small or not of three channels, an impossible rate.

    Source: Szegedy et al. 2016; keras.applications.InceptionV3.
    """
    return _network(
        "inception_v3_imagenet",
        keras.applications.InceptionV3,
        75,
        layers.Rescaling(2.0, -1.0, name="normalize"),
        input_shape,
        num_classes,
        weight_decay,
        dropout,
    )


def inception_resnet_v2(
    input_shape, num_classes, *, weight_decay: float = 0.0, dropout: float = 0.0
):
    """Inception-ResNet v2 without its auxiliary classifier: x becomes 2 x - 1.

    Args:
        input_shape: (h, w, 3), sides of 75 or more; 299 on ImageNet.
        num_classes: K.
        weight_decay: wd in wd / 2 * sum(kernel^2).
        dropout: rate behind avg_pool.

    Returns:
        A functional `keras.Model` from x [n, h, w, 3] in [0, 1] to logits [n, K].
        54,336,736 parameters and 1,537 for each class.

    Raises:
        ValueError: images too small or not of three channels, an impossible rate.

    Source: Szegedy et al. 2017; keras.applications.InceptionResNetV2.
    """
    return _network(
        "inception_resnet_v2",
        keras.applications.InceptionResNetV2,
        75,
        layers.Rescaling(2.0, -1.0, name="normalize"),
        input_shape,
        num_classes,
        weight_decay,
        dropout,
    )


def _network(
    name, make, least, normalize, input_shape, num_classes, weight_decay, dropout
):
    """`make` of keras.applications between `normalize` and the logits."""
    check_rate(dropout)
    inputs = rgb_input(input_shape, least, name)
    base = make(include_top=False, weights=None, input_tensor=normalize(inputs))
    if weight_decay:
        for layer in base.layers:
            if isinstance(layer, layers.Conv2D):
                # The layer's own is what is saved, the variable's what is added up.
                layer.kernel_regularizer = decay(weight_decay)
                layer.kernel.regularizer = layer.kernel_regularizer
    logits = embedding(pooled(base.output, dropout), num_classes, weight_decay)
    return keras.Model(inputs, logits, name=name)
