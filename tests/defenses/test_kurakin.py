"""Steps of Algorithm 1 against softmax regression in closed form."""

import keras
import numpy as np
import pytest

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
from tfadv import attacks
from tfadv.defenses import Kurakin

EPS = 0.2
ATTACKS = {
    "step_ll": attacks.StepLL(eps=EPS),
    "step_fgsm": attacks.StepFGSM(eps=EPS),
}


def make(name="step_ll", **options):
    options = {"attack": ATTACKS[name], "eps_law": "constant"} | options
    return softmax_regression.make(Kurakin, **options)


def by_hand(name, w, *, k, eps, weight=0.3, weight_decay=0.0, smoothing=0.0, x=X, y=Y):
    """(loss, new w, (clean, adversarial) accuracy) of one step.

    The loss is sum_i c_i J_i / sum_i c_i, c = lambda for the first k images and 1 for
    the others, whose denominator is (m - k) + lambda k.
    """
    w, x = w.astype(np.float64), flat(x)
    x = np.concatenate([craft(name, w, x[:k], y[:k], eps, smoothing), x[k:]])
    c = np.array([weight] * k + [1.0] * (len(x) - k)) / (len(x) - k + weight * k)
    values, slopes = cross_entropy(w, x, y, smoothing)
    loss = c @ values + weight_decay / 2 * (w**2).sum()
    gradient = x.T @ (c[:, None] * slopes) + weight_decay * w
    rates = accuracy(w, x[k:], y[k:]), accuracy(w, x[:k], y[:k])
    return loss, w - RATE * gradient, rates


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("k", [None, 2, 6])
@pytest.mark.parametrize(
    ("weight_decay", "smoothing", "weight"), [(0.0, 0.0, 0.3), (0.1, 0.8, 2.0)]
)
def test_one_step(name, k, weight_decay, smoothing, weight):
    defense = make(
        name,
        k=k,
        weight_decay=weight_decay,
        label_smoothing=smoothing,
        adversarial_weight=weight,
    )
    logs = step(defense)
    loss, w, (clean, adversarial) = by_hand(
        name,
        W,
        k=k or 3,  # half of 6
        eps=EPS,
        weight=weight,
        weight_decay=weight_decay,
        smoothing=smoothing,
    )
    np.testing.assert_allclose(weights(defense), w, atol=1e-6)
    expected = {"loss": loss, "accuracy": clean, "adversarial_accuracy": adversarial}
    assert logs == pytest.approx(expected, abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_steps_of_the_delay_are_clean_and_unweighted(run_eagerly):
    """Two clean steps, c = 1 / m for all; the third is adversarial."""
    defense, w = make(delay=2, run_eagerly=run_eagerly), W
    history = defense.fit(X, Y, batch_size=6, epochs=3, shuffle=False, verbose=0)
    robust = []
    for k, eps, weight in ((3, 0.0, 1.0), (3, 0.0, 1.0), (3, EPS, 0.3)):
        _, w, (_, adversarial) = by_hand("step_ll", w, k=k, eps=eps, weight=weight)
        robust.append(adversarial if eps else np.nan)
    np.testing.assert_allclose(weights(defense), w, atol=1e-6)
    found = history.history["adversarial_accuracy"]
    assert found == pytest.approx(robust, nan_ok=True)


@pytest.mark.parametrize(
    ("k", "batches"),
    [
        (3, [(4, 3), (2, 2)]),
        (None, [(4, 2), (2, 1)]),
        (None, [(5, 2), (1, 0)]),
    ],
)
def test_a_short_last_batch_in_fit(k, batches):
    """`batches` are (size, adversarial images) by hand: k, or half, but all at most."""
    defense, w = make(k=k), W
    history = defense.fit(X, Y, batch_size=batches[0][0], shuffle=False, verbose=0)
    begin, right = 0, 0
    for m, count in batches:
        part = slice(begin, begin + m)
        _, w, (_, rate) = by_hand("step_ll", w, k=count, eps=EPS, x=X[part], y=Y[part])
        right += rate * count if count else 0
        begin += m
    np.testing.assert_allclose(weights(defense), w, atol=1e-6)
    adversarial = sum(count for _, count in batches)
    found = history.history["adversarial_accuracy"]
    assert found == pytest.approx([right / adversarial])


def test_adversarial_images_without_weight_train_nothing():
    """lambda = 0 and a last batch of adversarial images only: no gradient, no NaN."""
    defense = make(k=3, adversarial_weight=0.0)
    defense.fit(X, Y, batch_size=4, shuffle=False, verbose=0)
    _, w, _ = by_hand("step_ll", W, k=3, eps=EPS, weight=0.0, x=X[:4], y=Y[:4])
    np.testing.assert_allclose(weights(defense), w, atol=1e-6)


def test_clean_and_adversarial_images_share_batch_statistics():
    """The moving mean goes half way from 0 to the mean of the images trained on.

    Crafting sees the moving statistics, 0 and 1: the normalisation is x / sqrt(1 + e).
    """
    normalize = keras.layers.BatchNormalization(momentum=0.5, epsilon=1e-3)
    defense = make(k=2, layers=[normalize])
    step(defense)
    x = flat(X)
    x[:2] = craft("step_ll", W / np.sqrt(1.001), x[:2], Y[:2], EPS)
    np.testing.assert_allclose(normalize.moving_mean, [x.mean() / 2], atol=1e-6)


def test_half_of_a_batch_is_adversarial_by_default():
    """Of a batch over all replicas: 64 images each give 32 on each of two."""
    assert make().check_batch(128, replicas=2) == 32
    with pytest.raises(ValueError, match="multiple of the 2 replicas; received 3"):
        make().check_batch(6, replicas=2)
