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
