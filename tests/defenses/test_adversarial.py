"""One step against softmax regression in closed form, x_adv included."""

import functools

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
    cross_entropy,
    flat,
    sign,
    step,
    weights,
)
from tfadv import attacks
from tfadv.defenses import AdversarialTraining

EPS = 0.1
make = functools.partial(softmax_regression.make, AdversarialTraining)


def craft(w, *, steps=1, step_size=EPS, smoothing=0.0):
    """Steps along the sign of dJ(x, y)/dx, each clipped to the ball and to [0, 1]."""
    x = z = flat(X)
    for _ in range(steps):
        z = z + step_size * sign(w, z, Y, smoothing)
        z = np.clip(z, np.maximum(x - EPS, 0), np.minimum(x + EPS, 1))
    return z


def term(w, x, smoothing):
    """mean J over the rows of x and its gradient in w, x^T (p - q) / n."""
    values, slopes = cross_entropy(w, x, Y, smoothing)
    return values.mean(), x.T @ slopes / len(x)


# Step sizes: eps in one step; eps / N in N = 5; eps / 4 in 10.
ATTACKS = {
    "step_fgsm": (attacks.StepFGSM(eps=EPS), {}),
    "ifgsm": (
        attacks.IFGSM(eps=EPS, steps=5),
        {"steps": 5, "step_size": EPS / 5},
    ),
    "pgd": (
        attacks.PGD(eps=EPS, random_start=False),
        {"steps": 10, "step_size": EPS / 4},
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("alpha", [0.6, 0.0])
@pytest.mark.parametrize(("weight_decay", "smoothing"), [(0.0, 0.0), (0.1, 0.8)])
def test_one_step(name, alpha, weight_decay, smoothing):
    attack, rule = ATTACKS[name]
    options = {"weight_decay": weight_decay, "label_smoothing": smoothing}
    defense = make(attack=attack, alpha=alpha, **options)
    logs = step(defense)

    w, x = W.astype(np.float64), flat(X)
    x_adv = craft(w, smoothing=smoothing, **rule)
    # Smoothing decides where the images go, too.
    assert (x_adv != craft(w, **rule)).any() == (smoothing > 0)
    clean_loss, clean_gradient = term(w, x, smoothing)
    adversarial_loss, adversarial_gradient = term(w, x_adv, smoothing)
    gradient = alpha * clean_gradient + (1 - alpha) * adversarial_gradient
    expected = w - RATE * (gradient + weight_decay * w)
    np.testing.assert_allclose(weights(defense), expected, atol=1e-6)

    loss = alpha * clean_loss + (1 - alpha) * adversarial_loss
    loss += weight_decay / 2 * (w**2).sum()
    # Clean images are seen, hence counted, only where alpha is not 0.
    clean = accuracy(w, x, Y) if alpha else float("nan")
    expected = {
        "loss": loss,
        "accuracy": clean,
        "adversarial_accuracy": accuracy(w, x_adv, Y),
    }
    assert logs == pytest.approx(expected, abs=1e-6, nan_ok=True)


@pytest.mark.parametrize(
    ("alpha", "same_as"), [(0.6, "accuracy"), (0.0, "adversarial_accuracy")]
)
def test_metrics_given_to_compile(alpha, same_as):
    """They count clean images; of alpha = 0, which trains on none, the adversarial."""
    attack, _ = ATTACKS["step_fgsm"]
    defense = make(attack=attack, alpha=alpha, metrics=["sparse_categorical_accuracy"])
    history = defense.fit(X, Y, epochs=2, validation_data=(X, Y), verbose=0).history
    assert history["sparse_categorical_accuracy"] == history[same_as]
    assert history["val_sparse_categorical_accuracy"] == history["val_accuracy"]


def test_a_short_last_batch():
    """Batches of 4 and 2: two steps, the second under the weights of the first."""
    attack, _ = ATTACKS["pgd"]
    one, two = make(attack=attack), make(attack=attack)
    one.fit(X, Y, batch_size=4, shuffle=False, verbose=0)
    for part in (slice(4), slice(4, 6)):
        step(two, X[part], Y[part])
    np.testing.assert_allclose(weights(one), weights(two), atol=1e-6)


@pytest.mark.parametrize("alpha", [0.6, 0.0])
def test_clean_and_adversarial_images_share_batch_statistics(alpha):
    """The moving mean goes half way from 0 to the mean of the images trained on.

    Crafting sees the moving statistics, 0 and 1: the normalisation is x / sqrt(1 + e).
    """
    normalize = keras.layers.BatchNormalization(momentum=0.5, epsilon=1e-3)
    attack, _ = ATTACKS["step_fgsm"]
    defense = make(attack=attack, alpha=alpha, layers=[normalize])
    step(defense)
    x_adv = craft(W.astype(np.float64) / np.sqrt(1.001))
    seen = np.concatenate([X.ravel(), x_adv.ravel()]) if alpha else x_adv
    np.testing.assert_allclose(normalize.moving_mean, [seen.mean() / 2], atol=1e-6)


def test_a_subclassed_classifier_can_have_soft_labels():
    """Which tells its number of classes only by being called."""

    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(W.shape[1], use_bias=False)

        def call(self, x, training=None):
            return self.dense(keras.ops.reshape(x, (-1, 4)))

    classifier = Subclassed()
    attack, rule = ATTACKS["step_fgsm"]
    defense = AdversarialTraining(classifier, attack=attack, label_smoothing=0.8)
    defense.compile(keras.optimizers.SGD(RATE))
    classifier(X)
    classifier.set_weights([W])
    logs = step(defense)
    x_adv = craft(W.astype(np.float64), smoothing=0.8, **rule)
    loss = (term(W, flat(X), 0.8)[0] + term(W, x_adv, 0.8)[0]) / 2
    assert logs["loss"] == pytest.approx(loss, abs=1e-6)


@pytest.mark.parametrize("alpha", [-0.1, 1.0])
def test_alpha_outside_its_range(alpha):
    with pytest.raises(ValueError, match=rf"`alpha`.*received {alpha}.*'standard'"):
        make(attack=attacks.StepFGSM(eps=EPS), alpha=alpha)
