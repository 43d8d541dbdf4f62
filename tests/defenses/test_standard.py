"""One step against softmax regression in closed form."""

import numpy as np
import pytest

from tests.defenses.softmax_regression import (
    RATE,
    W,
    X,
    Y,
    accuracy,
    cross_entropy,
    flat,
    make,
    step,
    weights,
)
from tfadv import attacks
from tfadv.defenses import Standard


def by_hand(*, weight_decay=0.0, label_smoothing=0.0):
    """The loss, a mean over the images, and the new w."""
    w, x = W.astype(np.float64), flat(X)
    values, slopes = cross_entropy(w, x, Y, label_smoothing)
    loss = values.mean() + weight_decay / 2 * (w**2).sum()
    return loss, w - RATE * (x.T @ slopes / len(x) + weight_decay * w)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.3])
@pytest.mark.parametrize("attack", [None, attacks.StepFGSM(eps=0.2)])
def test_one_step(weight_decay, label_smoothing, attack):
    options = {"weight_decay": weight_decay, "label_smoothing": label_smoothing}
    defense = make(Standard, attack=attack, **options)
    logs = step(defense)
    loss, w = by_hand(**options)
    np.testing.assert_allclose(weights(defense), w, atol=1e-6)
    assert logs["loss"] == pytest.approx(loss, abs=1e-6)
    assert logs["accuracy"] == pytest.approx(accuracy(W, flat(X), Y))


def test_an_attack_to_measure_with_is_not_counted_in_training():
    defense = make(Standard, attack=attacks.StepFGSM(eps=0.2))
    history = defense.fit(X, Y, validation_data=(X, Y), verbose=0).history
    assert np.isnan(history["adversarial_accuracy"]).all()
    assert np.isfinite(history["val_adversarial_accuracy"]).all()
