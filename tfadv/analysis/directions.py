"""Directions in which one-step attacks move images, and how to move far along them."""

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from tfadv.attacks import core

# Whose cross-entropy decides; `random_sign` needs no model.
LABELS = {"step_ll": "least_likely", "step_fgsm": "true"}
NAMES = (*LABELS, "random_sign")


def signs(predict, x, y, *, seed, batch_size):
    """What each attack adds to x for an eps of 1, before clipping.

        step_ll      -sign(grad J(x, argmin logits))
        step_fgsm     sign(grad J(x, y))
        random_sign   sign(N(0, I)), one pattern whatever the model

    Args:
        predict: x -> logits, in inference mode.
        x: [n, h, w, c] float32.
        y: [n] int32.
        seed: int, of the random signs.
        batch_size: int, images a call.

    Returns:
        dict from each of `NAMES` to [n, h, w, c] float32 of -1, 0 and 1.
    """
    found = {
        name: _gradient_sign(predict, x, y, label, batch_size)
        for name, label in LABELS.items()
    }
    return found | {"random_sign": tf.sign(core.normal(x, seed)).numpy()}


def _gradient_sign(predict, x, y, label, batch_size):
    def sign(x, y):
        def ascended(logits):
            target = core.choose_labels(label, logits, y)
            return core.signed_cross_entropy(label, target, logits)

        return tf.sign(core.input_gradient(predict, x, ascended))

    return in_parts(compiled(sign, x, y), batch_size, x, y)


def compiled(function, *examples):
    """`function` of arrays like `examples` as one graph for every number of images."""
    specs = [tf.TensorSpec((None, *e.shape[1:]), e.dtype) for e in examples]
    return tf.function(function).get_concrete_function(*specs)


def in_parts(call, batch_size, *arrays):
    """`call` of arrays [n, ...] in batches of at most `batch_size`, as one array."""
    found = (call(*(a[p] for a in arrays)) for p in parts(len(arrays[0]), batch_size))
    return np.concatenate([part.numpy() for part in found])


def parts(n, batch_size):
    """Slices of at most `batch_size` that cover n positions in order."""
    return [slice(start, start + batch_size) for start in range(0, n, batch_size)]


def grid(count, n, batch_size, desc):
    """Every pair of one of `count` sizes and one of `n` images, in full batches.

    A batch holds several sizes where the images are few, so that a fine grid of sizes
    costs no more calls than its images need.

    Args:
        count, n, batch_size: int.
        desc: text before the bar (shown on a terminal).

    Yields:
        (j, i): [batch_size] positions of sizes and of images, the last pair of arrays
        may be shorter; sizes change slowest.
    """
    j, i = np.divmod(np.arange(count * n), n)
    for part in tqdm(parts(count * n, batch_size), desc, leave=False, disable=None):
        yield j[part], i[part]


def moved(x, direction, sizes):
    """x_i + size_i * direction_i, unclipped.

    Args:
        x, direction: [n, h, w, c] float32.
        sizes: [n], in the units of x.
    """
    return x + np.asarray(sizes, np.float32).reshape(-1, 1, 1, 1) * direction
