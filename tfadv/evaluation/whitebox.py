"""Accuracy of a classifier under attacks that know it."""

import math

import tensorflow as tf
from absl import logging
from scipy import stats
from tqdm import tqdm

from tfadv.attacks import core
from tfadv.data.pipeline import to_float


def measure(predict, images, entries, eps, *, batch_size, seed=0, progress=True):
    """Accuracy on clean images and under every attack at every eps.

    Args:
        predict: x -> logits, in inference mode.
        images: `Images` as the model takes them.
        entries: `suite.Entry`s.
        eps: numbers, in the units of x.
        batch_size: int.
        seed: int, of random attacks.
        progress: whether to show a bar (on a terminal) or log each row.

    Returns:
        list of rows, dicts as `row` makes them, clean first.
    """
    clean = _measure(predict, images, None, [0.0], batch_size, seed, progress)
    rows = [row("clean", 0.0, clean[0], len(images))]
    _log(rows, progress)
    for entry in entries:
        correct = _measure(predict, images, entry, eps, batch_size, seed, progress)
        found = [
            row(entry.label, e, c, len(images))
            for e, c in zip(eps, correct, strict=True)
        ]
        _log(found, progress)
        rows += found
    return rows


def row(label, eps, correct, n):
    """One measurement: accuracy with its 95 % Wilson interval."""
    interval = stats.binomtest(int(correct), int(n)).proportion_ci(0.95, "wilson")
    return {
        "attack": label,
        "eps": float(eps),
        "accuracy": int(correct) / int(n),
        "n": int(n),
        "ci95": [float(interval.low), float(interval.high)],
    }


def batches(images, batch_size):
    """(x [n, h, w, c] float32, y [n]) in order; the last may be shorter."""
    for start in range(0, len(images), batch_size):
        part = images.take(slice(start, start + batch_size))
        yield to_float(tf.constant(part.x)), tf.constant(part.y)


def _measure(predict, images, entry, eps, batch_size, seed, progress):
    """How many images are classified correctly after the attack, for each eps."""

    @tf.function
    def count_correct(x, y, seed):
        if entry is None:
            attacked = [x]
        else:
            attacked = core.sweep(entry.attack, predict, x, y, eps, seed)
        return [
            tf.math.count_nonzero(
                tf.argmax(predict(z), axis=-1, output_type=tf.int32) == y
            )
            for z in attacked
        ]

    # One graph, for a short last batch as well.
    count_correct = count_correct.get_concrete_function(
        tf.TensorSpec((None, *images.x.shape[1:]), tf.float32),
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([2], tf.int64),
    )
    shown = tqdm(
        batches(images, batch_size),
        desc=entry.label if entry else "clean",
        total=math.ceil(len(images) / batch_size),
        leave=False,
        disable=None if progress else True,
    )
    counts = [
        [int(c) for c in count_correct(x, y, core.fold(seed, number))]
        for number, (x, y) in enumerate(shown)
    ]
    return [sum(column) for column in zip(*counts, strict=True)]


def _log(rows, progress):
    for one in rows if progress else ():
        logging.info(
            "%s, eps %s: %.2f %%",
            one["attack"],
            format_eps(one["eps"]),
            100 * one["accuracy"],
        )


def format_eps(eps):
    """An eps as people write it: `8/255` where it is whole pixels, else decimals."""
    pixels = eps * 255
    whole = round(pixels)
    return f"{whole}/255" if whole and abs(pixels - whole) < 1e-3 else f"{eps:g}"
