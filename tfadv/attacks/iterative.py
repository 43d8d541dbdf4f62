"""Iterated sign steps: iter_fgsm (the basic iterative method), iter_ll and IFGSM."""

import dataclasses

import tensorflow as tf

from tfadv.attacks import core
from tfadv.attacks.single_step import Label

# The step of Kurakin's rule: one value of an 8-bit pixel.
PIXEL = 1 / 255


@dataclasses.dataclass(frozen=True, kw_only=True)
class Iterative:
    """z_0 = x;  z <- clip(z + a * sign(g)), clipped to ball and range in every step.

    g is the gradient at z of J(z, y) for `iter_fgsm` and `ifgsm`, of -J(z, y_ll) for
    `iter_ll`, where y_ll is the least likely class of the clean x in every step.

    How many steps of what size:

    | steps | step_size | rule                                                 |
    |-------|-----------|------------------------------------------------------|
    | none  | none      | a = 1/255, floor(min(e + 4, 1.25 e)) steps, e in 255 |
    | N     | none      | a = eps / N (e2SAD's IFGSM)                          |
    | none  | a         | the same number of steps as in the first row         |
    | N     | a         | as given                                             |

    From images of 8 bits and whole pixels of eps the first row stays on whole
    pixels, so its images can be stored as uint8 without loss.

    Args:
        eps: radius of the l-inf ball, a number or a tensor [n, 1, 1, 1]. Under the
            first row each example then gets its own number of steps.
        steps: int or None.
        step_size: a, in the units of x, or None.
        label: see `core.choose_labels`.

    Raises:
        ValueError: `eps` or `step_size` outside [0, 1], `steps` below 1.

    Source: Kurakin et al. 2017 and Na et al. 2018, section 2; e2SAD 2019, eq. 2.
    """

    eps: float
    steps: int | None = None
    step_size: float | None = None
    label: Label = "true"

    def __post_init__(self):
        core.check_eps(self.eps)
        core.check_step_size(self.step_size)
        if self.steps is not None:
            core.check_counts(self, "steps")

    def __call__(self, predict, x, y, seed=None):
        """Returns x_adv [n, h, w, c]; `seed` is needed by random labels only."""
        steps = core.kurakin_steps(self.eps) if self.steps is None else self.steps
        step_size = self.step_size
        if step_size is None:
            step_size = PIXEL if self.steps is None else self.eps / self.steps
        move = self._step(predict, x, y, step_size, seed)
        # Examples of different eps stop at different steps.
        own_count = tf.is_tensor(steps) and steps.shape.rank != 0

        def body(i, z):
            moved = core.to_ball(move(z), x, self.eps)
            return tf.where(i < steps, moved, z) if own_count else moved

        count = tf.reduce_max(steps) if own_count else steps
        return tf.stop_gradient(core.iterate(body, x, count))

    def sweep(self, predict, x, y, sizes, seed=None):
        """x_adv for each eps of `sizes` in place of `eps`, equal to one by one.

        Under Kurakin's rule z cannot leave a ball of e pixels before step e, so all
        sizes share the path of the largest one that far: eps = 1 .. 16 together take
        44 gradients, not 164. Under the other rules nothing is shared.

        Args:
            sizes: numbers, in the units of x, in any order.
        """
        if self.steps is not None or self.step_size is not None:
            return core.one_by_one(self, predict, x, y, sizes, seed)
        move = self._step(predict, x, y, PIXEL, seed)
        shared, taken, found = x, 0, {}
        for eps in sorted(sizes):
            steps = core.kurakin_steps(eps)
            free = min(int(eps / PIXEL + 1e-3), steps)
            shared = core.iterate(
                lambda _, z: core.to_range(move(z)), shared, free - taken
            )
            taken = free
            found[eps] = core.iterate(
                lambda _, z, eps=eps: core.to_ball(move(z), x, eps),
                core.to_ball(shared, x, eps),
                steps - free,
            )
        return [tf.stop_gradient(found[eps]) for eps in sizes]

    def _step(self, predict, x, y, step_size, seed):
        return core.sign_step(
            predict, x, y, label=self.label, step_size=step_size, seed=seed
        )
