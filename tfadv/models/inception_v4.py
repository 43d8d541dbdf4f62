"""Inception v4, which Kurakin et al. 2017 attack with images made for Inception v3."""

import keras
from keras import layers

from tfadv.models.inception import (
    AVERAGE_POOL,
    MAX_POOL,
    convolutions,
    mixed,
)
from tfadv.models.layers import check_rate, decay, pooled, rgb_input


def inception_v4(
    input_shape,
    num_classes,
    *,
    width: float = 1.0,
    activation: str = "relu",
    dropout: float = 0.2,
    bn_momentum: float = 0.9997,
    weight_decay: float = 4e-5,
):
    """A stem, sixteen blocks of parallel branches, the mean, dropout and dense K.

    | layer                | what it is                              | at 299     |
    |----------------------|-----------------------------------------|------------|
    | normalize            | 2 x - 1                                 | 299x299x3  |
    | conv_1a_3x3          | 3x3x32 / 2 VALID                        | 149x149x32 |
    | conv_2a_3x3          | 3x3x32 VALID                            | 147x147x32 |
    | conv_2b_3x3          | 3x3x64                                  | 147x147x64 |
    | mixed_3a, 4a, 5a     | two branches; 3a and 5a halve the size  | 35x35x384  |
    | mixed_5b .. mixed_5e | A: 1x1, 3x3, twice 3x3, average pool    | 35x35x384  |
    | mixed_6a             | halves the size                         | 17x17x1024 |
    | mixed_6b .. mixed_6h | B: 1x1, 7x7 and twice 7x7 as 1x7 and    | 17x17x1024 |
    |                      | 7x1, average pool                       |            |
    | mixed_7a             | halves the size                         | 8x8x1536   |
    | mixed_7b .. mixed_7d | C: 1x1, 1x3 beside 3x1, 3x1 1x3 and     | 8x8x1536   |
    |                      | these, average pool                     |            |
    | avg_pool             | mean over the positions, dropout        | 1536       |
    | embedding            | dense K                                 | K          |

    Behind every convolution are BN without a scale and the activation; kernels are He
    normal, that of the logits Glorot uniform. `auxiliary_head` takes the output of the
    layer `mixed_6h`, the last B.

    Args:
        input_shape: (h, w, 3), sides of 75 or more; 299 on ImageNet. The 8x8 average
            pool of the paper is the mean over the positions, here for every size.
        num_classes: K.
        width: rho, by which the filters d of every convolution are multiplied:
            max(int(d rho), 16), as in `inception_v3`. 1 in the paper.
        activation: see `activations.get`.
        dropout: rate behind avg_pool.
        bn_momentum: of the moving statistics, which need ten thousand steps at .9997.
        weight_decay: wd in wd / 2 * sum(kernel^2).

    Returns:
        A functional `keras.Model` from x [n, h, w, 3] in [0, 1] to logits [n, K].
        41,174,400 parameters and 1,537 for each class at width 1.

    Raises:
        ValueError: images too small or not of three channels, a width that is not
            positive, an unknown activation, an impossible rate.

    Source: Kurakin et al. 2017, section 4.4; Szegedy et al. 2017; TF-slim.
    """
    check_rate(dropout)
    conv = convolutions(
        width=width,
        activation=activation,
        bn_momentum=bn_momentum,
        weight_decay=weight_decay,
    )

    inputs = rgb_input(input_shape, 75, "inception_v4")
    x = layers.Rescaling(2.0, -1.0, name="normalize")(inputs)
    x = conv(x, "conv_1a", 32, 3, 2, "valid")
    x = conv(x, "conv_2a", 32, 3, 1, "valid")
    x = conv(x, "conv_2b", 64, 3)
    for name, branches in _blocks():
        x = mixed(x, name, branches, conv)
    logits = layers.Dense(
        num_classes, kernel_regularizer=decay(weight_decay), name="embedding"
    )(pooled(x, dropout))
    return keras.Model(inputs, logits, name="inception_v4")


def _blocks():
    """(name, branches) of every block, see `inception.mixed`."""
    stem_4a = [
        [(64, 1), (96, 3, 1, "valid")],
        [(64, 1), (64, (1, 7)), (64, (7, 1)), (96, 3, 1, "valid")],
    ]
    a = [
        [(96, 1)],
        [(64, 1), (96, 3)],
        [(64, 1), (96, 3), (96, 3)],
        [AVERAGE_POOL, (96, 1)],
    ]
    reduce_a = [
        [(384, 3, 2, "valid")],
        [(192, 1), (224, 3), (256, 3, 2, "valid")],
        [MAX_POOL],
    ]
    b = [
        [(384, 1)],
        [(192, 1), (224, (1, 7)), (256, (7, 1))],
        [(192, 1), (192, (7, 1)), (224, (1, 7)), (224, (7, 1)), (256, (1, 7))],
        [AVERAGE_POOL, (128, 1)],
    ]
    reduce_b = [
        [(192, 1), (192, 3, 2, "valid")],
        [(256, 1), (256, (1, 7)), (320, (7, 1)), (320, 3, 2, "valid")],
        [MAX_POOL],
    ]
    split = [(256, (1, 3)), (256, (3, 1))]
    c = [
        [(256, 1)],
        [(384, 1), split],
        [(384, 1), (448, (3, 1)), (512, (1, 3)), split],
        [AVERAGE_POOL, (256, 1)],
    ]
    return [
        ("mixed_3a", [[MAX_POOL], [(96, 3, 2, "valid")]]),
        ("mixed_4a", stem_4a),
        ("mixed_5a", [[(192, 3, 2, "valid")], [MAX_POOL]]),
        *((f"mixed_5{i}", a) for i in "bcde"),
        ("mixed_6a", reduce_a),
        *((f"mixed_6{i}", b) for i in "bcdefgh"),
        ("mixed_7a", reduce_b),
        *((f"mixed_7{i}", c) for i in "bcd"),
    ]
