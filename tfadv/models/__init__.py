"""Networks: `model(input_shape, num_classes, ...) -> keras.Model`, x -> logits.

A network takes raw x [n, h, w, c] in [0, 1], normalises in its first layer, ends in
logits [n, K] (the layer named `embedding`) and is made of plain Keras layers, so a
saved one loads without tfadv. `GENERATORS` are networks of another kind: they end in
perturbations.
"""

from tfadv import errors
from tfadv.models.e2sad_cnn import e2sad_mnist, e2sad_svhn
from tfadv.models.eat_mnist import eat_a, eat_b, eat_c, eat_d
from tfadv.models.generators import GENERATORS, get_generator
from tfadv.models.lenet import lenet
from tfadv.models.resnet_cifar import resnet20, resnet110, resnet_cifar
from tfadv.models.small_cnn import small_cnn
from tfadv.models.wang_resnet import wang_resnet

MODELS = {
    "e2sad_mnist": e2sad_mnist,
    "e2sad_svhn": e2sad_svhn,
    "eat_a": eat_a,
    "eat_b": eat_b,
    "eat_c": eat_c,
    "eat_d": eat_d,
    "lenet": lenet,
    "resnet20": resnet20,
    "resnet110": resnet110,
    "resnet_cifar": resnet_cifar,
    "small_cnn": small_cnn,
    "wang_resnet": wang_resnet,
}


def get(name):
    """The builder of the network `name`, or a `UsageError` that lists the names."""
    return errors.lookup(MODELS, name, "model")


__all__ = [
    "GENERATORS",
    "MODELS",
    "e2sad_mnist",
    "e2sad_svhn",
    "eat_a",
    "eat_b",
    "eat_c",
    "eat_d",
    "get",
    "get_generator",
    "lenet",
    "resnet20",
    "resnet110",
    "resnet_cifar",
    "small_cnn",
    "wang_resnet",
]
