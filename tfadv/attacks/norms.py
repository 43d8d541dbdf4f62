"""Balls of the l-inf and the l2 norm: sizes, steps, projections, random starts.

The l2 norm is that of the whole image: of 32x32x3 values that all change by e it is
55 e. So an l2 eps may exceed 1 (0.5 is usual on CIFAR-10, 2 on MNIST), and one number
means another thing in the two norms.
"""

from typing import Literal

import tensorflow as tf

from tfadv.attacks import core

Norm = Literal["linf", "l2"]

AXES = [1, 2, 3]


def sizes(eps, x):
    """eps as a tensor [n, 1, 1, 1]: one number for all examples, or one for each.

    Args:
        eps: number, scalar or [n, 1, 1, 1].
        x: [n, h, w, c].
    """
    eps = tf.reshape(tf.cast(eps, x.dtype), [-1, 1, 1, 1])
    return tf.broadcast_to(eps, [tf.shape(x)[0], 1, 1, 1])


def size(difference, norm):
    """Its norm, example by example.

    Args:
        difference: [n, h, w, c].
        norm: `"linf"` or `"l2"`.

    Returns:
        [n, 1, 1, 1].
    """
    largest = tf.reduce_max(tf.abs(difference), axis=AXES, keepdims=True)
    if norm == "linf":
        return largest
    # Of the scaled difference: the squares of small numbers are zero in float32.
    unit = tf.math.divide_no_nan(difference, largest)
    return largest * tf.sqrt(tf.reduce_sum(unit**2, axis=AXES, keepdims=True))


def dot(a, b):
    """<a, b>, example by example, [n, 1, 1, 1]."""
    return tf.reduce_sum(a * b, axis=AXES, keepdims=True)


def steepest(gradient, norm):
    """The step of size 1 that a linear function with this gradient grows most by.

    sign(g) in l-inf, g / |g|_2 in l2; zero where g is.

    Args:
        gradient: [n, h, w, c].
        norm: `"linf"` or `"l2"`.
    """
    if norm == "linf":
        return tf.sign(gradient)
    # Twice, because the size of a tiny gradient is itself too small to divide by.
    largest = tf.reduce_max(tf.abs(gradient), axis=AXES, keepdims=True)
    unit = tf.math.divide_no_nan(gradient, largest)
    return tf.math.divide_no_nan(unit, size(unit, norm))


def to_ball(x_adv, x, eps, norm):
    """A point of the ball around x and of [0, 1]: the nearest one in the l-inf norm.

    In l2 the nearest point of the ball, then of [0, 1]. Clipping moves towards x, which
    is in [0, 1], so the result is in both.

    Args:
        x_adv, x: [n, h, w, c].
        eps: number or [n, 1, 1, 1].
        norm: `"linf"` or `"l2"`.
    """
    if norm == "linf":
        return core.to_ball(x_adv, x, eps)
    difference = x_adv - x
    shrink = tf.math.divide_no_nan(eps, size(difference, norm))
    return core.to_range(x + tf.minimum(shrink, 1.0) * difference)


def in_ball(noise, radius, norm):
    """A point of the ball that is uniformly distributed, from noise of its own norm.

    Args:
        noise: [n, h, w, c]; U(-1, 1) for l-inf, N(0, 1) for l2.
        radius: [n, 1, 1, 1], U(0, 1); used by l2 alone.
        norm: `"linf"` or `"l2"`.

    Returns:
        [n, h, w, c] of norm at most 1.
    """
    if norm == "linf":
        return noise
    # A share r^d of the volume lies within r.
    dimension = tf.cast(tf.reduce_prod(tf.shape(noise)[1:]), noise.dtype)
    return radius ** (1.0 / dimension) * steepest(noise, norm)


def random_start(x, eps, norm, seed, *, shared=False):
    """x + eps * u with u uniform in the unit ball, clipped to [0, 1].

    Args:
        x: [n, h, w, c].
        eps: number or [n, 1, 1, 1].
        norm: `"linf"` or `"l2"`.
        seed: int or pair of ints.
        shared: whether all examples get the same u. Then an example's start depends
            neither on its place in the batch nor on the size of the batch.
    """
    like = x[:1] if shared else x
    if norm == "linf":
        start = x + eps * core.uniform(like, seed)
    else:
        radius = tf.random.stateless_uniform(
            [tf.shape(like)[0], 1, 1, 1], core.fold(seed, 1), alg="philox"
        )
        start = x + eps * in_ball(core.normal(like, seed), radius, norm)
    return to_ball(start, x, eps, norm)


def to_hyperplane(x, w, value, norm):
    """The shortest d with <w, d> = -value and x + d in [0, 1].

    Exact, by sorting (Hein & Andriushchenko 2017). Where x + d is not clipped, d moves
    at the speed v = 1 (l-inf) or v = |w| (l2) of its coordinate, against the sign of
    value * w, for a time t that all coordinates share; `room` is how far each can go:

        d = -sign(value w) min(t v, room),   sum_j |w_j| min(t v_j, room_j) = |value|

    The sum is piecewise linear in t and bends where a coordinate has used its room. If
    the hyperplane misses [0, 1], d leads to the corner that is nearest to it.

    Args:
        x: [n, h, w, c] in [0, 1].
        w: [n, h, w, c], the normal of the hyperplane.
        value: [n, 1, 1, 1], what the linear function is at x; zero is to be reached.
        norm: `"linf"` or `"l2"`.

    Returns:
        d, [n, h, w, c].

    Source: Croce & Hein 2020 (FAB), section 2.
    """
    way = -tf.sign(value) * tf.sign(w)
    slope = tf.abs(w)
    room = tf.where(way > 0, 1.0 - x, x) * tf.abs(way)
    speed = tf.ones_like(w) if norm == "linf" else slope

    def flat(t):
        return tf.reshape(t, [tf.shape(x)[0], tf.reduce_prod(tf.shape(x)[1:])])

    needed = tf.abs(tf.reshape(value, [-1, 1]))
    bend = flat(tf.math.divide_no_nan(room, speed))
    order = tf.argsort(bend, axis=1)
    bend = tf.gather(bend, order, batch_dims=1)
    gain = tf.gather(flat(slope * speed), order, batch_dims=1)
    used = tf.gather(flat(slope * room), order, batch_dims=1)
    # Before bend k: what used coordinates have given, and the rate of the others.
    given = tf.cumsum(used, axis=1, exclusive=True)
    rate = tf.cumsum(gain, axis=1, reverse=True)
    enough = given + bend * rate >= needed
    first = tf.argmax(enough, axis=1)[:, None]
    at = tf.math.divide_no_nan(
        needed - tf.gather(given, first, batch_dims=1),
        tf.gather(rate, first, batch_dims=1),
    )
    time = tf.where(tf.reduce_any(enough, axis=1, keepdims=True), at, float("inf"))
    time = tf.reshape(time, [-1, 1, 1, 1])
    # Infinity times a speed of zero is no number, and the room is zero there.
    reached = tf.math.multiply_no_nan(time, speed)
    return way * tf.minimum(reached, room)
