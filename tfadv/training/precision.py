"""How layers compute while they are trained: in bfloat16, with statistics of all.

Both are properties of the same layers, set for a block and taken back at its end. What
is saved afterwards knows neither: its policies are float32, it loads and serves
anywhere. Weights, the optimizer's numbers and with them checkpoints are float32 always.
"""

import contextlib

import keras

from tfadv.predictor import innermost

PRECISIONS = ("float32", "mixed_bfloat16")


@contextlib.contextmanager
def computing(defense, *, precision="float32", sync_bn=False):
    """In the block the layers of a defence compute as a training asks for.

    It decides when a `tf.function` is traced: make and call the training step inside.

    With `"mixed_bfloat16"` a layer takes bfloat16 and gives bfloat16, which keeps 8 of
    the 24 binary digits of float32 and all of its range, so no loss needs scaling.
    float32 stay: the weights; `Rescaling`, which brings the pixels to the range of the
    network (1/255 is about what bfloat16 can tell apart near 1); the layers that give
    the logits, and so logits and losses; within a layer, the statistics of batch
    normalisation. The images and what attacks add to them are float32, too.

    With `sync_bn` batch normalisation takes the statistics of the batches of all
    replicas, as one device would of the whole batch. Of one replica these are its own,
    and nothing is changed. It works wherever the training pass is not inside a
    `tf.while_loop`; attacks, which loop, are in inference mode.

    Args:
        defense: built `keras.Model`; all layers in it count, whichever network they
            are of.
        precision: `"float32"`, which changes nothing, or `"mixed_bfloat16"`.
        sync_bn: see above.

    Raises:
        ValueError: another precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(
            f"`precision` must be one of {', '.join(map(repr, PRECISIONS))}; received "
            f"{precision!r}"
        )
    with contextlib.ExitStack() as kept:
        if precision != "float32":
            last = {id(layer) for one in _networks(defense) for layer in _last(one)}
            for layer in _of_policy(defense, "float32"):
                pixels = isinstance(layer, keras.layers.Rescaling)
                if id(layer) not in last and not pixels:
                    kept.enter_context(_replaced(layer, "dtype_policy", precision))
        if sync_bn and defense.distribute_strategy.num_replicas_in_sync > 1:
            for layer in innermost(defense):
                if isinstance(layer, keras.layers.BatchNormalization):
                    kept.enter_context(_replaced(layer, "synchronized", True))
        yield


@contextlib.contextmanager
def as_outside(defense):
    """In a block of `computing` the layers as outside of it, to measure or save them.

    What is traced in it must be called in it.
    """
    with contextlib.ExitStack() as kept:
        for layer in innermost(defense):
            if isinstance(layer, keras.layers.BatchNormalization):
                kept.enter_context(_replaced(layer, "synchronized", False))
        for precision in PRECISIONS[1:]:
            for layer in _of_policy(defense, precision):
                kept.enter_context(_replaced(layer, "dtype_policy", "float32"))
        yield


@contextlib.contextmanager
def _replaced(owner, name, value):
    old = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, old)


def _of_policy(defense, name):
    found = {id(layer): layer for layer in innermost(defense)}
    return [layer for layer in found.values() if layer.dtype_policy.name == name]


def _networks(defense):
    return [layer for layer in defense.layers if isinstance(layer, keras.Model)]


def _last(network):
    """The layers that the outputs of a network come from; of a subclass, unknown."""
    for output in getattr(network, "outputs", None) or ():
        made_by = output._keras_history.operation
        if isinstance(made_by, keras.Model):
            yield from _last(made_by)
        else:
            yield made_by
