"""AutoAttack: four attacks in a row, each on what the last ones left."""

import dataclasses

import tensorflow as tf

from tfadv import losses
from tfadv.attacks import core, norms, search
from tfadv.attacks.apgd import APGD
from tfadv.attacks.fab import FABTargeted
from tfadv.attacks.square import Square


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoAttack:
    """The standard sequence of AutoAttack; an image is robust if it withstands all.

    1. APGD on the cross-entropy,
    2. APGD on the targeted difference of logits ratio, 9 targets,
    3. FAB towards 9 targets,
    4. the Square Attack, 5,000 queries of the schedule for 10,000,

    each on those images alone that are still classified correctly. Their rows are
    gathered and later put back, so an attack costs what is left. The result of an
    example is the first misclassified image that was found. Where x is misclassified,
    and where nothing was found, it is x itself.

    Of fewer than 4 classes, whose ratio is not defined, the second attack ascends the
    difference of logits z_t - z_y.

    Args:
        eps: radius of the ball, a number or a tensor [n, 1, 1, 1]; in l2 it is the
            norm of the whole image and may exceed 1.
        norm: `"linf"` or `"l2"`.
        steps: int, of APGD and of FAB.
        restarts: int, of APGD and of FAB.
        targets: int, classes that the targeted attacks try (K - 1 if there are fewer).
        queries: int, of the Square Attack.

    Raises:
        ValueError: a number out of range.

    Source: Croce & Hein 2020, "Reliable evaluation of adversarial robustness with an
        ensemble of diverse parameter-free attacks", with the targeted FAB that their
        "standard" version runs.
    """

    eps: float
    norm: norms.Norm = "linf"
    steps: int = 100
    restarts: int = 1
    targets: int = search.TARGETS
    queries: int = 5000

    def __post_init__(self):
        # Whatever is wrong is refused by the attack that it concerns.
        self.attacks(self.eps)

    def attacks(self, eps, classes=None):
        """The four, of this size, in their order.

        Args:
            eps: number or [n, 1, 1, 1].
            classes: int, how many there are, or None where that is not known.
        """
        both = {"eps": eps, "norm": self.norm}
        ascent = {**both, "steps": self.steps, "restarts": self.restarts}
        few = classes is not None and classes < 4
        return (
            APGD(**ascent, first=True),
            APGD(
                **ascent,
                first=True,
                loss="margin" if few else "dlr",
                targets=self.targets,
            ),
            FABTargeted(**ascent, targets=self.targets),
            Square(**both, queries=self.queries, rescale=False),
        )

    def __call__(self, predict, x, y, seed=None):
        """Returns x_adv [n, h, w, c]; `seed` is required."""
        seed = core.as_seed(seed)
        x, y = tf.stop_gradient(x), search.hard_labels(y)
        eps = norms.sizes(self.eps, x)
        logits = core.logits_of(predict(x))
        found = x
        left = losses.margin(y, logits) <= 0.0
        for number, attack in enumerate(self.attacks(self.eps, logits.shape[-1])):

            def attempt(x, y, eps, attack=attack, number=number):
                own = dataclasses.replace(attack, eps=eps)
                return own(predict, x, y, core.fold(seed, number))

            tried = search.where_needed(left, attempt, x, y, eps)
            fooled = search.margin(predict, tried, y) > 0.0
            fooled = tf.logical_and(left, fooled)
            found = tf.where(fooled[:, None, None, None], tried, found)
            left = tf.logical_and(left, tf.logical_not(fooled))
        return tf.stop_gradient(found)

    def sweep(self, predict, x, y, sizes, seed=None):
        """x_adv for each eps of `sizes` in place of `eps`, in one graph."""
        return search.sweep_in_loop(self, predict, x, y, sizes, seed)
