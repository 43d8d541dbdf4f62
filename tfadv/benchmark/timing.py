"""How things are timed: in turn, medians; and the batches they are timed on."""

import statistics
import time

import numpy as np
import tensorflow as tf
from tqdm import tqdm

IMAGE_SHAPE, MNIST_SHAPE, CLASSES = (32, 32, 3), (28, 28, 1), 10


def medians(candidates, rounds):
    """Median seconds of each callable, timed in turn A B C A B C ... after a warm-up.

    Args:
        candidates: dict from name to a callable that has finished when it returns.
        rounds: int.

    Returns:
        dict from name to seconds.
    """
    for run in candidates.values():
        run()
    seconds = {name: [] for name in candidates}
    for _ in tqdm(range(rounds), desc=", ".join(candidates), disable=None, leave=False):
        for name, run in candidates.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def random_batch(batch_size, image_shape=IMAGE_SHAPE):
    """(x, y): uniform random images in [0, 1] and labels, the same in every run."""
    random = np.random.default_rng(0)
    x = random.random((batch_size, *image_shape), np.float32)
    y = random.integers(0, CLASSES, batch_size, np.int32)
    return tf.constant(x), tf.constant(y)


def compiled(train_step, batch):
    """A callable that takes a compiled training step on a batch and awaits it."""
    step = tf.function(lambda x, y: train_step((x, y)))
    return lambda: {k: v.numpy() for k, v in step(*batch).items()}
