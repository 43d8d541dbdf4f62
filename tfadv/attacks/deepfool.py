"""DeepFool: to the nearest of the linearised boundaries, again and again."""

import dataclasses

import tensorflow as tf

from tfadv.attacks import core, norms, search


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeepFool:
    """z <- clip(z + |f_k| w_k / |w_k|^2) from z = x, up to the boundary; then past it.

    f_k = z_k - z_y of the logits at z and w_k its gradient; in every step k is the
    class, of the likeliest ones at the clean x, whose linearised boundary is nearest:
    the least |f_k| / |w_k|. An example stops when clip(x + (1 + overshoot) (z - x)) is
    misclassified. The result is that image if it is within eps of x in l2. Otherwise,
    and where x itself is misclassified, the result is x.

    The paper does not clip; z is clipped in every step, because an image that is
    clipped at the end may be right again.

    Draws nothing.

    Args:
        eps: radius of the l2 ball, a number or a tensor [n, 1, 1, 1]; the norm of the
            whole image, which may exceed 1.
        steps: int, at most so many.
        overshoot: number.
        classes: int, the likeliest classes at x, y among them, that are considered.

    Raises:
        ValueError: a number out of range.

    Source: Moosavi-Dezfooli et al. 2016, Algorithm 2; the number of classes and the
        overshoot are those of their code.
    """

    norm = "l2"

    eps: float
    steps: int = 50
    overshoot: float = 0.02
    classes: int = 10

    def __post_init__(self):
        core.check_eps(self.eps, norm=self.norm)
        core.check_counts(self, "steps")
        if self.classes < 2:
            raise ValueError(f"`classes` must be at least 2; received {self.classes}")
        if self.overshoot < 0:
            raise ValueError(
                f"`overshoot` must not be negative; received {self.overshoot:g}"
            )

    def __call__(self, predict, x, y, seed=None):
        """Returns x_adv [n, h, w, c]."""
        return self.sweep(predict, x, y, [self.eps], seed)[0]

    def sweep(self, predict, x, y, sizes, seed=None):
        """x_adv for each eps of `sizes` in place of `eps`, all from one search."""
        del seed
        x, y = tf.stop_gradient(x), search.hard_labels(y)
        others = search.likely_others(predict, x, y, self.classes - 1)

        def step_at(z):
            """The shortest step to a linearised boundary."""

            def nearer(number, best):
                value, w = search.lead(predict, z, y, others[:, number])
                length = norms.size(w, self.norm)
                far = tf.abs(value) / tf.maximum(length, 1e-12)
                step = far * norms.steepest(w, self.norm)
                wins = far < best[1]
                return tf.where(wins, step, best[0]), tf.where(wins, far, best[1])

            none = (tf.zeros_like(x), tf.fill([tf.shape(x)[0], 1, 1, 1], float("inf")))
            return core.iterate(nearer, none, tf.shape(others)[1])[0]

        def body(_, state):
            z, past, wrong = state
            moved = core.to_range(z + step_at(z))
            ahead = core.to_range(x + (1.0 + self.overshoot) * (moved - x))
            now = search.margin(predict, ahead, y) > 0.0
            done = wrong[:, None, None, None]
            past = tf.where(done, past, ahead)
            return moved, past, tf.logical_or(wrong, now)

        wrong = search.margin(predict, x, y) > 0.0
        going = lambda state: tf.reduce_any(tf.logical_not(state[2]))  # noqa: E731
        _, past, wrong = core.iterate(body, (x, x, wrong), self.steps, going)
        found = tf.where(wrong[:, None, None, None], past, x)
        return [search.within(found, x, eps, self.norm) for eps in sizes]
