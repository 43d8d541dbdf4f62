"""Attacks by a trained network, which needs no gradient of its victim."""

import dataclasses
import functools

import keras
import tensorflow as tf

from tfadv import predictor
from tfadv.attacks import core
from tfadv.errors import UsageError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generator:
    """x_adv = clip(x + eps * G(.)),  G a network that ends in tanh.

    What G takes is said by the name of its input: the `image` x, the `label` y as one
    of K, or `noise` from N(0, I). It never sees `predict`, so every model meets the
    same images.

    Args:
        eps: size of the perturbation, in the units of x; a number or a tensor
            [n, 1, 1, 1].
        generator: a `keras.Model` of `models.generators`, or the path of one. None
            means the one that was trained beside the model that is attacked; whoever
            has opened that model puts it here (`suite.for_model`).

    Raises:
        ValueError: `eps` outside [0, 1]; None, when it is called.
        UsageError: there is no file at the path, or it holds no generator.
        RunError: the file cannot be read.

    Source: Wang & Yu 2019, section 3.
    """

    eps: float
    generator: str | keras.Model | None = None

    def __post_init__(self):
        core.check_eps(self.eps)
        if self.generator is not None:
            self.network()

    def network(self):
        """The generator."""
        if self.generator is None:
            raise ValueError("`generator` must be a network or the path of one")
        if isinstance(self.generator, keras.Model):
            return _checked(self.generator, "the generator")
        return _load(str(self.generator))

    def __call__(self, predict, x, y, seed=None):
        """Returns x_adv [n, h, w, c]; `seed` is needed by generators from noise."""
        return self.sweep(predict, x, y, [self.eps], seed)[0]

    def sweep(self, predict, x, y, sizes, seed=None):
        """x_adv for each eps of `sizes` in place of `eps`, from one pass of G."""
        del predict
        network = self.network()
        inputs = inputs_of(network, x, y, seed)
        return core.steps_of(sizes, x, network(inputs, training=False))


KINDS = ("image", "label", "noise")


def inputs_of(network, x, y, seed=None):
    """What a generator takes for images x [n, h, w, c] with labels y [n]."""
    (tensor,) = network.inputs
    kind = tensor.name
    if kind == "image":
        return x
    if kind == "label":
        return tf.one_hot(y, tensor.shape[1])
    shape = [tf.shape(x)[0], tensor.shape[1]]
    return tf.random.stateless_normal(shape, core.as_seed(seed), alg="philox")


@functools.cache
def _load(path):
    network = predictor.load_keras(path, "generator", "a .keras file")
    return _checked(network, path)


def _checked(network, what):
    names = [tensor.name for tensor in network.inputs]
    if len(names) != 1 or names[0] not in KINDS:
        raise UsageError(
            f"{what} is no generator: expected a network with one input called "
            f"{', '.join(KINDS[:-1])} or {KINDS[-1]}; received {', '.join(names)}"
        )
    return network
