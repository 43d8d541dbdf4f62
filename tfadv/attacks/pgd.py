"""Projected gradient descent with a random start and restarts."""

import dataclasses

import tensorflow as tf

from tfadv import losses
from tfadv.attacks import core, norms
from tfadv.attacks.single_step import Label


@dataclasses.dataclass(frozen=True, kw_only=True)
class PGD:
    """z_0 = x + U(-eps, eps);  z <- clip(z + a * sign(g)), `steps` times.

    Clipped to the l-inf ball and to [0, 1] in every step. With `norm="l2"` the start is
    uniform in the l2 ball, the step a * g / |g|_2 and the ball that of l2; eps and
    step_size then are norms of a whole image (see `norms`) and may exceed 1. Of several
    restarts each example keeps the one with the largest margin max_{c != y} z_c - z_y,
    so one that is misclassified is never given up for one that is not.

    Args:
        eps: radius of the ball, a number or a tensor [n, 1, 1, 1].
        steps: int.
        step_size: a, in the units of x; None means eps / 4.
        label: see `core.choose_labels`.
        random_start: whether to start at a random point of the ball.
        restarts: int, independent starts.
        norm: `"linf"` or `"l2"`.

    Raises:
        ValueError: `eps` or `step_size` outside [0, 1], in l2 negative; `steps` or
            `restarts` below 1; restarts without a random start.

    Source: Madry et al. 2018; the defaults are those of Wang & Yu 2019, eq. 7.
    """

    eps: float
    steps: int = 10
    step_size: float | None = None
    label: Label = "true"
    random_start: bool = True
    restarts: int = 1
    norm: norms.Norm = "linf"

    def __post_init__(self):
        core.check_eps(self.eps, norm=self.norm)
        core.check_step_size(self.step_size, self.norm)
        core.check_counts(self, "steps", "restarts")
        if self.restarts > 1 and not self.random_start:
            raise ValueError(
                f"`restarts` = {self.restarts} would repeat the same start: set "
                "`random_start` to true, or `restarts` to 1"
            )

    def __call__(self, predict, x, y, seed=None):
        """Returns x_adv [n, h, w, c]; `seed` is needed for random starts or labels."""
        step_size = self.eps / 4 if self.step_size is None else self.step_size
        move = core.sign_step(
            predict,
            x,
            y,
            label=self.label,
            step_size=step_size,
            seed=seed,
            direction=lambda gradient: norms.steepest(gradient, self.norm),
        )

        def step(_, z):
            return norms.to_ball(move(z), x, self.eps, self.norm)

        def attempt(number):
            start = x
            if self.random_start:
                start = norms.random_start(
                    x, self.eps, self.norm, core.fold(seed, number)
                )
            return core.iterate(step, start, self.steps)

        if self.restarts == 1:
            return tf.stop_gradient(attempt(0))

        def better(number, best):
            best_x, best_margin = best
            z = attempt(number)
            margin = losses.margin(y, core.logits_of(predict(z)))
            wins = margin > best_margin
            return (
                tf.where(wins[:, None, None, None], z, best_x),
                tf.where(wins, margin, best_margin),
            )

        none_yet = (x, tf.fill(tf.shape(x)[:1], -float("inf")))
        return tf.stop_gradient(core.iterate(better, none_yet, self.restarts)[0])
