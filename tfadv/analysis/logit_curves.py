"""The softmax's arguments along an attack's direction: Na et al. 2018, Figures 4, 6."""

import numpy as np

from tfadv.analysis import directions

_POSITIVE = (
    *(0.001, 0.003, 0.01, 0.03, 0.1, 0.3),
    *map(float, range(1, 11)),
    *map(float, range(12, 31, 2)),
    *map(float, range(35, 61, 5)),
)
# The eps of the figures, in pixels of 255; a negative one moves the other way.
GRID = (*(-eps for eps in reversed(_POSITIVE)), 0.0, *_POSITIVE)


def measure(predict, x, y, signs, *, batch_size, desc=""):
    """The figure's curves of one network.

    Args:
        predict, x, batch_size, desc: see `logits_along`.
        y: [n] true labels.
        signs: of `directions.signs`.

    Returns:
        dict from each direction to what `summarize` returns, over `GRID`.
    """
    return {
        name: summarize(
            logits_along(predict, x, d, batch_size=batch_size, desc=f"{desc}: {name}"),
            y,
        )
        for name, d in signs.items()
    }


def logits_along(predict, x, direction, pixels=GRID, *, batch_size, desc=""):
    """Logits at clip(x + eps * d, 0, 1) for every eps.

    Args:
        predict: x -> logits, in inference mode.
        x: [n, h, w, c] float32 in [0, 1].
        direction: d, [n, h, w, c]; of `directions.signs`.
        pixels: eps in pixels of 255, of either sign.
        batch_size: int, images a call.
        desc: text before the bar.

    Returns:
        [len(pixels), n, K] float32.
    """
    logits = directions.compiled(predict, x)
    sizes = np.asarray(pixels) / 255
    found = []
    for j, i in directions.grid(len(sizes), len(x), batch_size, desc):
        z = np.clip(directions.moved(x[i], direction[i], sizes[j]), 0, 1)
        found.append(logits(z).numpy())
    return np.concatenate(found).reshape(len(sizes), len(x), -1)


def summarize(logits, y):
    """Mean and standard deviation of the logits of true and of false classes.

    Over the n true logits, and over the n (K - 1) others, at each eps. (The released
    code of the paper deletes other positions than the true ones, so the false classes
    of its figures contain most of the true logits.)

    Args:
        logits: [sizes, n, K].
        y: [n] true labels.

    Returns:
        dict of lists, one number an eps: `true_mean`, `true_sd`, `false_mean`,
        `false_sd`.
    """
    is_true = np.arange(logits.shape[2]) == np.asarray(y)[:, None]
    parts = {
        "true": logits[:, is_true].astype(np.float64),
        "false": logits[:, ~is_true].astype(np.float64),
    }
    return {
        f"{name}_{word}": statistic(part, axis=1).tolist()
        for name, part in parts.items()
        for word, statistic in (("mean", np.mean), ("sd", np.std))
    }
