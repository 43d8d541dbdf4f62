"""What every defence promises. A new one earns this suite by a row in `TABLE`."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfadv import attacks, defenses
from tfadv.defenses import (
    E2SAD,
    SATM,
    AdversarialNetwork,
    AdversarialTraining,
    Ensemble,
    GeneratorAttack,
    Kurakin,
    Minimax,
    Standard,
    UnifiedEmbedding,
)
from tfadv.training import computing, train

# (classifier, attack) -> defence, without noise that depends on the replica.
TABLE = {
    "standard": lambda c, attack: Standard(c, attack=attack),
    "adversarial": lambda c, attack: AdversarialTraining(c, attack=attack, alpha=0.6),
    "adversarial_network": lambda c, attack: AdversarialNetwork(
        c,
        generator=generator(),
        eps=attack.eps,
        generator_steps=2,
        regularizer="exact",
    ),
    "ensemble": lambda c, attack: Ensemble(c, attack=attack, sources=[source]),
    "generator_attack": lambda c, attack: GeneratorAttack(
        c, generator=generator(), eps=attack.eps
    ),
    "e2sad": lambda c, attack: E2SAD(c, attack=attack, eps2=attack.eps / 3),
    "minimax": lambda c, attack: Minimax(c, attack=attack),
    "satm": lambda c, attack: SATM(
        c, attack=attack, partners=[partner()], domain_weights=(0.0,)
    ),
    "kurakin": lambda c, attack: Kurakin(c, attack=attack, eps_law="constant"),
    "unified_embedding": lambda c, attack: UnifiedEmbedding(
        c, attack=attack, eps_law="constant", embedding_weight=0.1
    ),
}
# Training passes of the classifier in a step, where they are not one.
PASSES = {"adversarial_network": 2, "generator_attack": 0}
EVERY = pytest.mark.parametrize("name", TABLE)

SHAPE, CLASSES, N = (4, 4, 1), 3, 8
RANDOM = np.random.default_rng(0)
X = RANDOM.uniform(size=(3 * N, *SHAPE)).astype(np.float32)
Y = RANDOM.integers(0, CLASSES, 3 * N).astype(np.int32)


def source(x):
    """A finished model: x -> logits."""
    return tf.reshape(x, [-1, 16])[:, :CLASSES] ** 2


def generator():
    """A generator of perturbations without batch statistics."""
    image = keras.Input(SHAPE, name="image")
    conv = keras.layers.Conv2D(1, 3, padding="same", activation="tanh")
    return keras.Model(image, conv(image))


def partner():
    """A network of another structure, with weight decay, without batch statistics."""
    decay = keras.regularizers.L2(0.05)
    layers = [
        keras.Input(SHAPE),
        keras.layers.Flatten(),
        keras.layers.Dense(6, activation="tanh", kernel_regularizer=decay),
        keras.layers.Dense(CLASSES),
    ]
    return keras.Sequential(layers)


def normalized():
    """A classifier with every kind of variable but dropout's."""
    return [
        keras.layers.Conv2D(4, 3),
        keras.layers.BatchNormalization(momentum=0.5),
        keras.layers.Activation("tanh"),
        keras.layers.Flatten(),
        keras.layers.Dense(CLASSES),
    ]


def decayed():
    """A classifier without batch statistics, with weight decay."""
    decay = keras.regularizers.L2(0.05)
    return [
        keras.layers.Conv2D(4, 3, activation="tanh", kernel_regularizer=decay),
        keras.layers.Flatten(),
        keras.layers.Dense(CLASSES, kernel_regularizer=decay),
    ]


def make(name, layers, attack=None, *, momentum=0.0, run_eagerly=False):
    """A built defence, with the same weights at every call."""
    keras.utils.set_random_seed(1)
    classifier = keras.Sequential([keras.Input(SHAPE), *layers()])
    defense = TABLE[name](classifier, attack or attacks.StepFGSM(eps=0.05))
    optimizer = keras.optimizers.SGD(0.1, momentum=momentum)
    defense.compile(optimizer, run_eagerly=run_eagerly)
    defense.build((None, *SHAPE))
    optimizer.build(defense.trained_variables)
    return defense


def fit(defense, *, epochs=1):
    return defense.fit(X, Y, batch_size=N, epochs=epochs, shuffle=False, verbose=0)


def test_the_table_covers_every_defence():
    made = {name: type(make(name, decayed)) for name in TABLE}
    assert made == defenses.DEFENSES


@EVERY
def test_training_moves_every_variable_and_lowers_the_loss(name):
    defense = make(name, normalized)
    before = [v.numpy().copy() for v in defense.trained_variables]
    losses = fit(defense, epochs=8).history["loss"]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    moved = [v.numpy() for v in defense.trained_variables]
    assert not any(map(np.array_equal, before, moved))
    assert np.isfinite(np.concatenate([w.ravel() for w in moved])).all()


@EVERY
@pytest.mark.parametrize("method", ["train_step", "test_step"])
def test_every_key_has_a_metric_that_counted(name, method):
    """A key without a metric object would log 0.0; what is uncounted must be NaN."""
    defense = make(name, decayed)
    logs = getattr(defense, method)((tf.constant(X[:N]), tf.constant(Y[:N])))
    metrics = {metric.name: metric for metric in defense.metrics}
    assert logs.keys() == metrics.keys()
    for key, value in logs.items():
        assert float(metrics[key].count) > 0 or np.isnan(value), key
    assert np.isfinite(logs["loss"])


@EVERY
@pytest.mark.parametrize("layers", [normalized, decayed])
def test_eager_and_compiled_steps_agree(name, layers):
    compiled, eager = (make(name, layers, run_eagerly=e) for e in (False, True))
    logs = [fit(defense).history for defense in (compiled, eager)]
    for a, b in zip(compiled.get_weights(), eager.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    for key, values in logs[0].items():
        assert values == pytest.approx(logs[1][key], abs=1e-6, nan_ok=True)


@EVERY
def test_only_the_training_pass_moves_batch_statistics(name):
    """With eps = 0 all images are clean: a pass takes the mean from 0 half way to
    theirs and the variance from 1. Passes of the attack would take them further."""
    statistics = keras.layers.BatchNormalization(momentum=0.5)

    def layers():
        return [statistics, keras.layers.Flatten(), keras.layers.Dense(CLASSES)]

    defense = make(name, layers, attacks.IFGSM(eps=0.0, steps=2))
    defense.fit(X, Y, batch_size=3 * N, verbose=0)
    left = 0.5 ** PASSES.get(name, 1)
    expected = [(1 - left) * X.mean()]
    np.testing.assert_allclose(statistics.moving_mean, expected, atol=1e-6)
    expected = [left + (1 - left) * X.var()]
    np.testing.assert_allclose(statistics.moving_variance, expected, atol=1e-6)


@EVERY
def test_a_step_in_bfloat16_is_that_of_float32_but_for_rounding(name):
    """Of a bfloat16 8 binary digits count, so a number is right to 2^-9, and a step of
    many of them about as well, but for signs of the attack that turn."""
    batch = tf.constant(X[:N]), tf.constant(Y[:N])
    attack = attacks.StepFGSM(eps=0.01)
    moved, losses = [], []
    for precision in ("float32", "mixed_bfloat16"):
        defense = make(name, normalized, attack)
        begin = [v.numpy() for v in defense.trained_variables]
        with computing(defense, precision=precision):
            step = tf.function(defense.train_step)
            losses.append(float(step(batch)["loss"]))
            assert defense.logits(batch[0]).dtype == tf.float32
        end = [v.numpy() for v in defense.trained_variables]
        assert {w.dtype for w in end} == {np.dtype("float32")}
        steps = zip(begin, end, strict=True)
        moved.append(np.concatenate([(b - a).ravel() for a, b in steps]))
    exact, rounded = moved
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    difference = np.linalg.norm(rounded - exact) / np.linalg.norm(exact)
    assert 1e-5 < difference < 0.15


def batches(order):
    """(start) -> the batches of N from step `start` on, each rearranged by `order`."""
    pairs = tf.data.Dataset.from_tensor_slices((X, Y)).batch(N).repeat()
    pairs = pairs.map(lambda x, y: (tf.gather(x, order), tf.gather(y, order)))
    return lambda start: pairs.skip(start)


WEAK_PGD = attacks.PGD(eps=0.1, steps=3, random_start=False)
# Without synchronised statistics a replica's batch normalisation sees its half alone.
# With them no defence is left out, but those that differentiate twice differ from one
# device with plain statistics. `tf.nn.moments` stops the gradient of the mean in the
# variance: right once, but the second derivative then lacks a share of 1 / (images x
# positions). Synchronised statistics are right twice, so one device is to take those.
TWICE = ("adversarial_network", "minimax")
ON_REPLICAS = pytest.mark.parametrize(
    ("layers", "attack"),
    [
        pytest.param(decayed, WEAK_PGD, marks=pytest.mark.slow),
        (decayed, attacks.StepFGSM(eps=0.05)),
        pytest.param(normalized, WEAK_PGD, marks=pytest.mark.slow),
    ],
)


@EVERY
@ON_REPLICAS
def test_two_replicas_of_a_half_batch_are_one_of_the_whole(
    name, layers, attack, mirrored
):
    """After 20 steps. A replica that treats the first half of its images apart gets
    a, c = [0 1 | 4 5] and [2 3 | 6 7], which are one device's [0 1 2 3 | 4 5 6 7].
    Then k = 4 of the whole batch are the same images as 2 of each half."""
    one = make(name, layers, attack, momentum=0.9)
    if name in TWICE and layers is normalized:
        one.classifier.layers[1].synchronized = True
    with mirrored.scope():
        two = make(name, layers, attack, momentum=0.9)
    steps = {"steps": 20, "steps_per_epoch": 20}
    logs = [train(one, batches([0, 1, 2, 3, 4, 5, 6, 7]), **steps)]
    with computing(two, sync_bn=layers is normalized):
        logs.append(train(two, batches([0, 1, 4, 5, 2, 3, 6, 7]), **steps))
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert logs[1] == pytest.approx(logs[0], abs=1e-5, nan_ok=True)


def test_replicas_that_do_not_share_statistics_are_no_whole(mirrored):
    """The counter-example, by which the test above could fail."""
    one = make("standard", normalized)
    with mirrored.scope():
        two = make("standard", normalized)
    for defense in (one, two):
        train(defense, batches(list(range(N))), steps=2, steps_per_epoch=2)
    pairs = zip(one.get_weights(), two.get_weights(), strict=True)
    assert max(np.abs(a - b).max() for a, b in pairs) > 1e-3
