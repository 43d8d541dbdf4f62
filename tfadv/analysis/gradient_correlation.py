"""How alike the error surface is around two images: Na et al. 2018, Figure 5."""

import numpy as np
import tensorflow as tf

from tfadv.analysis import directions
from tfadv.attacks import core

# The eps of the figure, in units of the direction.
GRID = (
    0.01,
    *(i / 100 for i in range(2, 100, 2)),
    *(i / 100 for i in range(100, 1001, 20)),
)
PAIRS = (
    ("clean", "step_ll"),
    ("clean", "step_fgsm"),
    ("clean", "random_sign"),
    ("step_ll", "step_fgsm"),
)


def measure(predict, x, y, signs, *, batch_size, desc=""):
    """The figure's curves of one network.

    Args:
        predict, x, y, batch_size, desc: see `correlations`.
        signs: of `directions.signs`.

    Returns:
        dict from `"clean, step_ll"`, .. to what `summarize` returns, over `GRID`.
    """
    found = correlations(
        predict, x, y, one_pixel(x, signs), batch_size=batch_size, desc=desc
    )
    return {f"{a}, {b}": summarize(values) for (a, b), values in found.items()}


def one_pixel(x, signs):
    """n = clip(x + d / 255, 0, 1) - x: the adversarial image of one pixel, less x.

    Args:
        x: [n, h, w, c] in [0, 1].
        signs: dict from name to d, of `directions.signs`.
    """
    return {
        name: np.clip(directions.moved(x, d, np.full(len(x), 1 / 255)), 0, 1) - x
        for name, d in signs.items()
    }


def correlations(predict, x, y, moves, grid=GRID, *, batch_size, desc=""):
    """Pearson's correlation of the input gradients of J(., y) at pairs of images.

    An image is x + eps * n, not clipped again, so that the direction stays the same;
    `clean` is x at every eps.

    Args:
        predict: x -> logits, in inference mode.
        x: [n, h, w, c] float32 in [0, 1].
        y: [n] int32, the true labels.
        moves: dict from the other names in `PAIRS` to n, of `one_pixel`.
        grid: multiples eps of n.
        batch_size: int, images a call.
        desc: text before the bar.

    Returns:
        dict from each of `PAIRS` to [len(grid), n], NaN where a gradient is the same
        in every pixel.
    """
    gradient = directions.compiled(
        lambda x, y: core.input_gradient(predict, x, lambda o: against(y, o)), x, y
    )
    sizes = np.asarray(grid)
    clean = directions.in_parts(gradient, batch_size, x, y)
    found = {pair: [] for pair in PAIRS}
    for j, i in directions.grid(len(sizes), len(x), batch_size, desc):
        at = {
            name: gradient(directions.moved(x[i], n[i], sizes[j]), y[i]).numpy()
            for name, n in moves.items()
        }
        at["clean"] = clean[i]
        for a, b in PAIRS:
            found[a, b].append(pearson(at[a], at[b]))
    return {
        pair: np.concatenate(values).reshape(len(sizes), len(x))
        for pair, values in found.items()
    }


def against(y, logits):
    """m = log sum_{c != y} exp z_c - z_y, whose gradient is parallel to that of J.

    J = log(1 + e^m), so grad J = sigmoid(m) grad m. A correlation does not see the
    positive factor, which rounds to 0 in float32 where the network is sure.

    Args:
        y: [n].
        logits: z, [n, K].

    Returns:
        [n].
    """
    is_true = tf.one_hot(y, tf.shape(logits)[-1], on_value=True, off_value=False)
    true = tf.reduce_sum(tf.where(is_true, logits, 0.0), axis=-1)
    others = tf.where(is_true, -float("inf"), logits)
    return tf.reduce_logsumexp(others, axis=-1) - true


def pearson(a, b):
    """Pearson's correlation of each example, in float64.

    Args:
        a, b: [n, ...], each example flattened.

    Returns:
        [n]; NaN where one of the two is constant or not finite.
    """
    a, b = (np.reshape(v, (len(v), -1)).astype(np.float64) for v in (a, b))
    with np.errstate(invalid="ignore"):
        a, b = (v - np.mean(v, axis=1, keepdims=True) for v in (a, b))
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        return np.sum(a * b, axis=1) / norms


def summarize(values):
    """Mean and standard deviation over the images whose correlation is defined.

    Args:
        values: [sizes, n].

    Returns:
        dict of lists, one entry an eps: `mean` and `sd` (NaN without any image) and
        `n`, the number of images.
    """
    masked = np.ma.masked_invalid(values)
    return {
        "mean": masked.mean(axis=1).filled(np.nan).tolist(),
        "sd": masked.std(axis=1).filled(np.nan).tolist(),
        "n": masked.count(axis=1).tolist(),
    }
