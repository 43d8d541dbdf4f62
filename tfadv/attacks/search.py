"""What attacks share that look for an adversarial image, the first or the closest."""

import dataclasses

import tensorflow as tf

from tfadv import losses
from tfadv.attacks import core, norms

# AutoAttack's number of targets: all other classes of ten.
TARGETS = 9


def hard_labels(y):
    """[n] int32: y itself, or the likeliest labels of probabilities [n, K]."""
    y = tf.convert_to_tensor(y)
    if y.shape.rank == 2:
        y = tf.argmax(y, axis=-1)
    return tf.cast(y, tf.int32)


def margin(predict, x, y):
    """max_{c != y} z_c - z_y of the logits at x, [n]: positive where x is wrong."""
    return losses.margin(y, core.logits_of(predict(x)))


def likely_others(predict, x, y, count):
    """The likeliest classes at x besides y, [n, min(count, K - 1)] int32.

    Args:
        predict: x -> logits [n, K].
        x: [n, h, w, c].
        y: [n] integer labels.
        count: int.
    """
    logits = tf.cast(core.logits_of(predict(x)), tf.float32)
    classes = tf.shape(logits)[-1]
    own = tf.one_hot(y, classes, on_value=True, off_value=False)
    others = tf.where(own, -float("inf"), logits)
    return tf.math.top_k(others, tf.minimum(count, classes - 1)).indices


def at(values, classes):
    """values[i, classes[i]], [n], of values [n, K]."""
    return tf.gather(values, classes, batch_dims=1)


def lead(predict, z, y, target):
    """f = z_target - z_y of the logits at z, and its gradient there.

    Args:
        predict: x -> logits [n, K].
        z: [n, h, w, c].
        y, target: [n] integer labels.

    Returns:
        (f [n, 1, 1, 1], gradient [n, h, w, c]).
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(z)
        logits = tf.cast(core.logits_of(predict(z)), tf.float32)
        difference = at(logits, target) - at(logits, y)
    gradient = tape.gradient(difference, z)
    return difference[:, None, None, None], gradient


def where_needed(needed, attempt, x, *parts):
    """x with attempt(x, *parts) in place of the examples that need it.

    Only those are computed: their rows of x and of all parts are gathered, and the
    results put back. Nothing is computed where there are none.

    Args:
        needed: [n] bool.
        attempt: (x [m, h, w, c], *parts [m, ...]) -> [m, h, w, c].
        x: [n, h, w, c].
        parts: tensors [n, ...].
    """

    def replaced():
        rows = tf.where(needed)
        few = [tf.gather_nd(part, rows) for part in (x, *parts)]
        return tf.tensor_scatter_nd_update(x, rows, attempt(*few))

    found = tf.cond(tf.reduce_any(needed), replaced, lambda: tf.identity(x))
    return tf.ensure_shape(found, x.shape)


def best_of(attempt, count, predict, x, y, *parts):
    """Of several attempts, for each example the first that fools, or the best one.

    An example that an attempt has fooled takes no part in later ones. The best is that
    of the largest margin; the clean image is not among them.

    Args:
        attempt: (number, x, y, *parts), of the examples that are left, -> images.
        count: int or int32 scalar, number of attempts.
        predict: x -> logits [n, K].
        x, y: images and labels [n].
        parts: tensors [n, ...].
    """

    def body(number, state):
        best, height = state
        needed = height <= 0.0
        tried = where_needed(needed, lambda *few: attempt(number, *few), x, y, *parts)
        now = margin(predict, tried, y)
        better = tf.logical_and(needed, now > height)
        return (
            tf.where(better[:, None, None, None], tried, best),
            tf.where(better, now, height),
        )

    none_yet = (x, tf.fill(tf.shape(x)[:1], -float("inf")))
    left = lambda state: tf.reduce_any(state[1] <= 0.0)  # noqa: E731
    return core.iterate(body, none_yet, count, left)[0]


def within(found, x, eps, norm):
    """`found` where it is within eps of x, elsewhere x, as a constant.

    Args:
        found: [n, h, w, c]; x itself where nothing was found.
        x: [n, h, w, c].
        eps: number or [n, 1, 1, 1].
        norm: `"linf"` or `"l2"`.
    """
    inside = norms.size(found - x, norm) <= eps
    return tf.stop_gradient(tf.where(inside, found, x))


def sweep_in_loop(attack, predict, x, y, sizes, seed=None):
    """`core.sweep` with one graph for all sizes: of a large attack, tracing is dear.

    Args:
        attack: with any eps.
        predict, x, y, seed: as an attack takes them.
        sizes: numbers, in the units of x.
    """

    def of_size(eps):
        return dataclasses.replace(attack, eps=eps)(predict, x, y, seed=seed)

    found = tf.map_fn(of_size, tf.constant(sizes, tf.float32), parallel_iterations=1)
    found = tf.ensure_shape(found, [len(sizes), *x.shape])
    return [tf.stop_gradient(x_adv) for x_adv in tf.unstack(found)]
