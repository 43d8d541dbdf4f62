"""Accuracy of a classifier under attacks that know it."""

import math

import numpy as np
import tensorflow as tf
from absl import logging
from scipy import stats
from tqdm import tqdm

from tfadv.attacks import core
from tfadv.data.pipeline import to_float


def measure(
    predict, images, entries, eps, *, batch_size, seed=0, progress=True, clean=True
):
    """Accuracy on clean images and under every attack at every eps.

    Args:
        predict: x -> logits, in inference mode.
        images: `Images` as the model takes them.
        entries: `suite.Entry`s.
        eps: numbers, in the units of x.
        batch_size: int.
        seed: int, of random attacks.
        progress: whether to show a bar (on a terminal) or log each row.
        clean: whether the clean images are measured, too.

    Returns:
        list of rows, dicts as `row` makes them, clean first.
    """
    judges = {None: judge(predict, images)}
    rows = []
    for entry in [None] * clean + list(entries):
        sizes = [0.0] if entry is None else eps
        found = hits(
            predict,
            judges,
            images,
            entry,
            sizes,
            batch_size=batch_size,
            seed=seed,
            progress=progress,
        )[None]
        at_sizes = [
            row(entry.label if entry else "clean", e, right.sum(), len(images))
            for e, right in zip(sizes, found, strict=True)
        ]
        rows += at_sizes
        for one in at_sizes if progress else ():
            logging.info("%s", in_words(one))
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


def judge(predict, images, top_k=1):
    """A function (x, y) -> [n] bool: whether y is among the `top_k` largest logits.

    Of equal logits those of the lower classes come first, as in argmax.

    Args:
        predict: x -> logits, in inference mode.
        images: `Images`, whose shape x has.
        top_k: int, at most the number of classes.
    """

    @tf.function
    def is_right(x, y):
        top = tf.math.top_k(predict(x), top_k).indices
        return tf.reduce_any(top == y[:, None], axis=1)

    return is_right.get_concrete_function(*_batch_spec(images))


def hits(source, judges, images, entry, eps, *, batch_size, seed, progress, desc=""):
    """Which images are classified correctly after an attack on `source`.

    Args:
        source: x -> logits, that the attack sees.
        judges: dict from anything to a `judge`.
        images, batch_size, seed, progress: as `measure` takes them.
        entry: `suite.Entry`, or None for the clean images.
        eps: numbers; one for the clean images.
        desc: text before the bar.

    Returns:
        dict from each key of `judges` to a bool array [len(eps), n].
    """

    @tf.function
    def craft(x, y, seed):
        return core.sweep(entry.attack, source, x, y, eps, seed)

    if entry is not None:
        # One graph, for a short last batch as well.
        craft = craft.get_concrete_function(
            *_batch_spec(images), tf.TensorSpec([2], tf.int64)
        )
    shown = tqdm(
        batches(images, batch_size),
        desc=desc + (entry.label if entry else "clean"),
        total=math.ceil(len(images) / batch_size),
        leave=False,
        disable=None if progress else True,
    )
    found = {key: [] for key in judges}
    for number, (x, y) in enumerate(shown):
        crafted = craft(x, y, core.fold(seed, number)) if entry else [x]
        for key, is_right in judges.items():
            found[key].append([is_right(z, y).numpy() for z in crafted])
    return {key: np.concatenate(parts, axis=1) for key, parts in found.items()}


def _batch_spec(images):
    return (
        tf.TensorSpec((None, *images.x.shape[1:]), tf.float32),
        tf.TensorSpec([None], tf.int32),
    )


def in_words(row):
    """A row for the log: its attack, eps and accuracy."""
    return (
        f"{row['attack']}, eps {format_eps(row['eps'])}: {100 * row['accuracy']:.2f} %"
    )


def format_eps(eps):
    """An eps as people write it: `8/255`, `0.3`, or `8/256` for long decimals."""
    decimals = f"{eps:g}"
    for unit in (255, 256) if len(decimals) > 6 else (255,):
        whole = round(eps * unit)
        if whole and abs(eps * unit - whole) < 1e-3:
            return f"{whole}/{unit}"
    return decimals
