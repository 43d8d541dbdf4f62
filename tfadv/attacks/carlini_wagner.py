"""The l2 attack of Carlini & Wagner: the smallest perturbation, by Adam."""

import dataclasses

import tensorflow as tf

from tfadv.attacks import core, norms, search

# Adam's constants, and what keeps tanh^-1 finite at black and white.
BETA_1, BETA_2, TINY = 0.9, 0.999, 1e-8
INSIDE = 0.999999
# Without an upper bound for c a failure multiplies it by this.
GROWTH = 10.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class CarliniWagner:
    """Minimises |z - x|^2 + c max(kappa - m, 0) over w, with z = (tanh(w) + 1) / 2.

    m = max_{i!=y} z_i - z_y is the margin of the logits at z. w starts at the clean
    image and moves by Adam. c is found by binary search, for each
    example its own: halfway to the largest that failed after a success, halfway to the
    smallest that succeeded (or ten times as large, while none has) after a failure. The
    result is the closest image of all that were misclassified by a margin of at least
    kappa, if it is within eps of x in l2. Otherwise, and where x itself is
    misclassified by that margin, the result is x.

    Draws nothing. Costs `search_steps` times `steps` gradients; one run serves all eps
    of an evaluation.

    Args:
        eps: radius of the l2 ball, a number or a tensor [n, 1, 1, 1]; the norm of the
            whole image, which may exceed 1.
        kappa: number, the margin that is asked for.
        steps: int, of Adam for each c.
        search_steps: int, how many c are tried.
        initial_c: number, the first.
        learning_rate: of Adam.

    Raises:
        ValueError: a number out of range.

    Source: Carlini & Wagner 2017, section VI A (f_6); they take 10,000 steps for each
        of 20 c.
    """

    norm = "l2"

    eps: float
    kappa: float = 0.0
    steps: int = 1000
    search_steps: int = 9
    initial_c: float = 0.01
    learning_rate: float = 0.01

    def __post_init__(self):
        core.check_eps(self.eps, norm=self.norm)
        core.check_counts(self, "steps", "search_steps")
        if self.kappa < 0:
            raise ValueError(f"`kappa` must not be negative; received {self.kappa:g}")
        for name in ("initial_c", "learning_rate"):
            if getattr(self, name) <= 0:
                raise ValueError(
                    f"`{name}` must be positive; received {getattr(self, name):g}"
                )

    def __call__(self, predict, x, y, seed=None):
        """Returns x_adv [n, h, w, c]."""
        return self.sweep(predict, x, y, [self.eps], seed)[0]

    def sweep(self, predict, x, y, sizes, seed=None):
        """x_adv for each eps of `sizes` in place of `eps`, all from one search."""
        del seed
        x, y = tf.stop_gradient(x), search.hard_labels(y)
        height = search.margin(predict, x, y)
        enough = height > 0.0 if self.kappa == 0 else height >= self.kappa
        found = search.where_needed(
            tf.logical_not(enough), lambda x, y: self._closest(predict, x, y), x, y
        )
        return [search.within(found, x, eps, self.norm) for eps in sizes]

    def _closest(self, predict, x, y):
        start = tf.atanh((2.0 * x - 1.0) * INSIDE)
        zeros = tf.zeros_like(x)
        shape = [tf.shape(x)[0], 1, 1, 1]

        def look(w, c):
            """The image of w, its distance, whether it fools, and the gradient."""
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(w)
                z = (tf.tanh(w) + 1.0) / 2.0
                margin = search.margin(predict, z, y)[:, None, None, None]
                squared = norms.dot(z - x, z - x)
                total = squared + c * tf.maximum(self.kappa - margin, 0.0)
            fools = margin > 0.0 if self.kappa == 0 else margin >= self.kappa
            return z, tf.sqrt(squared), fools, tape.gradient(total, w)

        def attempt(_, state):
            c, low, high, best = state

            def step(i, state):
                w, mean, square, ever, best = state
                z, size, fools, gradient = look(w, c)
                closer = tf.logical_and(fools, size < best[1])
                best = (tf.where(closer, z, best[0]), tf.where(closer, size, best[1]))
                mean = BETA_1 * mean + (1.0 - BETA_1) * gradient
                square = BETA_2 * square + (1.0 - BETA_2) * gradient**2
                t = tf.cast(i + 1, tf.float32)
                rate = self.learning_rate * tf.sqrt(1.0 - BETA_2**t) / (1.0 - BETA_1**t)
                w -= rate * mean / (tf.sqrt(square) + TINY)
                return w, mean, square, tf.logical_or(ever, fools), best

            state = (start, zeros, zeros, tf.fill(shape, False), best)
            _, _, _, ever, best = core.iterate(step, state, self.steps)
            high = tf.where(ever, tf.minimum(high, c), high)
            low = tf.where(ever, low, tf.maximum(low, c))
            halfway = (low + high) / 2.0
            c = tf.where(tf.math.is_inf(high), GROWTH * c, halfway)
            return c, low, high, best

        none_yet = (x, tf.fill(shape, float("inf")))
        state = (
            tf.fill(shape, float(self.initial_c)),
            tf.zeros(shape),
            tf.fill(shape, float("inf")),
            none_yet,
        )
        return core.iterate(attempt, state, self.search_steps)[3][0]
