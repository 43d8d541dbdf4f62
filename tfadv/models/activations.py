"""Activations by name, in plain Keras: networks with them load without tfadv."""

import re

import keras
from keras import layers

from tfadv import errors

# Each makes a layer that is called `name`.
LAYERS = {
    "elu": lambda name: layers.ELU(name=name),
    "relu": lambda name: layers.ReLU(name=name),
    "relu6": lambda name: layers.ReLU(max_value=6, name=name),
    "tanh": lambda name: layers.Activation("tanh", name=name),
}
RELU_DECAY = re.compile(r"relu_decay_(\d+(?:\.\d*)?|\.\d+)")


def get(name):
    """The activation `name`, a function that adds it to a network.

    | name                | of x                                                   |
    |---------------------|--------------------------------------------------------|
    | `relu`              | max(x, 0)                                              |
    | `relu6`             | min(max(x, 0), 6)                                      |
    | `tanh`              | tanh(x)                                                |
    | `elu`               | x where x > 0, elsewhere exp(x) - 1                    |
    | `relu_decay_<beta>` | relu(x) / (1 + beta relu(x)^2), as in `relu_decay_0.1` |

    ReluDecay grows up to x = 1 / sqrt(beta), where it is x / 2, and falls to 0 beyond.

    Args:
        name: see above; beta is a positive decimal number.

    Returns:
        (x, label=None) -> y of the shape of x, both Keras tensors. The layer that does
        it is `<label>_relu`, `<label>_tanh` .., or what Keras calls it; relu decay is a
        ReLU and operations behind it.

    Raises:
        UsageError: an unknown name, a beta that is not positive (a `ValueError`).

    Source: Kurakin et al. 2017, appendix D (section 4.4 for elu).
    """
    match = RELU_DECAY.fullmatch(name) if isinstance(name, str) else None
    if match and float(match[1]) > 0:
        return _relu_decay(float(match[1]))
    if isinstance(name, str) and name.startswith("relu_decay"):
        raise errors.UsageError(
            "the activation relu_decay takes a positive decimal number behind its "
            f"name, as relu_decay_0.01; received {name!r}"
        )
    # The number is one of the paper's, to show how it is written.
    errors.lookup({**LAYERS, "relu_decay_0.01": None}, name, "activation")
    return _plain(name, LAYERS[name])


def _plain(name, layer):
    def apply(x, label=None):
        return layer(label and f"{label}_{name}")(x)

    return apply


def _relu_decay(beta):
    def apply(x, label=None):
        relu = layers.ReLU(name=label and f"{label}_relu")(x)
        return relu / (1 + beta * keras.ops.square(relu))

    return apply
