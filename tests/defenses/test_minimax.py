"""One step against softmax regression in closed form, second derivatives included."""

import functools

import numpy as np
import pytest

from tests.defenses import softmax_regression
from tests.defenses.softmax_regression import (
    CLASSES,
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
from tfadv import attacks
from tfadv.defenses import AdversarialTraining, Minimax

EPS = 0.1
make = functools.partial(softmax_regression.make, Minimax)


def norm_term(w, x, smoothing):
    """mean |g| and its gradient in w, with g = w d, d = p - q.

    |g| = sqrt(d' w'w d). With u = g / |g| and v = w'u: dd = (diag p - p p') dz and
    dz = w'x, so d|g|/dw = u d' + x [(diag p - p p') v]'.
    """
    _, d = cross_entropy(w, x, Y, smoothing)
    p = np.exp(x @ w)
    p /= p.sum(1, keepdims=True)
    g = d @ w.T
    norms = np.linalg.norm(g, axis=1, keepdims=True)
    u = g / norms
    v = u @ w
    curved = p * v - p * (p * v).sum(1, keepdims=True)
    return norms.mean(), (u.T @ d + x.T @ curved) / len(x)


@pytest.mark.parametrize(("alpha", "smoothing"), [(0.6, 0.0), (0.0, 0.0), (0.3, 0.5)])
@pytest.mark.parametrize("weight", [None, 0.7])
def test_one_step(alpha, smoothing, weight):
    options = {"alpha": alpha, "label_smoothing": smoothing, "weight_decay": 0.1}
    defense = make(attack=attacks.StepFGSM(eps=EPS), gradient_weight=weight, **options)
    logs = step(defense)

    w, x = W.astype(np.float64), flat(X)
    x_adv = np.clip(x + EPS * sign(w, x, Y, smoothing), 0, 1)
    values, slopes = cross_entropy(w, x, Y, smoothing)
    adversarial, slopes_adv = cross_entropy(w, x_adv, Y, smoothing)
    norm, norm_gradient = norm_term(w, x_adv, smoothing)
    factor = EPS / 2 if weight is None else weight
    n = len(x)
    gradient = alpha * x.T @ slopes / n
    gradient += (1 - alpha) * (x_adv.T @ slopes_adv / n + factor * norm_gradient)
    expected = w - RATE * (gradient + 0.1 * w)
    np.testing.assert_allclose(weights(defense), expected, atol=2e-6)

    loss = alpha * values.mean() + 0.05 * (w**2).sum()
    loss += (1 - alpha) * (adversarial.mean() + factor * norm)
    assert logs == pytest.approx(
        {
            "loss": loss,
            "accuracy": accuracy(w, x, Y),
            "adversarial_accuracy": accuracy(w, x_adv, Y),
        },
        abs=1e-6,
    )


def test_the_gradient_of_the_norm_is_that_of_differences():
    """The closed form above against central differences of the norm itself."""
    w, x = W.astype(np.float64), flat(X)
    _, gradient = norm_term(w, x, 0.0)
    for i, j in np.ndindex(4, CLASSES):
        h = np.zeros_like(w)
        h[i, j] = 1e-5
        up, down = (norm_term(w + s * h, x, 0.0)[0] for s in (1, -1))
        assert gradient[i, j] == pytest.approx((up - down) / 2e-5, abs=1e-7)


def test_without_its_second_term_it_is_adversarial_training():
    attack = attacks.StepFGSM(eps=EPS)
    ours = make(attack=attack, gradient_weight=0.0)
    theirs = softmax_regression.make(AdversarialTraining, attack=attack, alpha=0.6)
    step(ours), step(theirs)
    np.testing.assert_allclose(weights(ours), weights(theirs), atol=1e-7)


def test_a_gradient_of_zero_is_no_nan():
    """Weights of 0 predict 1 / K everywhere: every g is 0."""
    defense = make(attack=attacks.StepFGSM(eps=EPS))
    defense.classifier.set_weights([np.zeros_like(W)])
    step(defense)
    # p - q = 1/3 - q; x_adv = x, so clean and adversarial loss are one.
    slopes = 1 / CLASSES - np.eye(CLASSES)[Y]
    expected = -RATE * flat(X).T @ slopes / len(X)
    np.testing.assert_allclose(weights(defense), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1.0}, r"`alpha`.*\[0, 1\).*received 1.0"),
        ({"gradient_weight": -1.0}, "`gradient_weight`.*received -1.0"),
    ],
)
def test_arguments_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        make(attack=attacks.StepFGSM(eps=EPS), **options)
