"""One step against softmax regression in closed form, both images included."""

import functools

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
    cross_entropy,
    flat,
    sign,
    step,
    weights,
)
from tfadv import attacks, losses, models
from tfadv.attacks import core
from tfadv.defenses import E2SAD
from tfadv.defenses.e2sad import SECOND_STEPS

EPS1, EPS2 = 0.2, 0.1
make = functools.partial(
    softmax_regression.make, E2SAD, attack=attacks.StepFGSM(eps=EPS1), eps2=EPS2
)


def predictions(w, x):
    p = np.exp(x @ w)
    return p / p.sum(1, keepdims=True)


def entropy_slopes(w, x):
    """dH/dz = -p (log p + H)."""
    p = predictions(w, x)
    h = -(p * np.log(p)).sum(1, keepdims=True)
    return -p * (np.log(p) + h)


def second(step2, w, x_adv, noise):
    """Where the second step leads from the rows x_adv."""
    if step2 == "literal":
        return x_adv
    if step2 == "entropy":
        slopes = entropy_slopes(w, x_adv)
    else:
        # D of the fixed p against f at the probe: dD/dz = q - p.
        slopes = predictions(w, x_adv + 1e-2 * noise) - predictions(w, x_adv)
    return np.clip(x_adv + EPS2 * np.sign(slopes @ w.T), 0, 1)


def dissimilarity(w, a, b):
    """mean D(f(a), f(b)) and its gradient in w, through both predictions."""
    p, q = predictions(w, a), predictions(w, b)
    d = -(p * np.log(q)).sum(1, keepdims=True)
    gradient = a.T @ (-p * (np.log(q) + d)) + b.T @ (q - p)
    return d.mean(), gradient / len(a)


@pytest.mark.parametrize("step2", SECOND_STEPS)
@pytest.mark.parametrize(
    ("alpha", "weight", "smoothing"), [(0.6, 0.1, 5 / 18), (0.0, 2.0, 0.0)]
)
@pytest.mark.parametrize("shared", [True, False])
def test_one_step(step2, alpha, weight, smoothing, shared, monkeypatch):
    defense = make(
        step2=step2,
        alpha=alpha,
        dissimilarity_weight=weight,
        label_smoothing=smoothing,
        weight_decay=0.1,
    )
    assert defense.shares_passes
    monkeypatch.setattr(E2SAD, "shares_passes", shared)
    noise = flat(tf.sign(core.normal(X, defense.step_seed(1))).numpy())
    logs = step(defense)

    w, x = W.astype(np.float64), flat(X)
    x_adv = np.clip(x + EPS1 * sign(w, x, Y, smoothing), 0, 1)
    x_tilde = second(step2, w, x_adv, noise)
    assert (x_tilde == x_adv).all() == (step2 == "literal")
    values, slopes = cross_entropy(w, x, Y, smoothing)
    adversarial, slopes_adv = cross_entropy(w, x_adv, Y, smoothing)
    d, d_gradient = dissimilarity(w, x_adv, x_tilde)
    n = len(x)
    gradient = alpha * x.T @ slopes / n + (1 - alpha) * x_adv.T @ slopes_adv / n
    expected = w - RATE * (gradient + weight * d_gradient + 0.1 * w)
    np.testing.assert_allclose(weights(defense), expected, atol=2e-6)

    loss = alpha * values.mean() + (1 - alpha) * adversarial.mean() + weight * d
    assert logs == pytest.approx(
        {
            "loss": loss + 0.05 * (w**2).sum(),
            "accuracy": accuracy(w, x, Y),
            "adversarial_accuracy": accuracy(w, x_adv, Y),
        },
        abs=1e-6,
    )


def test_the_literal_third_term_is_an_entropy():
    """With x_tilde = x_adv both gradients together are that of the entropy."""
    w, x = W.astype(np.float64), flat(X)
    d, gradient = dissimilarity(w, x, x)
    p = predictions(w, x)
    assert d == pytest.approx(-(p * np.log(p)).sum(1).mean())
    np.testing.assert_allclose(gradient, x.T @ entropy_slopes(w, x) / len(x))


# ------------------------------------------------------------------ the second step


def network():
    """A classifier that is certain here and uncertain there, and images for it."""
    keras.utils.set_random_seed(0)
    model = models.small_cnn((8, 8, 1), 10, width=8)
    for variable in model.trainable_variables:
        variable.assign(2 * variable)
    random = np.random.default_rng(0)
    x = random.uniform(0.2, 0.8, (100, 8, 8, 1)).astype(np.float32)
    return (lambda z: model(z, training=False)), tf.constant(x)


@pytest.mark.parametrize("compiled", [False, True])
def test_the_literal_step_stays(compiled):
    predict, x = network()
    attack = SECOND_STEPS["literal"](eps=0.1)

    def run(x):
        return attack(predict, x, None)

    moved = (tf.function(run) if compiled else run)(x)
    np.testing.assert_array_equal(moved, x)


def test_the_printed_gradient_is_zero():
    """By differences: D(p, f(x + h d)) with p = f(x) has no slope at h = 0."""
    _, slopes = cross_entropy(W.astype(np.float64), flat(X), Y)
    w, x = W.astype(np.float64), flat(X)
    p, direction = predictions(w, x), np.sign(slopes @ w.T)

    def d(h):
        return -(p * np.log(predictions(w, x + h * direction))).sum(1)

    np.testing.assert_allclose((d(1e-5) - d(-1e-5)) / 2e-5, 0, atol=1e-8)
    # And is least there.
    assert (d(1e-3) > d(0)).all() and (d(-1e-3) > d(0)).all()


@pytest.mark.parametrize("step2", ["entropy", "vat"])
def test_a_second_step_finds_more_dissimilar_images_than_chance(step2):
    predict, x = network()
    before = predict(x)

    def raised(attack):
        return np.mean(losses.dissimilarity(before, predict(attack(x))))

    ours = SECOND_STEPS[step2](eps=0.1)
    noise = attacks.RandomSign(eps=0.1)
    chance = [raised(lambda z, s=s: noise(predict, z, None, seed=s)) for s in range(5)]
    found = raised(lambda z: ours(predict, z, None, seed=0))
    stays = raised(lambda z: z)
    assert found - stays > 2 * (max(chance) - stays) > 0


def test_the_second_step_may_leave_the_ball_but_not_the_range():
    defense = make(dissimilarity_weight=1.0)
    x = tf.constant(X)
    x_adv, x_tilde = defense.craft(defense.logits, x, tf.constant(Y))
    assert np.abs(x_tilde - x).max() == pytest.approx(EPS1 + EPS2)
    assert np.abs(x_adv - x).max() == pytest.approx(EPS1)
    assert np.min(x_tilde) >= 0 and np.max(x_tilde) <= 1


# ---------------------------------------------------------------- how many passes


class Counting(keras.layers.Layer):
    """Counts its calls, each with how many images and whether in training."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def call(self, x, training=None):
        self.calls.append((x.shape[0], bool(training)))
        return x


@pytest.mark.parametrize(
    ("step2", "passes"), [("entropy", 3), ("literal", 3), ("vat", 4)]
)
def test_what_crafts_also_trains(step2, passes):
    counting = Counting()
    defense = make(step2=step2, layers=[counting])
    counting.calls.clear()
    step(defense)
    assert counting.calls == [(len(X), True)] * passes


@pytest.mark.parametrize(
    ("layer", "attack"),
    [
        (keras.layers.BatchNormalization, attacks.StepFGSM(eps=EPS1)),
        (lambda: keras.layers.Dropout(0.5), attacks.StepFGSM(eps=EPS1)),
        (keras.layers.ReLU, attacks.IFGSM(eps=EPS1, steps=1)),
    ],
)
def test_what_differs_in_training_is_crafted_in_inference(layer, attack):
    counting = Counting()
    defense = make(layers=[layer(), counting], attack=attack)
    assert not defense.shares_passes
    counting.calls.clear()
    step(defense)
    crafting, training = counting.calls[:-1], counting.calls[-1]
    assert training == (3 * len(X), True)
    assert set(crafting) == {(len(X), False)} and len(crafting) >= 2


def test_a_classifier_that_is_built_later_is_asked_then():
    classifier = keras.Sequential(
        [
            keras.layers.Flatten(),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(3),
        ]
    )
    defense = E2SAD(classifier, attack=attacks.StepFGSM(eps=EPS1), eps2=EPS2)
    defense.build((None, 2, 2, 1))
    assert not defense.shares_passes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1.5}, r"`alpha`.*\[0, 1\].*received 1.5"),
        ({"dissimilarity_weight": -0.1}, "`dissimilarity_weight`.*received -0.1"),
        ({"eps2": 8}, r"`eps2` must be in \[0, 1\].*'8/255'"),
        ({"step2": "vta"}, "step2 'vta'; did you mean 'vat'"),
    ],
)
def test_arguments_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)
