"""Steps of Algorithm 1 against softmax regression in closed form."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfadv import attacks
from tfadv.attacks import eps_laws
from tfadv.defenses import Kurakin

RATE, CLASSES, EPS = 0.5, 3, 0.2
RANDOM = np.random.default_rng(0)
W = RANDOM.normal(size=(4, CLASSES)).astype(np.float32)
X = RANDOM.uniform(size=(6, 2, 2, 1)).astype(np.float32)
Y = RANDOM.integers(0, CLASSES, 6).astype(np.int32)
ATTACKS = {
    "step_ll": attacks.StepLL(eps=EPS),
    "step_fgsm": attacks.StepFGSM(eps=EPS),
}


def make(name="step_ll", *, weight_decay=0.0, layers=(), run_eagerly=False, **options):
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
    defense = Kurakin(classifier, attack=ATTACKS[name], **options)
    defense.compile(keras.optimizers.SGD(RATE), run_eagerly=run_eagerly)
    return defense


def step(defense, x=X, y=Y):
    logs = defense.train_step((tf.constant(x), tf.constant(y)))
    return {name: float(value) for name, value in logs.items()}


def weights(defense):
    return defense.classifier.get_weights()[0]


def softmax(z):
    p = np.exp(z)
    return p / p.sum(1, keepdims=True)


def craft(name, w, x, y, eps):
    """One step along the sign of dJ/dx = (p - onehot) w^T, eps [k, 1] per image.

    step_fgsm goes up for the true label, step_ll down for the least likely one.
    """
    z = x @ w
    label, way = (y, 1) if name == "step_fgsm" else (z.argmin(1), -1)
    gradient = (softmax(z) - np.eye(CLASSES)[label]) @ w.T
    return np.clip(x + way * eps * np.sign(gradient), 0, 1)


def by_hand(name, w, *, k, eps, weight=0.3, weight_decay=0.0, smoothing=0.0, x=X, y=Y):
    """(loss, new w, (clean, adversarial) accuracy) of one step.

    The loss is sum_i c_i J_i / sum_i c_i, c = lambda for the first k images and 1 for
    the others, whose denominator is (m - k) + lambda k; dJ/dw = x^T (p - q).
    """
    w, x = w.astype(np.float64), x.reshape(len(x), -1).astype(np.float64)
    x_adv = craft(name, w, x[:k], y[:k], eps)
    x = np.concatenate([x_adv, x[k:]])
    c = np.array([weight] * k + [1.0] * (len(x) - k)) / (len(x) - k + weight * k)
    p = softmax(x @ w)
    q = (1 - smoothing) * np.eye(CLASSES)[y] + smoothing / CLASSES
    loss = c @ -(q * np.log(p)).sum(1) + weight_decay / 2 * (w**2).sum()
    gradient = x.T @ (c[:, None] * (p - q)) + weight_decay * w
    right = p.argmax(1) == y
    rates = [part.mean() if part.size else np.nan for part in (right[k:], right[:k])]
    return loss, w - RATE * gradient, rates


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("k", [None, 2, 6])
@pytest.mark.parametrize(
    ("weight_decay", "smoothing", "weight"), [(0.0, 0.0, 0.3), (0.1, 0.3, 2.0)]
)
def test_one_step(name, k, weight_decay, smoothing, weight):
    defense = make(
        name,
        k=k,
        weight_decay=weight_decay,
        label_smoothing=smoothing,
        adversarial_weight=weight,
        eps_law="constant",
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


@pytest.mark.parametrize("law", ["truncated", "clipped", "uniform"])
def test_every_adversarial_image_has_an_eps_of_its_own_in_every_step(law):
    defense, w, drawn = make(eps_law=law, k=4, seed=7), W, []
    for _ in range(2):
        eps = eps_laws.draw(law, EPS, 4, defense.step_seed(1)).numpy()
        np.testing.assert_array_equal(defense.draw_eps(4), eps)
        _, w, _ = by_hand("step_ll", w, k=4, eps=eps.reshape(4, 1))
        step(defense)
        np.testing.assert_allclose(weights(defense), w, atol=1e-6)
        drawn.append(eps.ravel())
    assert len(np.unique(drawn)) == 8
    assert np.max(drawn) <= EPS


def test_the_run_seed_decides_the_sizes():
    sizes = [make(seed=seed).draw_eps(4).numpy().tolist() for seed in (1, 1, 2)]
    assert sizes[0] == sizes[1] != sizes[2]


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_steps_of_the_delay_are_clean_and_unweighted(run_eagerly):
    """Two clean steps, c = 1 / m for all; the third is adversarial."""
    defense, w = make(delay=2, eps_law="constant", run_eagerly=run_eagerly), W
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
    defense, w = make(k=k, eps_law="constant"), W
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
    defense = make(k=2, eps_law="constant", layers=[normalize])
    step(defense)
    x = X.reshape(6, 4).astype(np.float64)
    x[:2] = craft("step_ll", W / np.sqrt(1.001), x[:2], Y[:2], EPS)
    np.testing.assert_allclose(normalize.moving_mean, [x.mean() / 2], atol=1e-6)


@pytest.mark.parametrize(
    ("k", "batch_size", "replicas", "each"),
    [(None, 128, 1, 64), (None, 128, 2, 32), (6, 8, 2, 3), (8, 8, 2, 4)],
)
def test_check_batch_gives_the_share_of_a_replica(k, batch_size, replicas, each):
    assert make(k=k).check_batch(batch_size, replicas) == each


@pytest.mark.parametrize(
    ("k", "batch_size", "replicas", "message"),
    [
        (9, 8, 1, "`k` must be at most the batch size 8; received 9"),
        (3, 8, 2, "`k` must be a multiple of the 2 replicas; received 3"),
        (None, 6, 2, "`k` must be a multiple of the 2 replicas; received 3"),
        (2, 7, 2, "batch size must be a multiple of the 2 replicas; received 7"),
    ],
)
def test_check_batch_rejects_what_does_not_fit(k, batch_size, replicas, message):
    with pytest.raises(ValueError, match=message):
        make(k=k).check_batch(batch_size, replicas)


def test_k_beyond_the_batch_is_an_error_of_the_step():
    with pytest.raises(ValueError, match="at most the batch size 6; received 7"):
        step(make(k=7))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("k", 0),
        ("k", -1),
        ("adversarial_weight", -0.1),
        ("delay", -1),
        ("eps_law", "truncate"),
    ],
)
def test_rejected_options(option, value):
    with pytest.raises(ValueError, match=f"{value}"):
        make(**{option: value})
