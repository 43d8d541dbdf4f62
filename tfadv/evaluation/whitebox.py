"""Accuracy of a classifier under attacks that know it."""

import dataclasses
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
    shape = images.x.shape[1:]

    @tf.function(reduce_retracing=True)
    def is_correct(x, y):
        return tf.argmax(predict(x), axis=-1, output_type=tf.int32) == y

    def one(label, craft, size):
        return _measure(
            is_correct, craft, images, label, size, batch_size, seed, progress
        )

    rows = [one("clean", lambda x, y, eps, seed: x, 0.0)]
    for entry in entries:
        craft = compile_attack(predict, entry.attack, shape)
        rows += [one(entry.label, craft, size) for size in eps]
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


def compile_attack(predict, attack, image_shape):
    """(x, y, eps, seed) -> x_adv as one graph for every size of batch and every eps.

    Args:
        predict: x -> logits.
        attack: with any eps.
        image_shape: (h, w, c).
    """

    @tf.function
    def craft(x, y, eps, seed):
        return dataclasses.replace(attack, eps=eps)(predict, x, y, seed=seed)

    return craft.get_concrete_function(
        tf.TensorSpec((None, *image_shape), tf.float32),
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([], tf.float32),
        tf.TensorSpec([2], tf.int64),
    )


def _measure(is_correct, craft, images, label, eps, batch_size, seed, progress):
    total = math.ceil(len(images) / batch_size)
    shown = tqdm(
        batches(images, batch_size),
        desc=f"{label} {format_eps(eps)}",
        total=total,
        leave=False,
        disable=None if progress else True,
    )
    correct = 0
    size = tf.constant(eps, tf.float32)
    for number, (x, y) in enumerate(shown):
        x_adv = craft(x, y, size, core.fold(seed, number))
        correct += int(tf.math.count_nonzero(is_correct(x_adv, y)))
    measured = row(label, eps, correct, len(images))
    if progress:
        logging.info(
            "%s, eps %s: %.2f %%", label, format_eps(eps), 100 * measured["accuracy"]
        )
    return measured


def format_eps(eps):
    """An eps as people write it: `8/255` where it is whole pixels, else decimals."""
    pixels = eps * 255
    whole = round(pixels)
    return f"{whole}/255" if whole and abs(pixels - whole) < 1e-3 else f"{eps:g}"
