"""The fast adaptive boundary attack: the closest adversarial image, not just any."""

import dataclasses
import math

import tensorflow as tf

from tfadv.attacks import core, norms, search

FINAL_SEARCH = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class FABTargeted:
    """Steps along the boundary to a target class, drawn back to the clean image.

    f = z_t - z_y of the logits is linearised at z_i; d(z) is the shortest way from z to
    the hyperplane where that is 0, within [0, 1] (`norms.to_hyperplane`).

        alpha = min(|d(z_i)| / (|d(z_i)| + |d(x)|), alpha_max)
        z_i+1 = clip((1 - alpha)(z_i + eta d(z_i)) + alpha (x + eta d(x)))

    A misclassified z_i+1 is kept if it is closer to x than the last, and the search
    goes on from (1 - beta) x + beta z_i+1. At the end the image that was kept is drawn
    towards x in three steps, each to where the margin, if it is linear between the
    last images on both sides, is a tenth of what it was.

    This is done for each target class, the likeliest others at the clean x; the result
    is the closest image that was found, if it is within eps. Where none is within eps,
    and where x itself is misclassified, the result is x.

    The first start is x. Later ones are random points of the ball whose radius is half
    the distance so far, at most eps / 2; all examples share their random numbers.

    Args:
        eps: radius of the ball, a number or a tensor [n, 1, 1, 1]; in l2 it is the
            norm of the whole image and may exceed 1.
        norm: `"linf"` or `"l2"`.
        targets: int, how many classes to try (K - 1 if there are fewer).
        steps: int, for each start and target.
        restarts: int, starts for each target.
        alpha_max, eta, beta: see above.

    Raises:
        ValueError: a number out of range.

    Source: Croce & Hein 2020, "Minimally distorted adversarial examples with a fast
        adaptive boundary attack", Algorithm 1; targets as in their AutoAttack.
    """

    eps: float
    norm: norms.Norm = "linf"
    targets: int = search.TARGETS
    steps: int = 100
    restarts: int = 1
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9

    def __post_init__(self):
        core.check_eps(self.eps, norm=self.norm)
        core.check_counts(self, "targets", "steps", "restarts")
        core.check_ranges(self, alpha_max=(0, 1), eta=(1, math.inf), beta=(0, 1))

    def __call__(self, predict, x, y, seed=None):
        """Returns x_adv [n, h, w, c]; `seed` is needed by restarts only."""
        x = tf.stop_gradient(x)
        found = self._closest(predict, x, y, norms.sizes(self.eps, x), seed)
        return search.within(found, x, self.eps, self.norm)

    def sweep(self, predict, x, y, sizes, seed=None):
        """x_adv for each eps of `sizes` in place of `eps`.

        Without restarts eps does not enter the search, so one serves all sizes.
        """
        if self.restarts > 1:
            return search.sweep_in_loop(self, predict, x, y, sizes, seed)
        x = tf.stop_gradient(x)
        found = self._closest(predict, x, y, None, seed)
        return [search.within(found, x, eps, self.norm) for eps in sizes]

    def _closest(self, predict, x, y, eps, seed):
        """The closest misclassified images, x itself where there are none."""
        y = search.hard_labels(y)
        clean = search.margin(predict, x, y)

        def attempt(x, y, *eps):
            others = search.likely_others(predict, x, y, self.targets)
            each = tf.shape(others)[1]
            size = tf.fill([tf.shape(x)[0], 1, 1, 1], float("inf"))

            def body(number, best):
                start = x
                if self.restarts > 1:
                    radius = tf.minimum(best[1], eps[0]) / 2.0
                    start = tf.cond(
                        number < each,
                        lambda: x,
                        lambda: norms.random_start(
                            x, radius, self.norm, core.fold(seed, number), shared=True
                        ),
                    )
                    start = tf.ensure_shape(start, x.shape)
                target = others[:, number % each]
                return self._search(predict, x, y, target, start, best)

            return core.iterate(body, (x, size), each * self.restarts)[0]

        parts = () if eps is None else (eps,)
        return search.where_needed(clean <= 0.0, attempt, x, y, *parts)

    def _search(self, predict, x, y, target, start, best):
        """`best` (images and sizes) after the search for one target from one start."""

        def kept(z, wrong, best):
            size = norms.size(z - x, self.norm)
            closer = tf.logical_and(wrong[:, None, None, None], size < best[1])
            return tf.where(closer, z, best[0]), tf.where(closer, size, best[1])

        def body(_, state):
            z, own = state
            value, w = search.lead(predict, z, y, target)
            ahead = norms.to_hyperplane(z, w, value, self.norm)
            at_x = value + norms.dot(w, x - z)
            home = norms.to_hyperplane(x, w, at_x, self.norm)
            far, near = norms.size(home, self.norm), norms.size(ahead, self.norm)
            alpha = tf.math.divide_no_nan(near, near + far)
            alpha = tf.minimum(alpha, self.alpha_max)
            z = (1.0 - alpha) * (z + self.eta * ahead)
            z = core.to_range(z + alpha * (x + self.eta * home))
            wrong = search.margin(predict, z, y) > 0.0
            own = kept(z, wrong, own)
            back = (1.0 - self.beta) * x + self.beta * z
            return tf.where(wrong[:, None, None, None], back, z), own

        def closer(_, state):
            own, right, below, above = state
            # above > 0 >= below, but where nothing was found all three images are x.
            part = 0.9 * tf.math.divide_no_nan(above, above - below)
            z = own[0] + part * (right - own[0])
            now = margins(z)
            wrong = now > 0.0
            return (
                kept(z, wrong[:, 0, 0, 0], own),
                tf.where(wrong, right, z),
                tf.where(wrong, below, now),
                tf.where(wrong, now, above),
            )

        def margins(z):
            return search.margin(predict, z, y)[:, None, None, None]

        none_yet = (x, tf.fill(tf.shape(best[1]), float("inf")))
        _, own = core.iterate(body, (start, none_yet), self.steps)
        state = (own, x, margins(x), margins(own[0]))
        own = core.iterate(closer, state, FINAL_SEARCH)[0]
        wins = own[1] < best[1]
        return tuple(tf.where(wins, a, b) for a, b in zip(own, best, strict=True))
