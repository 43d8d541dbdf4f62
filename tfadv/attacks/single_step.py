"""Attacks of one gradient: the one-step methods of Kurakin et al. 2017, Appendix A."""

import dataclasses
from typing import Literal

import tensorflow as tf

from tfadv import losses
from tfadv.attacks import core, norms
from tfadv.errors import check_literals

Label = Literal["true", "predicted", "least_likely", "random"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SingleStep:
    """x_adv = clip(x + eps * d(g)), g = gradient of what the attack ascends.

    | name           | ascends              | d(g)           |
    |----------------|----------------------|----------------|
    | step_fgsm      | J(x, y)              | sign(g)        |
    | fgsm_pred      | J(x, argmax logits)  | sign(g)        |
    | step_ll        | -J(x, argmin logits) | sign(g)        |
    | step_rnd       | -J(x, random class)  | sign(g)        |
    | fast_entropy   | H(softmax)           | sign(g)        |
    | fast_grad_l2   | J(x, y)              | g / \\|g\\|_2    |
    | fast_grad_linf | J(x, y)              | g / max \\|g\\|  |

    One forward pass serves both the choice of the label and the gradient.

    Args:
        eps: size of the step, in the units of x; a number or a tensor [n, 1, 1, 1].
        label: whose cross-entropy; see `core.choose_labels`.
        loss: `"cross_entropy"`, or `"entropy"`, which needs no label.
        direction: `"sign"`, `"l2"` or `"linf"`; the norms are per example.

    Raises:
        ValueError: `eps` outside [0, 1], another loss or direction.

    Source: Kurakin et al. 2017, Appendix A; Goodfellow et al. 2015 for `step_fgsm`.
    """

    eps: float
    label: Label = "true"
    loss: Literal["cross_entropy", "entropy"] = "cross_entropy"
    direction: Literal["sign", "l2", "linf"] = "sign"

    def __post_init__(self):
        core.check_eps(self.eps)
        check_literals(type(self), loss=self.loss, direction=self.direction)

    def __call__(self, predict, x, y, seed=None):
        """Returns x_adv [n, h, w, c]; `seed` is needed by random labels only."""
        return self.sweep(predict, x, y, [self.eps], seed)[0]

    def sweep(self, predict, x, y, sizes, seed=None):
        """x_adv for each eps of `sizes` in place of `eps`, all from one gradient."""

        def ascended(logits):
            if self.loss == "entropy":
                return losses.entropy(core.logits_of(logits))
            target = core.choose_labels(self.label, logits, y, seed)
            return core.signed_cross_entropy(self.label, target, logits)

        gradient = core.input_gradient(predict, x, ascended)
        return core.steps_of(sizes, x, _direction(self.direction, gradient))


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepBoth:
    """step_ll for the first half of the images, step_fgsm for the others.

        x_adv = clip(x + eps * sign(g)),  g of -J(x, argmin logits) or of J(x, y)

    For training on both. Of an odd number the second part is the larger.

    Args:
        eps: size of the step, in the units of x; a number or a tensor [n, 1, 1, 1].

    Raises:
        ValueError: `eps` outside [0, 1].

    Source: Na et al. 2018, section 4.1 ("step_both").
    """

    eps: float

    def __post_init__(self):
        core.check_eps(self.eps)

    def __call__(self, predict, x, y, seed=None):
        """Returns x_adv [n, h, w, c]; draws nothing."""
        return self.sweep(predict, x, y, [self.eps], seed)[0]

    def sweep(self, predict, x, y, sizes, seed=None):
        """x_adv for each eps of `sizes` in place of `eps`, all from one gradient."""
        n = tf.shape(x)[0]

        def ascended(logits):
            reach, leave = (
                core.signed_cross_entropy(
                    label, core.choose_labels(label, logits, y), logits
                )
                for label in ("least_likely", "true")
            )
            return tf.where(tf.range(n) < n // 2, reach, leave)

        sign = tf.sign(core.input_gradient(predict, x, ascended))
        return core.steps_of(sizes, x, sign)


def _direction(direction, gradient):
    if direction == "sign":
        return tf.sign(gradient)
    if direction == "l2":
        return norms.steepest(gradient, "l2")
    largest = tf.reduce_max(tf.abs(gradient), axis=norms.AXES, keepdims=True)
    return tf.math.divide_no_nan(gradient, largest)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomStep:
    """A random step, then one gradient step, of eps together.

        x' = x + alpha * sign(N(0, I))
        x_adv = clip(x' + (eps - alpha) * sign(g)),  g at x'

    With `label="true"` this is what Liao 2018 (eq. 3) prints under the name
    R+Step-LL (`r_fgsm`); with `label="least_likely"`, taken at the clean x, it is
    the R+Step-LL of Tramer et al. (`r_step_ll`).

    Args:
        eps: size of both steps together, a number or a tensor [n, 1, 1, 1].
        alpha: size of the random step; None means eps / 2 (Liao 2018). Of an image
            whose own eps is smaller, that is all there is.
        label: see `core.choose_labels`.

    Raises:
        ValueError: `eps` outside [0, 1], or `alpha` outside [0, eps].
    """

    eps: float
    alpha: float | None = None
    label: Label = "true"

    def __post_init__(self):
        core.check_eps(self.eps)
        plain = isinstance(self.alpha, int | float) and isinstance(
            self.eps, int | float
        )
        if plain and not 0 <= self.alpha <= self.eps:
            raise ValueError(
                f"`alpha` must be in [0, eps = {self.eps:g}]; received {self.alpha:g}"
            )

    def __call__(self, predict, x, y, seed=None):
        """Returns x_adv [n, h, w, c]; `seed` is required."""
        alpha = self.eps / 2 if self.alpha is None else self.alpha
        if tf.is_tensor(self.eps):
            alpha = tf.minimum(alpha, self.eps)
        logits = None if self.label == "true" else predict(x)
        target = core.choose_labels(self.label, logits, y, core.fold(seed, 1))
        start = x + alpha * tf.sign(core.normal(x, seed))
        gradient = core.input_gradient(
            predict, start, lambda z: core.signed_cross_entropy(self.label, target, z)
        )
        x_adv = start + (self.eps - alpha) * tf.sign(gradient)
        return tf.stop_gradient(core.to_range(x_adv))
