"""Inception v3, the network of Kurakin et al. 2017, of any width, depth and activation.

Its weights can come from keras.applications.InceptionV3 and go there. As that network
itself, with the names of its layers, there is `inception_v3_imagenet`.
"""

import re

import keras
from keras import layers

from tfadv.models.inception import (
    AVERAGE_POOL,
    MAX_POOL,
    convolutions,
    mixed,
)
from tfadv.models.layers import check_rate, decay, pooled, rgb_input

# What the layers with weights of keras.applications are called, and the logits there
# and in `inception_v3_imagenet`.
NUMBERED = re.compile(r"(conv2d|batch_normalization)(?:_(\d+))?")
LOGITS = ("predictions", "embedding")


def inception_v3(
    input_shape,
    num_classes,
    *,
    width: float = 1.0,
    activation: str = "relu",
    extra_blocks: int = 0,
    dropout: float = 0.2,
    bn_momentum: float = 0.9997,
    weight_decay: float = 4e-5,
):
    """A stem, eleven blocks of parallel branches, the mean, dropout and dense K.

    | layer                | what it is                                | at 299     |
    |----------------------|-------------------------------------------|------------|
    | normalize            | 2 x - 1                                   | 299x299x3  |
    | conv_1a_3x3          | 3x3x32 / 2 VALID                          | 149x149x32 |
    | conv_2a_3x3          | 3x3x32 VALID                              | 147x147x32 |
    | conv_2b_3x3          | 3x3x64                                    | 147x147x64 |
    | pool_3a              | max pool 3 / 2 VALID                      | 73x73x64   |
    | conv_3b_1x1          | 1x1x80                                    | 73x73x80   |
    | conv_4a_3x3          | 3x3x192 VALID                             | 71x71x192  |
    | pool_5a              | max pool 3 / 2 VALID                      | 35x35x192  |
    | mixed_5b .. mixed_5d | 1x1, 5x5, twice 3x3, average pool         | 35x35x288  |
    | mixed_6a             | halves the size                           | 17x17x768  |
    | mixed_6b .. mixed_6e | 1x1, 7x7 and twice 7x7 as 1x7 and 7x1,    | 17x17x768  |
    |                      | average pool                              |            |
    | extra_1, extra_2 ..  | `extra_blocks` further ones as mixed_6e   | 17x17x768  |
    | mixed_7a             | halves the size                           | 8x8x1280   |
    | mixed_7b, mixed_7c   | 1x1, 1x3 beside 3x1, 3x3 and these,       | 8x8x2048   |
    |                      | average pool                              |            |
    | avg_pool             | mean over the positions, dropout          | 2048       |
    | embedding            | dense K                                   | K          |

    Behind every convolution are BN without a scale and the activation. Kernels, that of
    the logits included, are He normal. `auxiliary_head` takes the output of the layer
    `mixed_6e`, which is what it is with extra blocks, too.

    Args:
        input_shape: (h, w, 3), sides of 75 or more; 299 on ImageNet. The 8x8 average
            pool of the paper is the mean over the positions, here for every size.
        num_classes: K; 1000 on ImageNet, 1001 with the class "background" in the
            paper's code.
        width: rho, by which the filters d of every convolution are multiplied:
            max(int(d rho), 16). In the paper between 0.5 and 2.
        activation: see `activations.get`.
        extra_blocks: the paper's "deeper" network has two more blocks and does not say
            which; here they are of the kind of mixed_6e, behind it.
        dropout: rate behind avg_pool; the paper keeps 0.8.
        bn_momentum: of the moving statistics, which need ten thousand steps at .9997.
        weight_decay: wd in wd / 2 * sum(kernel^2).

    Returns:
        A functional `keras.Model` from x [n, h, w, 3] in [0, 1] to logits [n, K].
        21,802,784 parameters and 2,049 for each class at width 1.

    Raises:
        ValueError: images too small or not of three channels, a width that is not
            positive, an unknown activation, a negative number of blocks, an impossible
            rate.

    Source: Kurakin et al. 2017, section 4; Szegedy et al. 2016; TF-slim.
    """
    check_rate(dropout)
    if extra_blocks < 0:
        raise ValueError(f"`extra_blocks` must be 0 or more; received {extra_blocks}")
    conv = convolutions(
        width=width,
        activation=activation,
        bn_momentum=bn_momentum,
        weight_decay=weight_decay,
    )

    inputs = rgb_input(input_shape, 75, "inception_v3")
    x = layers.Rescaling(2.0, -1.0, name="normalize")(inputs)
    x = conv(x, "conv_1a", 32, 3, 2, "valid")
    x = conv(x, "conv_2a", 32, 3, 1, "valid")
    x = conv(x, "conv_2b", 64, 3)
    x = layers.MaxPooling2D(3, strides=2, name="pool_3a")(x)
    x = conv(x, "conv_3b", 80, 1)
    x = conv(x, "conv_4a", 192, 3, 1, "valid")
    x = layers.MaxPooling2D(3, strides=2, name="pool_5a")(x)
    for name, branches in _blocks(extra_blocks):
        x = mixed(x, name, branches, conv)
    logits = layers.Dense(
        num_classes,
        kernel_initializer="he_normal",
        kernel_regularizer=decay(weight_decay),
        name="embedding",
    )(pooled(x, dropout))
    return keras.Model(inputs, logits, name="inception_v3")


def _blocks(extra):
    """(name, branches) of every block, see `inception.mixed`."""

    def block_35(last):
        return [
            [(64, 1)],
            [(48, 1), (64, 5)],
            [(64, 1), (96, 3), (96, 3)],
            [AVERAGE_POOL, (last, 1)],
        ]

    def block_17(c):
        return [
            [(192, 1)],
            [(c, 1), (c, (1, 7)), (192, (7, 1))],
            [(c, 1), (c, (7, 1)), (c, (1, 7)), (c, (7, 1)), (192, (1, 7))],
            [AVERAGE_POOL, (192, 1)],
        ]

    split = [(384, (1, 3)), (384, (3, 1))]
    block_8 = [
        [(320, 1)],
        [(384, 1), split],
        [(448, 1), (384, 3), split],
        [AVERAGE_POOL, (192, 1)],
    ]
    halve_35 = [
        [(384, 3, 2, "valid")],
        [(64, 1), (96, 3), (96, 3, 2, "valid")],
        [MAX_POOL],
    ]
    halve_17 = [
        [(192, 1), (320, 3, 2, "valid")],
        [(192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2, "valid")],
        [MAX_POOL],
    ]
    return [
        *(
            (f"mixed_5{i}", block_35(d))
            for i, d in zip("bcd", (32, 64, 64), strict=True)
        ),
        ("mixed_6a", halve_35),
        *(
            (f"mixed_6{i}", block_17(c))
            for i, c in zip("bcde", (128, 160, 160, 192), strict=True)
        ),
        *((f"extra_{i}", block_17(192)) for i in range(1, extra + 1)),
        ("mixed_7a", halve_17),
        ("mixed_7b", block_8),
        ("mixed_7c", block_8),
    ]


def from_applications(model, other):
    """Gives `model` the weights of a keras.applications.InceptionV3.

    Their convolutions and batch normalisations are numbered as they are made, here
    they have names that sort in that order. Untouched are extra blocks, and the logits
    where the other network has none or those of other classes. Images that are given to
    `other` must be 2 x - 1, what its `preprocess_input` makes of 255 x.

    A file of weights: `other` may be keras.applications.InceptionV3(weights=path).

    Args:
        model: of `inception_v3` with width 1.
        other: `keras.applications.InceptionV3`, or one that `keras.models.load_model`
            found in a file; or an `inception_v3_imagenet`.

    Returns:
        Names of the layers of `model` whose weights were left as they were.

    Raises:
        ValueError: `other` is another network, or `model` of another width; then
            nothing is assigned.
    """
    pairs = _pairs(model, other)
    for ours, theirs in pairs:
        ours.set_weights(theirs.get_weights())
    taken = {ours.name for ours, _ in pairs}
    return tuple(
        layer.name
        for layer in model.layers
        if layer.weights and layer.name not in taken
    )


def to_applications(model, other):
    """Gives a keras.applications.InceptionV3 the weights of `model`.

    The other direction of `from_applications`, with its arguments and errors. Extra
    blocks, which `other` does not have, make it another function.
    """
    for ours, theirs in _pairs(model, other):
        theirs.set_weights(ours.get_weights())


def applications_names(model, names):
    """What the layers of keras.applications.InceptionV3 are called in `model`.

    Args:
        model: of `inception_v3`.
        names: of the layers with weights of a keras.applications.InceptionV3, or in a
            file of its weights, in any order: conv2d_7, batch_normalization_7 .. where
            the first may have any number, and predictions or embedding.

    Returns:
        dict from their names to those of `model`; empty where `names` are not those of
        94 convolutions and as many batch normalisations.
    """
    own = sorted(
        layer.name
        for layer in model.layers
        if isinstance(layer, layers.Conv2D)
        and layer.name.startswith(("conv_", "mixed_"))
    )
    ours = {"conv2d": own, "batch_normalization": [f"{name}_bn" for name in own]}
    theirs = {kind: [] for kind in ours}
    for name in names:
        match = NUMBERED.fullmatch(name)
        if match:
            theirs[match[1]].append((int(match[2] or 0), name))
    if any(len(theirs[kind]) != len(ours[kind]) or not own for kind in ours):
        return {}
    found = {name: "embedding" for name in names if name in LOGITS}
    for kind in ours:
        numbered = [name for _, name in sorted(theirs[kind])]
        found |= zip(numbered, ours[kind], strict=True)
    return found


def _pairs(model, other):
    """[(layer of `model`, layer of `other`)] with equal shapes."""
    names = applications_names(model, [a.name for a in other.layers if a.weights])
    if not names:
        raise ValueError(
            "`other` must be a keras.applications.InceptionV3, whose 94 convolutions "
            "and batch normalisations are called conv2d_<i> and "
            f"batch_normalization_<i>; received {other.name}"
        )
    pairs = []
    for theirs, ours in names.items():
        ours, theirs = model.get_layer(ours), other.get_layer(theirs)
        found, expected = _shapes(theirs), _shapes(ours)
        if found == expected:
            pairs.append((ours, theirs))
        elif ours.name != "embedding":
            raise ValueError(
                f"the layer {ours.name} of {model.name} has weights of shapes "
                f"{expected}, and {theirs.name} of {other.name} {found}: build "
                "inception_v3 with width=1"
            )
    return pairs


def _shapes(layer):
    return [tuple(weight.shape) for weight in layer.weights]
