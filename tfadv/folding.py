"""Batch normalisation folded into the layer before it: the same logits, fewer passes.

In inference mode batch normalisation is one multiplication and one addition for each
channel, which a linear layer before it can do with its own weights.
"""

import itertools

import keras
import numpy as np
from keras.src.models import Functional

FOLDABLE = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)


def folded(model):
    """A copy of a model for inference without the normalisations that can be spared.

        s = gamma / sqrt(variance + epsilon)
        kernel' = s kernel,  bias' = s (bias - mean) + beta,  for each output channel

    A `BatchNormalization` is folded if it takes what a `Conv2D`, `DepthwiseConv2D` or
    `Dense` without an activation gives, both are called once, and nobody else takes
    that. In models within the model, too. Of tfadv's networks all that have batch
    normalisation have it behind convolutions (`resnet_cifar`: conv - BN - ReLU); one
    that stands before them, as in a pre-activation ResNet, stays.

    The copy is of the weights of this moment and of inference only: training mode is
    another function than that of the model, and attacks on one that takes the
    statistics of the batch must not be crafted on it. Its logits differ by rounding, so
    an attack may take another path where a gradient is about zero.

    Args:
        model: a built `keras.Model`.

    Returns:
        `keras.Model`; `model` itself where nothing can be folded, or where it is no
        graph of layers (a subclass with a `call` of its own).
    """
    if not is_graph(model):
        return model
    graph = model
    if isinstance(model, keras.Sequential):
        graph = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    pairs = _pairs(graph)
    inner = {layer: folded(layer) for layer in model.layers if is_graph(layer)}
    if not pairs and all(one is copy for one, copy in inner.items()):
        return model
    before = {norm: layer for layer, norm in pairs}
    # The weights are known only when the copy has been built.
    copies, spared = {}, keras.layers.Identity()

    def clone(layer):
        if layer in before:
            return spared
        config = layer.get_config()
        if inner.get(layer, layer) is not layer:
            return inner[layer]
        if layer in before.values():
            config |= {"use_bias": True, "bias_initializer": "zeros"}
        copies[layer] = type(layer).from_config(config)
        return copies[layer]

    def call(layer, x, *args, **kwargs):
        return x if layer is spared else layer(x, *args, **kwargs)

    made = keras.models.clone_model(graph, clone_function=clone, call_function=call)
    for layer, copy in copies.items():
        if isinstance(layer, keras.Layer) and layer not in before.values():
            copy.set_weights(layer.get_weights())
    for layer, norm in pairs:
        copies[layer].set_weights(_weights(layer, norm))
    return made


def is_graph(model):
    """Whether it is a model that is nothing but the graph of its layers."""
    if not isinstance(model, keras.Model) or not model.built:
        return False
    if isinstance(model, keras.Sequential):
        return type(model).call is keras.Sequential.call and bool(model.inputs)
    return isinstance(model, Functional) and type(model).call is Functional.call


def _pairs(graph):
    """[(layer, normalisation that folds into it)] of a graph, not of models in it."""
    calls, users = {}, {}
    for node in itertools.chain(*graph._nodes_by_depth.values()):
        calls.setdefault(node.operation, []).append(node)
        for tensor in node.input_tensors:
            users[id(tensor)] = users.get(id(tensor), 0) + 1
    for tensor in graph.outputs:
        users[id(tensor)] = users.get(id(tensor), 0) + 1
    found = []
    for norm, nodes in calls.items():
        if type(norm) is not keras.layers.BatchNormalization or len(nodes) != 1:
            continue
        tensor = nodes[0].input_tensors[0]
        layer = tensor._keras_history.operation
        alone = users[id(tensor)] == 1 and len(calls[layer]) == 1
        # Neither in training mode for good nor with a mask.
        written = nodes[0].arguments.kwargs.values()
        as_called = all(value is None or value is False for value in written)
        if alone and as_called and _folds(layer, norm, len(tensor.shape)):
            found.append((layer, norm))
    return found


def _folds(layer, norm, rank):
    """Whether the two are the kinds of which the formula speaks."""
    return (
        type(layer) in FOLDABLE
        and layer.activation is keras.activations.linear
        and getattr(layer, "data_format", "channels_last") == "channels_last"
        and not getattr(layer, "lora_enabled", False)
        and not getattr(layer, "quantization_mode", None)
        and norm.axis % rank == rank - 1
        and not norm.renorm
    )


def _weights(layer, norm):
    """[kernel', bias'] in float32, computed in float64."""
    mean, variance = map(_exact, (norm.moving_mean, norm.moving_variance))
    scale = 1 / np.sqrt(variance + norm.epsilon)
    if norm.scale:
        scale *= _exact(norm.gamma)
    kernel = _exact(layer.kernel)
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    # [h, w, c, multiplier] there, whose channels are numbered c first; [.., out] else.
    kernel = kernel * (scale.reshape(kernel.shape[2:]) if depthwise else scale)
    bias = -mean if layer.bias is None else _exact(layer.bias) - mean
    bias = bias * scale + (_exact(norm.beta) if norm.center else 0)
    return [kernel.astype(np.float32), bias.astype(np.float32)]


def _exact(variable):
    return np.asarray(variable, np.float64)
