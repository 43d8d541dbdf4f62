"""Auto-PGD: projected gradient ascent that finds its own step size."""

import dataclasses
import itertools
from typing import Literal

import tensorflow as tf

from tfadv import losses
from tfadv.attacks import core, norms, search


@dataclasses.dataclass(frozen=True, kw_only=True)
class APGD:
    """z' = P(z_k + eta d(g));  z_k+1 = P(z_k + a (z' - z_k) + (1 - a)(z_k - z_k-1)).

    P projects to ball and range, d(g) is sign(g) or g / |g|_2, a = `momentum` (1 in the
    first step), and eta starts at 2 eps. At each of the `checkpoints` w_j an example
    halves its eta and goes back to its best point so far if

    1. its loss rose in less than rho of the steps since w_j-1, or
    2. eta was not halved at w_j-1 and the best loss is still that of w_j-1.

    What is ascended, where z are the logits and pi sorts them, the largest first:

    | loss            | untargeted                               | with targets t      |
    |-----------------|------------------------------------------|---------------------|
    | "cross_entropy" | J(x, y)                                  | -J(x, t)            |
    | "dlr"           | (max_{i!=y} z_i - z_y) / (z_pi1 - z_pi3) | `targeted_dlr`      |
    | "margin"        | max_{i!=y} z_i - z_y                     | z_t - z_y           |

    Starts are random points of the ball. Restarts and targets (the likeliest other
    classes at the clean x) follow one another, each for those examples alone that are
    still classified correctly. The result of an example is, of its misclassified
    points, that of the largest loss; if there is none, the best that the attempts
    ended with. `apgd_t` is this class with loss "dlr" and 9 targets.

    All examples of a batch share their random numbers, so that the result of one
    depends neither on the others nor on its place.

    Args:
        eps: radius of the ball, a number or a tensor [n, 1, 1, 1]; in l2 it is the
            norm of the whole image and may exceed 1.
        norm: `"linf"` or `"l2"`.
        loss: `"cross_entropy"`, `"dlr"` or `"margin"`.
        targets: int, how many classes to try (K - 1 if there are fewer), or None for
            the untargeted loss.
        steps: int, N.
        restarts: int, independent starts (with each target).
        rho: share of steps that must raise the loss.
        momentum: a.
        first: whether an example ends with its first misclassified point, and the loop
            when all have one: cheaper where only success counts.

    Raises:
        ValueError: a number out of range; "dlr" of fewer than 3 classes, with targets
            4, whose denominator would be zero: take "margin".

    Source: Croce & Hein 2020, "Reliable evaluation of adversarial robustness with an
        ensemble of diverse parameter-free attacks", Algorithm 1, eq. 6 and 7.
    """

    eps: float
    norm: norms.Norm = "linf"
    loss: Literal["cross_entropy", "dlr", "margin"] = "cross_entropy"
    targets: int | None = None
    steps: int = 100
    restarts: int = 1
    rho: float = 0.75
    momentum: float = 0.75
    first: bool = False

    def __post_init__(self):
        core.check_eps(self.eps, norm=self.norm)
        core.check_counts(self, "steps", "restarts")
        if self.targets is not None:
            core.check_counts(self, "targets")
        core.check_ranges(self, rho=(0, 1), momentum=(0, 1))

    def __call__(self, predict, x, y, seed=None):
        """Returns x_adv [n, h, w, c]; `seed` is required."""
        seed = core.as_seed(seed)
        x, y = tf.stop_gradient(x), core.choose_labels("true", None, y)
        eps = norms.sizes(self.eps, x)
        if self.targets is None:

            def attempt(number, x, y, eps):
                start = self._start(x, eps, seed, number)
                return self._ascend(predict, x, y, eps, start, None)

            parts, count = (eps,), self.restarts
        else:
            y = search.hard_labels(y)
            others = search.likely_others(predict, x, y, self.targets)
            each = tf.shape(others)[1]

            def attempt(number, x, y, eps, others):
                start = self._start(x, eps, seed, number)
                target = others[:, number % each]
                return self._ascend(predict, x, y, eps, start, target)

            parts, count = (eps, others), self.restarts * each
        return tf.stop_gradient(search.best_of(attempt, count, predict, x, y, *parts))

    def sweep(self, predict, x, y, sizes, seed=None):
        """x_adv for each eps of `sizes` in place of `eps`, in one graph."""
        return search.sweep_in_loop(self, predict, x, y, sizes, seed)

    def _start(self, x, eps, seed, number):
        seed = core.fold(seed, number)
        return norms.random_start(x, eps, self.norm, seed, shared=True)

    def _height(self, y, target, judged):
        """What is ascended, [n]."""
        if self.loss == "cross_entropy":
            if target is None:
                return core.cross_entropy(y, judged)
            return -core.cross_entropy(target, judged)
        logits = core.logits_of(judged)
        if target is None:
            y = search.hard_labels(y)
            return (dlr if self.loss == "dlr" else losses.margin)(y, logits)
        if self.loss == "dlr":
            return targeted_dlr(y, target, logits)
        return search.at(logits, target) - search.at(logits, y)

    def _ascend(self, predict, x, y, eps, start, target):
        """The result of one attempt, for all examples of x."""

        def look(z):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(z)
                judged = predict(z)
                height = self._height(y, target, judged)
                total = tf.reduce_sum(height)
            wrong = losses.margin(y, core.logits_of(judged)) > 0.0
            return tape.gradient(total, z), height, wrong

        def project(z):
            return norms.to_ball(z, x, eps, self.norm)

        # The steps since the last checkpoint at each checkpoint, 0 at other steps.
        ends = checkpoints(self.steps)
        windows = [0] * (self.steps + 1)
        for last, end in itertools.pairwise(ends):
            windows[end] = end - last
        windows = tf.constant(windows)

        def body(k, state):
            (z, before, gradient, height, eta, best, rises, last, found) = state
            share = tf.where(k == 0, 1.0, self.momentum)
            ahead = project(z + eta * norms.steepest(gradient, self.norm))
            moved = project(z + share * (ahead - z) + (1.0 - share) * (z - before))
            slope, now, wrong = look(moved)
            rises += tf.cast(now > height, tf.float32)
            best = _chosen(now > best[2], (moved, slope, now), best)
            # Points that are found before have been kept for good where `first`.
            better = now > found[1]
            if self.first:
                better = tf.math.is_inf(found[1])
            found = _chosen(tf.logical_and(wrong, better), (moved, now), found)

            window = tf.cast(windows[k + 1], tf.float32)
            halved, was = last
            stuck = tf.logical_and(tf.logical_not(halved), best[2] <= was)
            halve = tf.logical_or(rises < self.rho * window, stuck)
            here = tf.fill(tf.shape(halve), window > 0.0)
            halve = tf.logical_and(here, halve)
            last = _chosen(here, (halve, best[2]), last)
            rises = tf.where(here, 0.0, rises)
            eta = tf.where(_wide(halve), eta / 2.0, eta)
            after = _chosen(halve, best, (moved, slope, now))
            return (after[0], z, after[1], after[2], eta, best, rises, last, found)

        gradient, height, wrong = look(start)
        none = tf.fill(tf.shape(height), -float("inf"))
        state = (
            start,
            start,
            gradient,
            height,
            2.0 * eps,
            (start, gradient, height),
            tf.zeros_like(height),
            (tf.zeros_like(wrong), height),
            (start, tf.where(wrong, height, none)),
        )
        going = lambda state: tf.reduce_any(tf.math.is_inf(state[-1][1]))  # noqa: E731
        state = core.iterate(body, state, self.steps, going if self.first else None)
        (best, _, _), (found, at) = state[5], state[-1]
        return tf.where(_wide(tf.math.is_inf(at)), best, found)


def checkpoints(steps):
    """[0, w_1, ..] with w_j = ceil(p_j N), the steps at which APGD may halve its own.

        p_0 = 0, p_1 = .22, p_j+1 = p_j + max(p_j - p_j-1 - .03, .06) up to 1

    Args:
        steps: int, N. Checkpoints of a short run that fall together are one.
    """
    # In hundredths: .57 * 100 is not 57 in floating point.
    ends, length = [0], 22
    while ends[-1] + length <= 100:
        ends.append(ends[-1] + length)
        length = max(length - 3, 6)
    return sorted({-(-end * steps // 100) for end in ends})


def dlr(y, logits):
    """The difference of logits ratio, (max_{i!=y} z_i - z_y) / (z_pi1 - z_pi3).

    Positive exactly where the example is misclassified, and the same for logits that
    are shifted or multiplied, however large: they cannot make its gradient vanish.

    Args:
        y: [n] integer labels.
        logits: [n, K], K at least 3; pi sorts them, the largest first.

    Returns:
        [n].

    Raises:
        ValueError: fewer than 3 classes.
    """
    _check_classes(logits, 3, "dlr")
    top = tf.math.top_k(logits, 3).values
    return losses.margin(y, logits) / _not_zero(top[:, 0] - top[:, 2])


def targeted_dlr(y, target, logits):
    """(z_t - z_y) / (z_pi1 - (z_pi3 + z_pi4) / 2): `dlr` towards a class t.

    Args:
        y, target: [n] integer labels.
        logits: [n, K], K at least 4; pi sorts them, the largest first.

    Returns:
        [n].

    Raises:
        ValueError: fewer than 4 classes.
    """
    _check_classes(logits, 4, "dlr with targets")
    top = tf.math.top_k(logits, 4).values
    scale = top[:, 0] - (top[:, 2] + top[:, 3]) / 2.0
    return (search.at(logits, target) - search.at(logits, y)) / _not_zero(scale)


def _check_classes(logits, least, what):
    classes = logits.shape[-1]
    if classes is not None and classes < least:
        raise ValueError(
            f"the loss {what} needs at least {least} classes; received logits of "
            f"{classes}: set `loss` to 'margin' or 'cross_entropy'"
        )


def _not_zero(scale):
    return tf.maximum(scale, 1e-12)


def _wide(values):
    return values[:, None, None, None]


def _chosen(which, ours, theirs):
    """Of two tuples of [n, ..], example by example the one or the other."""
    wide = _wide(which)
    return tuple(
        tf.where(wide if a.shape.rank == 4 else which, a, b)
        for a, b in zip(ours, theirs, strict=True)
    )
