"""One step against softmax regression in closed form."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfadv import attacks
from tfadv.defenses import Standard

RATE, CLASSES = 0.5, 3
RANDOM = np.random.default_rng(0)
W = RANDOM.normal(size=(4, CLASSES)).astype(np.float32)
X = RANDOM.uniform(size=(6, 2, 2, 1)).astype(np.float32)
Y = RANDOM.integers(0, CLASSES, 6).astype(np.int32)


def make(*, weight_decay=0.0, **options):
    """Logits x w without bias, and SGD without momentum."""
    kernel = keras.layers.Dense(
        CLASSES,
        use_bias=False,
        kernel_regularizer=keras.regularizers.L2(weight_decay / 2),
    )
    classifier = keras.Sequential(
        [keras.Input((2, 2, 1)), keras.layers.Flatten(), kernel]
    )
    classifier.set_weights([W])
    defense = Standard(classifier, **options)
    defense.compile(keras.optimizers.SGD(RATE))
    return defense


def by_hand(*, weight_decay=0.0, label_smoothing=0.0):
    """The loss and the new w: J = -q . log p has dJ/dz = p - q, dJ/dw = x^T (p - q)."""
    w, x = W.astype(np.float64), X.reshape(6, 4)
    p = np.exp(x @ w)
    p /= p.sum(1, keepdims=True)
    q = (1 - label_smoothing) * np.eye(CLASSES)[Y] + label_smoothing / CLASSES
    loss = -(q * np.log(p)).sum(1).mean() + weight_decay / 2 * (w**2).sum()
    return loss, w - RATE * (x.T @ (p - q) / 6 + weight_decay * w)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.3])
@pytest.mark.parametrize("attack", [None, attacks.StepFGSM(eps=0.2)])
def test_one_step(weight_decay, label_smoothing, attack):
    defense = make(
        weight_decay=weight_decay, label_smoothing=label_smoothing, attack=attack
    )
    logs = defense.train_step((tf.constant(X), tf.constant(Y)))
    loss, w = by_hand(weight_decay=weight_decay, label_smoothing=label_smoothing)
    np.testing.assert_allclose(defense.classifier.get_weights()[0], w, atol=1e-6)
    accuracy = np.mean((X.reshape(6, 4) @ W).argmax(1) == Y)
    assert float(logs["loss"]) == pytest.approx(loss, abs=1e-6)
    assert float(logs["accuracy"]) == pytest.approx(accuracy)


def test_an_attack_to_measure_with_is_not_counted_in_training():
    defense = make(attack=attacks.StepFGSM(eps=0.2))
    history = defense.fit(X, Y, validation_data=(X, Y), verbose=0).history
    assert np.isnan(history["adversarial_accuracy"]).all()
    assert np.isfinite(history["val_adversarial_accuracy"]).all()
