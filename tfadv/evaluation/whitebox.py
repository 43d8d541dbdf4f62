"""Accuracy of a classifier under attacks that know it."""

import math

import numpy as np
import tensorflow as tf
from absl import logging
from scipy import stats
from tqdm import tqdm

from tfadv.attacks import core
from tfadv.data.pipeline import to_float
from tfadv.evaluation.confusion import confusion_matrix, one_off

# With more classes than this, rows tell top-5 accuracy.
FEW_CLASSES = 10


def measure(
    predict,
    images,
    entries,
    eps,
    *,
    batch_size,
    seed=0,
    progress=True,
    clean=True,
    ordered_classes=None,
    top5=False,
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
        ordered_classes: int, how many classes there are where they have an order, or
            None where they have none.
        top5: whether to tell top-5 accuracy, too; of five classes or more.

    Returns:
        list of rows, dicts as `row` makes them, clean first; with `one_off` and
        `confusion` where the classes have an order, and with `top5` if asked for.
    """
    guesses = {None: guess(predict, images, 5 if top5 else 1)}
    rows = []
    for entry in [None] * clean + list(entries):
        sizes = [0.0] if entry is None else eps
        right, guessed = hits(
            predict,
            guesses,
            images,
            entry,
            sizes,
            batch_size=batch_size,
            seed=seed,
            progress=progress,
        )[None]
        at_sizes = [
            row(
                entry.label if entry else "clean",
                e,
                right[i, :, 0].sum(),
                len(images),
                confused(images, guessed[i], ordered_classes),
                right[i, :, 4].sum() if top5 else None,
            )
            for i, e in enumerate(sizes)
        ]
        rows += at_sizes
        for one in at_sizes if progress else ():
            logging.info("%s", in_words(one))
    return rows


def row(label, eps, correct, n, confusion=None, top5=None):
    """One measurement: accuracy with its 95 % Wilson interval.

    Args:
        label: of the attack.
        eps: number.
        correct, n: how many images are right, of how many.
        confusion: [C, C] counts, as `confusion_matrix` returns them, or None.
        top5: how many have their class among the five largest logits, or None.

    Returns:
        dict `attack`, `eps`, `accuracy`, `n`, `ci95`. With `confusion` also `one_off`,
        a fraction, and `confusion`, lists of int, whose line i is the true class i.
        With `top5` also `top5`, a fraction.
    """
    more = {}
    if confusion is not None:
        more = {"one_off": one_off(confusion), "confusion": confusion.tolist()}
    if top5 is not None:
        more["top5"] = int(top5) / int(n)
    return {
        "attack": label,
        "eps": float(eps),
        "accuracy": int(correct) / int(n),
        "n": int(n),
        "ci95": interval(correct, n),
        **more,
    }


def interval(correct, n):
    """[low, high], the 95 % Wilson interval of a share `correct` of `n`."""
    test = stats.binomtest(int(correct), int(n))
    return [float(bound) for bound in test.proportion_ci(0.95, "wilson")]


def confused(images, guessed, ordered_classes):
    """The confusion matrix of images by what is guessed, None for no ordered classes.

    Args:
        images: `Images`.
        guessed: [n] int.
        ordered_classes: as `measure` takes it.
    """
    if ordered_classes is None:
        return None
    return confusion_matrix(images.y, guessed, ordered_classes)


def batches(images, batch_size):
    """(x [n, h, w, c] float32, y [n]) in order; the last may be shorter."""
    for start in range(0, len(images), batch_size):
        part = images.take(slice(start, start + batch_size))
        yield to_float(tf.constant(part.x)), tf.constant(part.y)


def guess(predict, images, top_k=1):
    """A function x -> [n, top_k] int32: the classes of the `top_k` largest logits.

    The largest comes first, of equal ones that of the lower class, as in argmax.

    Args:
        predict: x -> logits, in inference mode.
        images: `Images`, whose shape x has.
        top_k: int, at most the number of classes.
    """

    @tf.function
    def largest(x):
        return tf.math.top_k(predict(x), top_k).indices

    return largest.get_concrete_function(_batch_spec(images)[0])


def hits(source, guesses, images, entry, eps, *, batch_size, seed, progress, desc=""):
    """How images are classified, and which correctly, after an attack on `source`.

    Args:
        source: x -> logits, that the attack sees.
        guesses: dict from anything to a `guess`.
        images, batch_size, seed, progress: as `measure` takes them.
        entry: `suite.Entry`, or None for the clean images.
        eps: numbers; one for the clean images.
        desc: text before the bar.

    Returns:
        dict from each key of `guesses` to (right, guessed): bool [len(eps), n, top_k],
        whether the true class is among the first 1 .. top_k guessed ones, and int32
        [len(eps), n], the first of these.
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
    found = {key: [] for key in guesses}
    for number, (x, y) in enumerate(shown):
        crafted = craft(x, y, core.fold(seed, number)) if entry else [x]
        for key, largest in guesses.items():
            found[key].append([largest(z).numpy() for z in crafted])
    top = {key: np.concatenate(parts, axis=1) for key, parts in found.items()}
    return {
        key: (
            np.logical_or.accumulate(classes == images.y[:, None], axis=-1),
            classes[..., 0],
        )
        for key, classes in top.items()
    }


def _batch_spec(images):
    return (
        tf.TensorSpec((None, *images.x.shape[1:]), tf.float32),
        tf.TensorSpec([None], tf.int32),
    )


def in_words(row):
    """A row for the log: its attack, eps and accuracy; one-off, top-5 if known."""
    more = "".join(
        f", {name} {100 * row[key]:.1f} %"
        for key, name in (("one_off", "one-off"), ("top5", "top-5"))
        if key in row
    )
    accuracy = f"{100 * row['accuracy']:.2f} %"
    return f"{row['attack']}, eps {format_eps(row['eps'])}: {accuracy}{more}"


def format_eps(eps):
    """An eps as people write it: `8/255`, `0.4`, or `8/256` for long decimals."""
    decimals = f"{eps:g}"
    if decimals.startswith("0.") and len(decimals) == 3:
        return decimals
    for unit in (255, 256) if len(decimals) > 6 else (255,):
        whole = round(eps * unit)
        if whole and abs(eps * unit - whole) < 1e-3:
            return f"{whole}/{unit}"
    return decimals
