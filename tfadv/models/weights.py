"""Weights that were trained elsewhere, from a file on this machine."""

import collections
import itertools
import pathlib
import re
from typing import NamedTuple

import h5py
import numpy as np

from tfadv import predictor
from tfadv.errors import RunError, UsageError
from tfadv.models.inception_v3 import applications_names

# What the layer of the logits is called here, and in files of others.
LOGITS = "embedding"
OTHER_LOGITS = ("fc8", "classifier", "predictions")

# Keras 1 wrote <layer>_W_1:0, later ones <layer>/kernel:0.
OLD_VARIABLES = {
    "W": "kernel",
    "b": "bias",
    "running_mean": "moving_mean",
    "running_std": "moving_variance",  # A variance, whatever it was called.
}
VARIABLE = re.compile(
    r"(?:.*_)?(kernel|bias|gamma|beta|moving_mean|moving_variance|"
    r"W|b|running_mean|running_std)(?:_\d+)?"
)


class Loaded(NamedTuple):
    """Names of the layers with weights: `taken` of the file, `left` as they were."""

    taken: tuple[str, ...]
    left: tuple[str, ...]


def load_weights(model, path):
    """Gives layers of `model` the weights of the layers of the same name in a file.

    | file      | what it may be                                                       |
    |-----------|----------------------------------------------------------------------|
    | `.keras`  | any model that `keras.models.load_model` loads                       |
    | any other | HDF5 of keras-vggface, keras.applications or whatever Keras 1 and 2  |
    |           | wrote: it has the attribute `layer_names`                            |

    - `/` in the name of a layer is read as `_`, see `face`.
    - The layer of the logits is `embedding` here, `fc8`, `classifier` or `predictions`
      elsewhere. It is left where its shape differs, as for other classes.
    - Names that Keras made, as conv2d_7, depend on what else the process had built:
      of such layers the first is paired with the first, and so on.
    - `inception_v3` takes files of keras.applications.InceptionV3, which has numbers in
      place of its names.
    - In HDF5 the variables may be called as in Keras 1 (`<layer>/<layer>_W_1:0`) or
      later (`<layer>/<layer>/kernel:0`).

    Either all that fits is assigned or, where this raises, nothing.

    Args:
        model: a built `keras.Model`. Layers inside of models inside of it are not seen.
        path: of the file; nothing is ever downloaded.

    Returns:
        `Loaded`: the names of the model's layers that were taken and those left.

    Raises:
        UsageError: there is no file; no layer fits; a layer, not that of the logits,
            has other shapes.
        RunError: the file is damaged.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UsageError(
            f"no weights at {path}: expected a .keras file or an HDF5 file of Keras. "
            "tfadv downloads nothing: the weights of faces are "
            "rcmalli_vggface_tf_vgg16.h5 and rcmalli_vggface_tf_resnet50.h5 on the "
            "releases page of keras-vggface, github.com/rcmalli/keras-vggface/releases"
        )
    stored = _read_keras(path) if path.suffix == ".keras" else _read_hdf5(path)
    if model.name == "inception_v3":
        names = applications_names(model, stored)
        stored = {names.get(name, name): layer for name, layer in stored.items()}
    layers = [layer for layer in model.layers if layer.weights]
    automatic = {_snake_case(type(layer).__name__) for layer in layers}
    keys = _keys([layer.name for layer in layers], automatic)
    found = dict(zip(_keys(stored, automatic), stored.values(), strict=True))
    if LOGITS not in found:
        for name in OTHER_LOGITS:
            if name in found and name not in keys:
                found[LOGITS] = found.pop(name)
                break

    assignments, taken, left = [], [], []
    for key, layer in zip(keys, layers, strict=True):
        variables = {variable.name: variable for variable in layer.weights}
        if key in found and _shapes(found[key]) == _shapes(variables):
            taken.append(layer.name)
            values = found[key]
            assignments += [(variables[name], values[name]) for name in variables]
        elif key not in found or layer.name == LOGITS:
            left.append(layer.name)
        else:
            raise UsageError(
                f"{path}: the layer {layer.name} has {_words(found[key])} in the file "
                f"and {_words(variables)} in {model.name}: build the network for the "
                "size of images and with the options that the file was made with"
            )
    if not taken:
        raise UsageError(
            f"{path}: none of its layers ({_few(stored)}) fits one of {model.name} "
            f"({_few([layer.name for layer in layers])}): expected weights of the same "
            "network, in a .keras file or as keras-vggface stores them"
        )
    for variable, value in assignments:
        variable.assign(value)
    return Loaded(tuple(taken), tuple(left))


def _read_keras(path):
    """{layer: {variable: array}}, in the order of the layers."""
    model = predictor.load_keras(path)
    return {
        layer.name: {v.name: np.asarray(v) for v in layer.weights}
        for layer in model.layers
        if layer.weights
    }


def _read_hdf5(path):
    """The same of an HDF5 file. A model that was saved whole keeps weights in a group.

    The names are in attributes, because groups nest where a name has a `/`.
    """
    try:
        with h5py.File(path, "r") as file:
            root = file.get("model_weights", file)
            layers = {}
            for name in _attribute(root, "layer_names"):
                group = root[name]
                weights = _attribute(group, "weight_names")
                if weights:
                    layers[_layer(name)] = {_variable(w): group[w][()] for w in weights}
            return layers
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        line = str(error).partition("\n")[0]
        raise RunError(f"cannot read the weights {path}: {line}") from None


def _attribute(group, name):
    """A list of strings; one that is too long for an attribute is in name0, name1 .."""
    if name in group.attrs:
        values = list(group.attrs[name])
    else:
        parts = (f"{name}{i}" for i in itertools.count())
        parts = itertools.takewhile(lambda part: part in group.attrs, parts)
        values = [value for part in parts for value in group.attrs[part]]
    return [v.decode() if isinstance(v, bytes) else str(v) for v in values]


def _layer(name):
    """conv1/7x7_s2 -> conv1_7x7_s2. The first keras-vggface spells conv2_1 conc2_1."""
    return re.sub(r"^conc(?=\d)", "conv", name.replace("/", "_"))


def _variable(name):
    """conv1_1/kernel:0 or conv1_1_W_1:0 -> kernel."""
    last = name.rpartition("/")[2].partition(":")[0]
    match = VARIABLE.fullmatch(last)
    return OLD_VARIABLES.get(match[1], match[1]) if match else last


def _snake_case(name):
    """The name that Keras makes of a class: Conv2D -> conv2d."""
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _keys(names, automatic):
    """What to pair layers by: their names, those that Keras made numbered from 0."""
    pattern = re.compile(rf"({'|'.join(map(re.escape, automatic))})(_\d+)?")
    counts, keys = collections.Counter(), []
    for name in names:
        match = pattern.fullmatch(name)
        if match:
            name = f"{match[1]} {counts[match[1]]}"
            counts[match[1]] += 1
        keys.append(name)
    return keys


def _shapes(variables):
    return {name: tuple(variable.shape) for name, variable in variables.items()}


def _words(variables):
    return ", ".join(f"{name} {shape}" for name, shape in _shapes(variables).items())


def _few(names):
    names = list(names)
    return ", ".join(names[:3]) + (", .." if len(names) > 3 else "") or "none"
