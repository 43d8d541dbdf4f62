"""What every attack is made of: the gradient, the ball, the loop, labels, noise.

`predict` is any callable from x [n, h, w, c] in [0, 1] to logits [n, K], or to a
`Judged`, which says what else the loss J counts. Nothing here changes a variable, so a
model must be called in inference mode.
"""

import dataclasses
import numbers
import typing

import tensorflow as tf

from tfadv import losses
from tfadv.errors import lookup

TARGETED = ("least_likely", "random")


class Judged(typing.NamedTuple):
    """What a `predict` returns in place of logits where attacks take a training loss.

        J(x, y) = J_s(y, z) + w J_s(y, z'),  J_s the cross-entropy with smoothed labels

    Attacks that go up or down J take this one. All else, such as the choice of labels,
    the entropy, or the margin that decides between restarts, is of the logits.

    Args:
        logits: z [n, K].
        auxiliary: z' [n, K], logits of an auxiliary head, or None without one.
        auxiliary_weight: w, a number.
        label_smoothing: s of `losses.soft_labels`, of integer labels only:
            probabilities count as they are given.

    Source: Kurakin et al. 2017, the released code of the evaluation (s = .1, w = .4).
    """

    logits: tf.Tensor
    auxiliary: tf.Tensor | None = None
    auxiliary_weight: float = 0.0
    label_smoothing: float = 0.0


def logits_of(judged):
    """The logits [n, K] of what a `predict` returned: of a `Judged`, or itself."""
    return judged.logits if isinstance(judged, Judged) else judged


def cross_entropy(y, judged):
    """J [n] of what a `predict` returned: `losses.cross_entropy`, or `Judged`'s.

    Args:
        y: [n] integer labels, or [n, K] probabilities.
        judged: logits [n, K], or a `Judged`.
    """
    if not isinstance(judged, Judged):
        return losses.cross_entropy(y, judged)
    logits, auxiliary, weight, smoothing = judged
    y = tf.convert_to_tensor(y)
    if smoothing and y.shape.rank == 1:
        y = losses.soft_labels(y, logits.shape[-1], smoothing)
    loss = losses.cross_entropy(y, logits)
    if auxiliary is None:
        return loss
    return loss + weight * losses.cross_entropy(y, auxiliary)


def check_eps(eps, name="eps", norm="linf"):
    """Raises ValueError unless a plain number `eps` is a size; tensors pass.

    In l-inf a size lies in [0, 1]. In l2 it is the norm of a whole image in the units
    of x and may exceed 1, so that a forgotten `/255` cannot be told from a large eps.
    Another norm is refused, too.
    """
    if norm not in ("linf", "l2"):
        raise ValueError(f"`norm` must be 'linf' or 'l2'; received {norm!r}")
    if norm == "linf":
        _check_unit(name, eps)
    elif isinstance(eps, numbers.Real) and not 0 <= eps < float("inf"):
        raise ValueError(
            f"`{name}` must be a finite number of at least 0, an l2 norm in the units "
            f"of x; received {eps:g}"
        )


def check_step_size(step_size, norm="linf"):
    """Raises ValueError unless `step_size` is None, a tensor or a size of its norm."""
    if step_size is not None:
        check_eps(step_size, "step_size", norm)


def check_counts(attack, *names):
    """Raises ValueError unless these fields of the attack are at least 1."""
    for name in names:
        if getattr(attack, name) < 1:
            raise ValueError(
                f"`{name}` must be at least 1; received {getattr(attack, name)}"
            )


def check_ranges(attack, **ranges):
    """Raises ValueError unless these fields of the attack are in [least, most]."""
    for name, (least, most) in ranges.items():
        value = getattr(attack, name)
        if not least <= value <= most:
            raise ValueError(
                f"`{name}` must be in [{least}, {most}]; received {value:g}"
            )


def _check_unit(name, value):
    if isinstance(value, numbers.Real) and not 0 <= value <= 1:
        hint = f" Write '{value:g}/255'?" if 1 < value <= 255 else ""
        raise ValueError(
            f"`{name}` must be in [0, 1], the units of x; received {value:g}.{hint}"
        )


def input_gradient(predict, x, loss):
    """g = d/dx sum_i loss_i(predict(x)).

    The gradient of the **sum**: each example's own gradient whatever the batch,
    and no underflow from dividing by its size.

    Args:
        predict: x -> logits, or a `Judged`.
        x: [n, h, w, c].
        loss: what predict returns -> [n].

    Returns:
        [n, h, w, c].
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        total = tf.reduce_sum(loss(predict(x)))
    return tape.gradient(total, x)


def to_ball(x_adv, x, eps):
    """Clips to [max(0, x - eps), min(1, x + eps)], elementwise."""
    return tf.clip_by_value(x_adv, tf.maximum(x - eps, 0.0), tf.minimum(x + eps, 1.0))


def to_range(x):
    """Clips to the range of pixels, [0, 1]."""
    return tf.clip_by_value(x, 0.0, 1.0)


def choose_labels(label, logits, y, seed=None):
    """The labels an attack uses, as constants.

    Args:
        label: `"true"` (y), `"predicted"` (argmax of the logits), `"least_likely"`
            (argmin) or `"random"` (uniform over the K classes).
        logits: [n, K] of the clean x, or a `Judged`; unused by `"true"`.
        y: [n] true labels, or [n, K] their probabilities.
        seed: needed by `"random"`.

    Returns:
        [n] int32, or `"true"` probabilities [n, K] as they were given.
    """
    if label == "true":
        y = tf.convert_to_tensor(y)
        return tf.cast(y, tf.int32) if y.shape.rank == 1 else y
    logits = logits_of(logits)
    if label == "random":
        shape = tf.shape(logits)
        return tf.random.stateless_uniform(
            shape[:1], as_seed(seed), 0, shape[1], tf.int32, alg="philox"
        )
    pick = lookup({"predicted": tf.argmax, "least_likely": tf.argmin}, label, "label")
    return pick(tf.stop_gradient(logits), axis=-1, output_type=tf.int32)


def signed_cross_entropy(label, y, logits):
    """What an attack with these labels ascends, [n]; logits [n, K], or a `Judged`.

    J for labels to leave (true, predicted), -J for labels to reach (least likely,
    random). Adding eps * sign of its gradient gives both rules of the papers.
    """
    sign = -1.0 if label in TARGETED else 1.0
    return sign * cross_entropy(y, logits)


def steps_of(sizes, x, direction):
    """[clip(x + e * direction, 0, 1) for e in sizes], as constants."""
    return [tf.stop_gradient(to_range(x + e * direction)) for e in sizes]


def sign_step(predict, x, y, *, label, step_size, seed=None, direction=tf.sign):
    """The step z -> z + a * sign(g) of the iterated attacks, before any clipping.

    g is the gradient at z of `signed_cross_entropy`, its labels chosen at x for all z.

    Args:
        predict, x, y, seed: as an attack takes them.
        label: see `choose_labels`.
        step_size: a, a number or a tensor [n, 1, 1, 1].
        direction: what takes the place of the sign, [n, h, w, c] -> [n, h, w, c].
    """
    logits = None if label == "true" else predict(x)
    target = choose_labels(label, logits, y, seed)

    def step(z):
        gradient = input_gradient(
            predict, z, lambda o: signed_cross_entropy(label, target, o)
        )
        return z + step_size * direction(gradient)

    return step


def iterate(body, state, steps, going=None):
    """Applies `state = body(i, state)` for i = 0 .. steps - 1.

    The one loop of the package. A `tf.while_loop`, because Keras runs `train_step`
    without AutoGraph; it works eagerly as well.

    Args:
        body: (int32 scalar, state) -> state of the same structure and shapes.
        state: tensor or tuple of tensors.
        steps: int or int32 scalar.
        going: state -> bool scalar; the loop ends early where it is false.
    """

    def again(i, state):
        more = i < steps
        return more if going is None else tf.logical_and(more, going(state))

    return tf.while_loop(again, lambda i, s: (i + 1, body(i, s)), (0, state))[1]


def sweep(attack, predict, x, y, sizes, seed=None):
    """[x_adv of the attack at eps e for e in sizes], sharing what can be shared.

    Args:
        attack: with any eps.
        predict, x, y, seed: as an attack takes them.
        sizes: numbers, in the units of x.
    """
    for eps in sizes:
        check_eps(eps, norm=getattr(attack, "norm", "linf"))
    shared = getattr(attack, "sweep", None)
    if shared is not None:
        return shared(predict, x, y, sizes, seed)
    return one_by_one(attack, predict, x, y, sizes, seed)


def one_by_one(attack, predict, x, y, sizes, seed=None):
    """`sweep` without sharing: the attack is run anew at every size."""
    return [dataclasses.replace(attack, eps=e)(predict, x, y, seed=seed) for e in sizes]


def kurakin_steps(eps):
    """floor(min(eps + 4, 1.25 eps)) with eps in pixels of 255, at least 1.

    The number of iterations of Kurakin et al. 2017 (section 2) and Na et al. 2018
    for steps of one pixel: eps 1 -> 1, 2 -> 2, 4 -> 5, 8 -> 10, 16 -> 20, 32 -> 36.

    Args:
        eps: number, or a tensor of any shape, in the units of x.

    Returns:
        int, or an int32 tensor of the shape of `eps`.
    """
    # A thousandth of a step keeps an eps that carries rounding from one step less.
    if isinstance(eps, numbers.Real):
        return max(1, int(min(eps * 255 + 4, 1.25 * eps * 255) + 1e-3))
    pixels = eps * 255.0
    steps = tf.floor(tf.minimum(pixels + 4.0, 1.25 * pixels) + 1e-3)
    return tf.maximum(1, tf.cast(steps, tf.int32))


def as_seed(seed):
    """A stateless seed [2] from an int or a pair of ints.

    Raises:
        ValueError: `seed` is None. There is no hidden state to draw from, and noise
            that silently repeats at every call would be worse than this error.
    """
    if seed is None:
        raise ValueError(
            "this attack draws random numbers: pass `seed`, an int or a pair of ints "
            "(a new one for new noise); received None"
        )
    seed = tf.cast(tf.convert_to_tensor(seed), tf.int64)
    return tf.stack([seed, tf.zeros_like(seed)]) if seed.shape.rank == 0 else seed


def fold(seed, number):
    """A new seed [2] from a seed and an integer: `stateless_fold_in`."""
    return tf.random.experimental.stateless_fold_in(
        as_seed(seed), tf.cast(number, tf.int64), alg="philox"
    )


def normal(x, seed):
    """Independent N(0, 1) of the shape of x."""
    return tf.random.stateless_normal(tf.shape(x), as_seed(seed), alg="philox")


def uniform(x, seed):
    """Independent U(-1, 1) of the shape of x."""
    return tf.random.stateless_uniform(tf.shape(x), as_seed(seed), -1, 1, alg="philox")
