"""e2SAD 2019: two steps to two adversarial images, whose predictions must agree."""

import dataclasses
import functools
from typing import Literal

import tensorflow as tf

from tfadv import attacks, losses
from tfadv.attacks import core
from tfadv.defenses.base import Defense
from tfadv.errors import lookup


@dataclasses.dataclass(frozen=True, kw_only=True)
class AsPrinted:
    """x + eps * sign(g),  g of CE(p, f(z)) at z = x with p = f(x) fixed: zero.

    The chain rule from the logits on, whose gradient f(z) - p is exactly 0 at z = x.
    Left to automatic differentiation it would be what rounding leaves of it, of which
    the sign makes a whole step.
    """

    eps: float

    def __post_init__(self):
        core.check_eps(self.eps)

    def __call__(self, predict, x, y, seed=None):
        del y, seed
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            logits = predict(x)
        p = tf.nn.softmax(logits)
        gradient = tape.gradient(logits, x, output_gradients=p - tf.stop_gradient(p))
        return core.steps_of([self.eps], x, tf.sign(gradient))[0]


# The second step: (eps) -> attack on the image of the first one.
SECOND_STEPS = {
    "entropy": functools.partial(attacks.SingleStep, loss="entropy"),
    "vat": attacks.Virtual,
    "literal": AsPrinted,
}


class E2SAD(Defense):
    """The efficient two-step adversarial defence.

        x_adv   = attack(x)                         FGSM with eps1
        x_tilde = clip(x_adv + eps2 * sign(g2))     where f differs most from f(x_adv)
        L = alpha * mean J(x, y) + (1 - alpha) * mean J(x_adv, y)
            + dissimilarity_weight * mean D(f(x_adv), f(x_tilde))

    D is `losses.dissimilarity`, and carries gradient through both predictions; x_adv
    and x_tilde are constants. x_tilde stays in the range of pixels, but may leave the
    ball of eps1 around x.

    In print, g2 is the gradient of CE(f(x_adv), f(z)) with respect to z at z = x_adv,
    f(x_adv) held fixed. But there the cross-entropy is least: its gradient with respect
    to the logits is softmax - p = 0, and with it g2. `step2` says what to do:

    - `"entropy"`: f(x_adv) moves along with z, so g2 is the gradient of the entropy of
      f at x_adv, which is what the formula gives in code that stops no gradient;
    - `"vat"`: g2 is taken beside x_adv, see `attacks.Virtual`; one pass more;
    - `"literal"`: as printed. g2 = 0, x_tilde = x_adv, and the third term becomes the
      entropy of f(x_adv).

    In a classifier that computes the same in training as in inference (no batch
    normalisation, no dropout) and with an `attacks.SingleStep`, the passes that craft
    are the passes of the loss. Others craft in inference mode and train on the three
    batches in one pass.

    Args:
        classifier, label_smoothing, seed: see `Defense`. The paper gives the
            label 3/4, which of 10 classes is `label_smoothing` = 5/18; crafting takes
            the labels that are trained on.
        attack: the first step; eps is eps1.
        eps2: size of the second step, in the units of x.
        step2: `"entropy"`, `"vat"` or `"literal"`.
        alpha: share of the clean images in the first two terms, in [0, 1].
        dissimilarity_weight: lambda, not negative.

    Raises:
        ValueError: an argument out of range.

    Source: e2SAD 2019, Algorithm 1 and eq. 6 to 8; alpha 0.6 and lambda 0.1 are those
    of its MNIST networks.
    """

    def __init__(
        self,
        classifier,
        *,
        attack,
        eps2: float,
        step2: Literal["entropy", "vat", "literal"] = "entropy",
        alpha: float = 0.6,
        dissimilarity_weight: float = 0.1,
        label_smoothing: float = 0.0,
        seed: int = 0,
        name=None,
    ):
        super().__init__(
            classifier,
            attack=attack,
            label_smoothing=label_smoothing,
            seed=seed,
            name=name,
        )
        if not 0 <= alpha <= 1:
            raise ValueError(
                f"`alpha`, the share of the clean loss, must be in [0, 1]; received "
                f"{alpha}"
            )
        if dissimilarity_weight < 0:
            raise ValueError(
                f"`dissimilarity_weight` must not be negative; received "
                f"{dissimilarity_weight}"
            )
        self.alpha = alpha
        self.dissimilarity_weight = dissimilarity_weight
        core.check_eps(eps2, "eps2")
        self.second = lookup(SECOND_STEPS, step2, "step2")(eps=eps2)

    @property
    def shares_passes(self):
        """Whether the passes that craft are those of the loss."""
        # Asked in the step: a classifier that is not built yet has no variables.
        return isinstance(self.attack, attacks.SingleStep) and not (
            self.classifier.non_trainable_variables
        )

    def train_step(self, data):
        x, y = self.unpack(data)
        with tf.GradientTape() as tape:
            logits, logits_adv, logits_tilde = self.passes(x, self.targets(x, y))
            loss = self.regularized(
                self.alpha * tf.reduce_mean(self.cross_entropy(y, logits))
                + (1 - self.alpha) * tf.reduce_mean(self.cross_entropy(y, logits_adv))
                + self.dissimilarity_weight
                * tf.reduce_mean(losses.dissimilarity(logits_adv, logits_tilde))
            )
        self.descend(tape, loss)
        return self.finish(loss, clean=(y, logits), adversarial=(y, logits_adv))

    def crafting(self, data):
        if self.shares_passes:
            return None
        x, y = self.unpack(data)
        return self.craft(self.logits, x, self.targets(x, y))

    def craft(self, predict, x, y):
        """(x_adv, x_tilde) by what `predict` says of them."""
        x_adv = self.attack(predict, x, y, seed=self.step_seed(0))
        return x_adv, self.second(predict, x_adv, y, seed=self.step_seed(1))

    def passes(self, x, y):
        """Logits of x, x_adv and x_tilde, under the tape."""
        if not self.shares_passes:
            x_adv, x_tilde = self.craft(self.logits, x, y)
            together = tf.concat([x, x_adv, x_tilde], 0)
            return tf.split(self.classifier(together, training=True), 3)
        seen = []

        def predict(z):
            seen.append(self.classifier(z, training=True))
            return seen[-1]

        _, x_tilde = self.craft(predict, x, y)
        # The first step looks at x alone, the second one first at x_adv.
        return seen[0], seen[1], self.classifier(x_tilde, training=True)
