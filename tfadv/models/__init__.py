"""Networks: `model(input_shape, num_classes, ...) -> keras.Model`, x -> logits.

A network takes raw x [n, h, w, c] in [0, 1], normalises in its first layer, ends in
logits [n, K] (the layer named `embedding`) and is made of plain Keras layers, so a
saved one loads without tfadv.
"""

from tfadv import errors
from tfadv.models.e2sad_cnn import e2sad_mnist, e2sad_svhn
from tfadv.models.lenet import lenet
from tfadv.models.resnet_cifar import resnet20, resnet110, resnet_cifar
from tfadv.models.small_cnn import small_cnn

MODELS = {
    "e2sad_mnist": e2sad_mnist,
    "e2sad_svhn": e2sad_svhn,
    "lenet": lenet,
    "resnet20": resnet20,
    "resnet110": resnet110,
    "resnet_cifar": resnet_cifar,
    "small_cnn": small_cnn,
}


def get(name):
    """The builder of the network `name`, or a `UsageError` that lists the names."""
    return errors.lookup(MODELS, name, "model")


__all__ = [
    "MODELS",
    "e2sad_mnist",
    "e2sad_svhn",
    "get",
    "lenet",
    "resnet20",
    "resnet110",
    "resnet_cifar",
    "small_cnn",
]
