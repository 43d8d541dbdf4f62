"""One step against softmax regression in closed form, x_adv included."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfadv import attacks
from tfadv.defenses import AdversarialTraining

RATE, CLASSES, EPS = 0.5, 3, 0.1
RANDOM = np.random.default_rng(0)
W = RANDOM.normal(size=(4, CLASSES)).astype(np.float32)
X = RANDOM.uniform(size=(6, 2, 2, 1)).astype(np.float32)
Y = RANDOM.integers(0, CLASSES, 6).astype(np.int32)


def make(attack, *, weight_decay=0.0, metrics=None, layers=(), **options):
    """Logits x w without bias, and SGD without momentum."""
    kernel = keras.layers.Dense(
        CLASSES,
        use_bias=False,
        kernel_regularizer=keras.regularizers.L2(weight_decay / 2),
    )
    classifier = keras.Sequential(
        [keras.Input((2, 2, 1)), *layers, keras.layers.Flatten(), kernel]
    )
    kernel.set_weights([W])
    defense = AdversarialTraining(classifier, attack=attack, **options)
    defense.compile(keras.optimizers.SGD(RATE), metrics=metrics)
    return defense


def softmax(z):
    p = np.exp(z)
    return p / p.sum(1, keepdims=True)


def craft(w, *, steps=1, step_size=EPS):
    """Sign steps: with logits x w the gradient of J(x, y) in x is (p - onehot) w^T."""
    x = X.reshape(6, 4).astype(np.float64)
    low, high = np.maximum(x - EPS, 0), np.minimum(x + EPS, 1)
    z = x
    for _ in range(steps):
        gradient = (softmax(z @ w) - np.eye(CLASSES)[Y]) @ w.T
        z = np.clip(z + step_size * np.sign(gradient), low, high)
    return z


def term(w, x, smoothing):
    """mean J over the rows of x and its gradient in w, x^T (p - q) / n."""
    p = softmax(x @ w)
    q = (1 - smoothing) * np.eye(CLASSES)[Y] + smoothing / CLASSES
    return -(q * np.log(p)).sum(1).mean(), x.T @ (p - q) / len(x)


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
@pytest.mark.parametrize(("weight_decay", "smoothing"), [(0.0, 0.0), (0.1, 0.3)])
def test_one_step(name, alpha, weight_decay, smoothing):
    attack, rule = ATTACKS[name]
    defense = make(
        attack, alpha=alpha, weight_decay=weight_decay, label_smoothing=smoothing
    )
    logs = defense.train_step((tf.constant(X), tf.constant(Y)))

    w, x = W.astype(np.float64), X.reshape(6, 4)
    x_adv = craft(w, **rule)
    clean_loss, clean_gradient = term(w, x, smoothing)
    adversarial_loss, adversarial_gradient = term(w, x_adv, smoothing)
    gradient = alpha * clean_gradient + (1 - alpha) * adversarial_gradient
    expected = w - RATE * (gradient + weight_decay * w)
    np.testing.assert_allclose(defense.classifier.get_weights()[0], expected, atol=1e-6)

    loss = alpha * clean_loss + (1 - alpha) * adversarial_loss
    loss += weight_decay / 2 * (w**2).sum()
    assert float(logs["loss"]) == pytest.approx(loss, abs=1e-6)
    robust = np.mean((x_adv @ w).argmax(1) == Y)
    assert float(logs["adversarial_accuracy"]) == pytest.approx(robust)
    # Clean images are seen, hence counted, only where alpha is not 0.
    accuracy = np.mean((x @ w).argmax(1) == Y) if alpha else float("nan")
    assert float(logs["accuracy"]) == pytest.approx(accuracy, nan_ok=True)


@pytest.mark.parametrize(
    ("alpha", "same_as"), [(0.6, "accuracy"), (0.0, "adversarial_accuracy")]
)
def test_metrics_given_to_compile(alpha, same_as):
    """They count clean images; of alpha = 0, which trains on none, the adversarial."""
    attack, _ = ATTACKS["step_fgsm"]
    defense = make(attack, alpha=alpha, metrics=["sparse_categorical_accuracy"])
    history = defense.fit(X, Y, epochs=2, validation_data=(X, Y), verbose=0).history
    assert history["sparse_categorical_accuracy"] == history[same_as]
    assert history["val_sparse_categorical_accuracy"] == history["val_accuracy"]


def test_a_short_last_batch():
    """Batches of 4 and 2: two steps, the second under the weights of the first."""
    attack, _ = ATTACKS["pgd"]
    one, two = make(attack), make(attack)
    one.fit(X, Y, batch_size=4, shuffle=False, verbose=0)
    for part in (slice(4), slice(4, 6)):
        two.train_step((tf.constant(X[part]), tf.constant(Y[part])))
    np.testing.assert_allclose(
        one.classifier.get_weights()[0], two.classifier.get_weights()[0], atol=1e-6
    )


@pytest.mark.parametrize("alpha", [0.6, 0.0])
def test_clean_and_adversarial_images_share_batch_statistics(alpha):
    """The moving mean goes half way from 0 to the mean of the images trained on.

    Crafting sees the moving statistics, 0 and 1: the normalisation is x / sqrt(1 + e).
    """
    normalize = keras.layers.BatchNormalization(momentum=0.5, epsilon=1e-3)
    attack, _ = ATTACKS["step_fgsm"]
    defense = make(attack, alpha=alpha, layers=[normalize])
    defense.train_step((tf.constant(X), tf.constant(Y)))
    x_adv = craft(W.astype(np.float64) / np.sqrt(1.001))
    seen = np.concatenate([X.ravel(), x_adv.ravel()]) if alpha else x_adv
    np.testing.assert_allclose(normalize.moving_mean, [seen.mean() / 2], atol=1e-6)


@pytest.mark.parametrize("alpha", [-0.1, 1.0])
def test_alpha_outside_its_range(alpha):
    with pytest.raises(ValueError, match=rf"`alpha`.*received {alpha}.*'standard'"):
        make(attacks.StepFGSM(eps=EPS), alpha=alpha)
