"""What several networks share, in plain Keras: models load without tfadv."""

import keras


def normalization(mean=(), std=(), channels=None):
    """The first layer of every network: (x - mean) / std per channel, x in [0, 1].

    Args:
        mean: channel means in the units of x; empty means 0.
        std: channel standard deviations; empty means 1.

    Raises:
        ValueError: a standard deviation that is not positive.
    """
    for name, values in (("mean", mean), ("std", std)):
        if channels is not None and len(values) not in (0, 1, channels):
            raise ValueError(
                f"`{name}` must hold one value for each of the {channels} channels; "
                f"received {len(values)}"
            )
    if any(s <= 0 for s in std):
        raise ValueError(f"`std` must be positive; received {std}")
    scale = [1 / s for s in std] or [1.0]
    mean = list(mean) or [0.0]
    n = max(len(scale), len(mean))
    scale = scale * n if len(scale) == 1 else scale
    mean = mean * n if len(mean) == 1 else mean
    if len(scale) != len(mean):
        raise ValueError(
            "`mean` and `std` must have one value a channel; "
            f"received {len(mean)} and {len(std)} values"
        )
    offset = [-m * s for m, s in zip(mean, scale, strict=True)]
    return keras.layers.Rescaling(scale, offset, name="normalize")


def decay(weight_decay):
    """wd / 2 * sum(kernel^2), the gradient wd * kernel of the papers' code, or None."""
    return keras.regularizers.L2(weight_decay / 2) if weight_decay else None


def rgb_input(input_shape, least, name):
    """The input of the network `name`, images of three channels and enough pixels."""
    shape = tuple(input_shape)
    if len(shape) != 3 or shape[2] != 3 or min(shape[:2]) < least:
        raise ValueError(
            f"{name} takes colour images (h, w, 3) with sides of {least} or more; "
            f"received {'x'.join(map(str, shape))}"
        )
    return keras.Input(shape)


def check_rate(dropout):
    """ValueError for a `dropout` outside [0, 1)."""
    if not 0 <= dropout < 1:
        raise ValueError(
            f"`dropout` must be a rate of 0 or more and less than 1; received {dropout}"
        )


def bgr(x, mean):
    """255 x - mean, the order of the channels reversed.

    Args:
        x: [n, h, w, 3] in [0, 1], RGB.
        mean: of B, G and R, in units of 1/255.

    Returns:
        [n, h, w, 3], BGR.
    """
    offset = [-m for m in reversed(mean)]
    x = keras.layers.Rescaling([255.0] * 3, offset, name="normalize")(x)
    return keras.ops.flip(x, axis=-1)


def embedding(x, num_classes, weight_decay):
    """Logits [n, K] of features [n, f]: the last layer, `embedding`."""
    return keras.layers.Dense(
        num_classes, kernel_regularizer=decay(weight_decay), name="embedding"
    )(x)


def pooled(x, dropout):
    """The mean over the positions (`avg_pool`) and, where it is not 0, dropout."""
    x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
    if dropout:
        x = keras.layers.Dropout(dropout, name="avg_pool_dropout")(x)
    return x
