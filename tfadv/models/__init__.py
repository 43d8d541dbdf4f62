"""Networks: `model(input_shape, num_classes, ...) -> keras.Model`, x -> logits.

A network takes raw x [n, h, w, c] in [0, 1], normalises in its first layer, ends in
logits [n, K] (the layer named `embedding`) and is made of plain Keras layers, so a
saved one loads without tfadv. `GENERATORS` are networks of another kind: they end in
perturbations. `auxiliary_head` is a second classifier for the middle of an Inception
network. `load_weights` gives a network the weights of a file.
"""

from tfadv import errors
from tfadv.models.auxiliary import auxiliary_head
from tfadv.models.e2sad_cnn import e2sad_mnist, e2sad_svhn
from tfadv.models.eat_mnist import eat_a, eat_b, eat_c, eat_d
from tfadv.models.face import resnet50_face, vgg16_face
from tfadv.models.generators import GENERATORS, get_generator
from tfadv.models.gradient_reversal import GradientReversal
from tfadv.models.imagenet import (
    inception_resnet_v2,
    inception_v3_imagenet,
    resnet50,
    resnet101,
)
from tfadv.models.inception_v3 import inception_v3
from tfadv.models.inception_v4 import inception_v4
from tfadv.models.lenet import lenet
from tfadv.models.resnet_cifar import resnet20, resnet110, resnet_cifar
from tfadv.models.small_cnn import small_cnn
from tfadv.models.small_vgg import small_vgg
from tfadv.models.wang_resnet import wang_resnet
from tfadv.models.weights import load_weights

MODELS = {
    "e2sad_mnist": e2sad_mnist,
    "e2sad_svhn": e2sad_svhn,
    "eat_a": eat_a,
    "eat_b": eat_b,
    "eat_c": eat_c,
    "eat_d": eat_d,
    "inception_resnet_v2": inception_resnet_v2,
    "inception_v3": inception_v3,
    "inception_v3_imagenet": inception_v3_imagenet,
    "inception_v4": inception_v4,
    "lenet": lenet,
    "resnet20": resnet20,
    "resnet50": resnet50,
    "resnet50_face": resnet50_face,
    "resnet101": resnet101,
    "resnet110": resnet110,
    "resnet_cifar": resnet_cifar,
    "small_cnn": small_cnn,
    "small_vgg": small_vgg,
    "vgg16_face": vgg16_face,
    "wang_resnet": wang_resnet,
}


def get(name):
    """The builder of the network `name`, or a `UsageError` that lists the names."""
    return errors.lookup(MODELS, name, "model")


__all__ = [
    "GENERATORS",
    "MODELS",
    "GradientReversal",
    "auxiliary_head",
    "e2sad_mnist",
    "e2sad_svhn",
    "eat_a",
    "eat_b",
    "eat_c",
    "eat_d",
    "get",
    "get_generator",
    "inception_resnet_v2",
    "inception_v3",
    "inception_v3_imagenet",
    "inception_v4",
    "lenet",
    "load_weights",
    "resnet20",
    "resnet50",
    "resnet50_face",
    "resnet101",
    "resnet110",
    "resnet_cifar",
    "small_cnn",
    "small_vgg",
    "vgg16_face",
    "wang_resnet",
]
