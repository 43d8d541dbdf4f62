"""Steps against softmax regression in closed form; its embedding is E(x) = x w."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.defenses import softmax_regression
from tests.defenses.softmax_regression import (
    RATE,
    W,
    X,
    Y,
    accuracy,
    craft,
    cross_entropy,
    flat,
    step,
    weights,
)
from tfadv import attacks, losses
from tfadv.defenses import Kurakin, UnifiedEmbedding
from tfadv.training import Checkpoints, train

EPS = 0.2
MODES = pytest.mark.parametrize("mode", ["bidirectional", "pivot", "pivot_released"])


class StopGradient(UnifiedEmbedding):
    """The pivot as one would write it without a variable."""

    class Constant:
        def assign(self, value):
            self.value = tf.stop_gradient(value)

        def read_value(self):
            return self.value

    def build(self, input_shape):
        super().build(input_shape)
        self.pivot = self.Constant()


def make(factory=UnifiedEmbedding, *, build=True, **options):
    defaults = {
        "attack": attacks.StepLL(eps=EPS),
        "eps_law": "constant",
        "embedding_weight": 0.5,
        "damping": 0.0,
    }
    defense = softmax_regression.make(factory, **defaults | options)
    if build:
        defense.build((None, 2, 2, 1))
    return defense


def distance(a, b, norm=2, half=True):
    """d [n] and its gradient in a [n, K], which is minus that in b."""
    difference = a - b
    if norm == 1:
        return np.abs(difference).sum(1), np.sign(difference)
    factor = 0.5 if half else 1.0
    return factor * (difference**2).sum(1), 2 * factor * difference


def by_hand(
    w,
    *,
    mode="pivot",
    k=6,
    eps=EPS,
    weight=0.3,
    lambda2=0.5,
    form=(),
    damping=0.0,
    weight_decay=0.0,
    smoothing=0.0,
    x=X,
    y=Y,
):
    """(loss, new w, (clean, adversarial) accuracy) of one step.

    [sum of J over the n clean images + lambda times that over the k adversarial ones]
    / (n + lambda k), and lambda2 times the sum of d(x_adv w, x w) over the k pairs,
    whose gradient in w is x_adv^T g, and -x^T g more where clean embeddings move too;
    damping / 2 |x w|^2 of every pair has the gradient damping x^T x w.
    """
    w, x = w.astype(np.float64), flat(x)
    x_adv = craft("step_ll", w, x[:k], y[:k], eps)
    both, labels = np.concatenate([x_adv, x]), np.concatenate([y[:k], y])
    c = np.array([weight] * k + [1.0] * len(x)) / (len(x) + weight * k)
    values, slopes = cross_entropy(w, both, labels, smoothing)
    clean = x[:k] @ w
    d, g = distance(x_adv @ w, clean, *form)
    d = d + damping / 2 * (clean**2).sum(1)
    loss = c @ values + lambda2 * d.sum() + weight_decay / 2 * (w**2).sum()
    gradient = both.T @ (c[:, None] * slopes) + weight_decay * w
    gradient += lambda2 * (x_adv.T @ g + damping * x[:k].T @ clean)
    if mode != "pivot":
        gradient -= lambda2 * x[:k].T @ g
    rates = accuracy(w, x, y), accuracy(w, x_adv, y[:k])
    return loss, w - RATE * gradient, rates


@MODES
@pytest.mark.parametrize("form", [(2, True), (2, False), (1, True)])
@pytest.mark.parametrize("damping", [0.0, 0.2])
@pytest.mark.parametrize(
    ("k", "weight", "lambda2", "weight_decay", "smoothing"),
    [(None, 0.3, 0.5, 0.0, 0.0), (4, 2.0, 0.1, 0.1, 0.3)],
)
def test_one_step(mode, form, damping, k, weight, lambda2, weight_decay, smoothing):
    defense = make(
        mode=mode,
        norm=form[0],
        distance_half=form[1],
        damping=damping,
        k=k,
        adversarial_weight=weight,
        embedding_weight=lambda2,
        weight_decay=weight_decay,
        label_smoothing=smoothing,
    )
    logs = step(defense)
    loss, w, (clean, adversarial) = by_hand(
        W,
        mode=mode,
        k=k or 6,
        weight=weight,
        lambda2=lambda2,
        form=form,
        damping=damping if mode == "pivot" else 0.0,
        weight_decay=weight_decay,
        smoothing=smoothing,
    )
    np.testing.assert_allclose(weights(defense), w, atol=1e-6)
    expected = {"loss": loss, "accuracy": clean, "adversarial_accuracy": adversarial}
    assert logs == pytest.approx(expected, abs=1e-6)


@MODES
def test_which_embedding_the_distance_moves(mode):
    """A pivot gets no gradient; else the two embeddings get opposite ones."""
    target = make(mode=mode)._target
    a, b = tf.constant([[3.0, 1.0, 0.0]]), tf.constant([[1.0, 2.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch([a, b])
        d = losses.embedding_distance(a, target(b))
    zero = tf.UnconnectedGradients.ZERO
    of_a, of_b = tape.gradient(d, [a, b], unconnected_gradients=zero)
    np.testing.assert_array_equal(d, [2.5])
    np.testing.assert_array_equal(of_a, [[2, -1, 0]])
    expected = [[0, 0, 0]] if mode == "pivot" else [[-2, 1, 0]]
    np.testing.assert_array_equal(of_b, expected)


@pytest.mark.parametrize("run_eagerly", [False, True])
@pytest.mark.parametrize("damping", [0.0, 0.1])
def test_modes_that_are_the_same_are_so_bit_for_bit(run_eagerly, damping):
    """Three epochs with a short last batch, and fewer pairs than images."""

    def trained(factory, mode):
        options = {"damping": damping, "run_eagerly": run_eagerly}
        defense = make(factory, mode=mode, k=2, **options)
        defense.fit(X, Y, batch_size=4, epochs=3, shuffle=False, verbose=0)
        return weights(defense)

    pivot, both = (trained(UnifiedEmbedding, m) for m in ("pivot", "bidirectional"))
    np.testing.assert_array_equal(pivot, trained(StopGradient, "pivot"))
    np.testing.assert_array_equal(both, trained(UnifiedEmbedding, "pivot_released"))
    assert not np.allclose(pivot, both, atol=1e-3)


@MODES
@pytest.mark.parametrize("k", [None, 4])
def test_without_distance_it_is_kurakins_loss_on_the_joint_batch(mode, k):
    """Kurakin replaces the first k of [x_0 .. x_{k-1}, x_0 .. x_5]."""
    defense = make(mode=mode, k=k, embedding_weight=0.0)
    options = {"attack": attacks.StepLL(eps=EPS), "eps_law": "constant"}
    kurakin = softmax_regression.make(Kurakin, k=k or 6, **options)
    logs = step(defense)
    double = [np.concatenate([part[: k or 6], part]) for part in (X, Y)]
    assert logs == pytest.approx(step(kurakin, *double), abs=1e-6)
    np.testing.assert_allclose(weights(defense), weights(kurakin), atol=1e-6)


@MODES
@pytest.mark.parametrize(("k", "build"), [(None, True), (3, False)])
def test_a_short_last_batch_in_fit(mode, k, build):
    """Of four and of two images all have a twin, or at most three; `fit` needs no
    `build` before it."""
    defense, w = make(mode=mode, k=k, build=build), W
    defense.fit(X, Y, batch_size=4, shuffle=False, verbose=0)
    for part in (slice(4), slice(4, 6)):
        x, y = X[part], Y[part]
        _, w, _ = by_hand(w, mode=mode, k=min(k or 4, len(x)), x=x, y=y)
    np.testing.assert_allclose(weights(defense), w, atol=1e-6)


@MODES
def test_the_embedding_of_a_layer_before_the_logits(mode):
    """E(x) = a x [n, 2, 2, 1] and z = a x w: J has dJ/da = sum (p - q) . x w.

    Of the 4 pairs d = a^2 |x_adv - x|^2 / 2, with x_adv constant, and of the two
    factors a (x_adv - x) . (x_adv - x) of dd/da a pivot leaves a (x_adv - x) . x_adv.
    """
    scale = keras.layers.Conv2D(1, 1, use_bias=False, name="scale")
    defense = make(mode=mode, k=4, embedding="scale", layers=[scale])
    a = np.float32(0.75)
    scale.set_weights([np.full((1, 1, 1, 1), a)])
    logs = step(defense)

    x, w = flat(X), W.astype(np.float64)
    x_adv = craft("step_ll", a * w, x[:4], Y[:4], EPS)
    both, labels = np.concatenate([x_adv, x]), np.concatenate([Y[:4], Y])
    c = np.array([0.3] * 4 + [1.0] * 6) / (6 + 0.3 * 4)
    values, slopes = cross_entropy(a * w, both, labels)
    moved = x_adv - x[:4]
    moving = x_adv if mode == "pivot" else moved
    gradient = c @ (slopes * (both @ w)).sum(1) + 0.5 * a * (moved * moving).sum()
    assert scale.get_weights()[0].item() == pytest.approx(a - RATE * gradient, abs=1e-6)
    loss = c @ values + 0.5 * a**2 / 2 * (moved**2).sum()
    assert logs["loss"] == pytest.approx(loss, abs=1e-6)
    new_w = defense.classifier.layers[-1].get_weights()[0]
    expected = w - RATE * a * both.T @ (c[:, None] * slopes)
    np.testing.assert_allclose(new_w, expected, atol=1e-6)


def test_an_unknown_layer():
    scale = keras.layers.Rescaling(2.0, name="scale")
    message = r"`embedding` names a layer.*received 'scael'\. Layers: scale, flatten"
    with pytest.raises(ValueError, match=message):
        make(embedding="scael", layers=[scale])


@MODES
@pytest.mark.parametrize("embedding", [None, "normalize"])
def test_the_joint_batch_moves_the_statistics_once(mode, embedding):
    """Half way from 0 to the mean of the 4 adversarial and 6 clean images together,
    and from 1 to their variance. Crafting sees the moving ones: x / sqrt(1 + e).
    """
    normalize = keras.layers.BatchNormalization(
        momentum=0.5, epsilon=1e-3, name="normalize"
    )
    step(make(mode=mode, k=4, embedding=embedding, layers=[normalize]))
    x_adv = craft("step_ll", W / np.sqrt(1.001), flat(X[:4]), Y[:4], EPS)
    seen = np.concatenate([x_adv, flat(X)])
    np.testing.assert_allclose(normalize.moving_mean, [seen.mean() / 2], atol=1e-6)
    variance = (1 + seen.var()) / 2
    np.testing.assert_allclose(normalize.moving_variance, [variance], atol=1e-6)


@MODES
def test_steps_of_the_delay_are_clean(mode):
    """Twins that are clean, and count as such: the mean of J, and no distance."""
    defense, w = make(mode=mode, delay=2, damping=0.2), W
    history = defense.fit(X, Y, batch_size=6, epochs=3, shuffle=False, verbose=0)
    robust = []
    for eps, weight, lambda2 in ((0, 1, 0), (0, 1, 0), (EPS, 0.3, 0.5)):
        _, w, (_, adversarial) = by_hand(
            w,
            mode=mode,
            eps=eps,
            weight=weight,
            lambda2=lambda2,
            damping=0.2 if mode == "pivot" else 0.0,
        )
        robust.append(adversarial if eps else np.nan)
    np.testing.assert_allclose(weights(defense), w, atol=1e-6)
    found = history.history["adversarial_accuracy"]
    assert found == pytest.approx(robust, nan_ok=True)


@MODES
def test_two_replicas_sum_over_all_pairs(mode, mirrored, tmp_path):
    """Images 0 and 1 have twins, one on each replica: [0 2 3] and [1 4 5] are one
    device's [0 1 | 2 3 4 5]."""
    with mirrored.scope():
        defense = make(mode=mode, k=2)
    order = [0, 2, 3, 1, 4, 5]
    data = tf.data.Dataset.from_tensors((X[order], Y[order])).repeat()
    checkpoints = Checkpoints(tmp_path, defense)
    run = {"steps": 2, "steps_per_epoch": 2, "checkpoints": checkpoints}
    logs = train(defense, data.skip, **run)
    first, w, _ = by_hand(W, mode=mode, k=2)
    second, w, _ = by_hand(w, mode=mode, k=2)
    np.testing.assert_allclose(weights(defense), w, atol=1e-6)
    assert logs["loss"] == pytest.approx((first + second) / 2, abs=1e-6)


@MODES
def test_a_run_goes_on_from_its_checkpoint_with_the_same_bits(mode, tmp_path):
    data = tf.data.Dataset.from_tensors((X, Y)).repeat()
    whole = make(mode=mode, eps_law="clipped")
    train(whole, data.skip, steps=3, steps_per_epoch=3)
    for steps in (2, 3):
        part = make(mode=mode, eps_law="clipped")
        checkpoints = Checkpoints(tmp_path, part)
        run = {"steps": steps, "steps_per_epoch": 3, "checkpoints": checkpoints}
        train(part, data.skip, **run)
    np.testing.assert_array_equal(weights(part), weights(whole))


def test_only_the_classifier_is_trained():
    layer = keras.layers.Rescaling(1.0, name="hidden")
    defense = make(mode="pivot", embedding="hidden", layers=[layer])
    (kernel,) = defense.trainable_variables
    assert kernel is defense.classifier.layers[-1].kernel


@pytest.mark.parametrize("option", ["embedding_weight", "damping"])
def test_a_negative_option(option):
    with pytest.raises(ValueError, match=rf"`{option}` must .*received -0\.1"):
        make(**{option: -0.1})


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"mode": "pivto"}, "`mode` must be 'bidirectional' or .*mean 'pivot'?"),
        ({"norm": 3}, "`norm` must be 1 or 2; received 3"),
    ],
)
def test_another_mode_or_norm(option, message):
    with pytest.raises(ValueError, match=message):
        make(**option)
