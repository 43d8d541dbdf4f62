import math
import runpy

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfadv import attacks, defenses
from tfadv.defenses import Defense, Kurakin, Standard, base
from tfadv.errors import UsageError

# Logits [0, 3 a - 4 b] of images (a, b): -> class 1, 0, 0 with z = 3, -4, -0.5.
X = np.array([[1, 0], [0, 1], [0.5, 0.5]], np.float32).reshape(3, 1, 2, 1)
Y = np.array([1, 1, 0], np.int32)
KERNEL = np.array([[0, 3], [0, -4]], np.float32)
# log(1 + e^-z) for y = 1, log(1 + e^z) for y = 0.
LOSS = np.mean([math.log1p(math.exp(z)) for z in (-3, 4, -0.5)])


def make(factory=Standard, *, metrics=None, learning_rate=0.0, **options):
    classifier = keras.Sequential(
        [
            keras.Input((1, 2, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(2, use_bias=False),
        ]
    )
    classifier.set_weights([KERNEL])
    defense = factory(classifier, **options)
    defense.compile(keras.optimizers.SGD(learning_rate), metrics=metrics)
    return defense


def rows(n):
    """n images and labels, none of them special."""
    random = np.random.default_rng(0)
    x = random.uniform(size=(n, 1, 2, 1)).astype(np.float32)
    return x, random.integers(0, 2, n)


def test_metrics_of_training_by_hand():
    defense = make()
    logs = defense.fit(X, Y, batch_size=3, verbose=0).history
    assert logs["accuracy"] == pytest.approx([2 / 3])
    assert logs["loss"] == pytest.approx([LOSS], abs=1e-6)
    assert set(logs) == {"accuracy", "loss"}


@pytest.mark.parametrize("batch_size", [3, 2, 1])
def test_evaluate_by_hand_whatever_the_batch_size(batch_size):
    """Label smoothing is for training; step_fgsm of 1/4 moves y = 1 by (-1, 1) / 4.

    (1, 0) -> (3/4, 1/4), z = 1.25, still class 1;  (0, 1) is clipped to itself, wrong;
    (1/2, 1/2) -> (3/4, 1/4), now class 1, wrong.
    """
    defense = make(attack=attacks.StepFGSM(eps=0.25), label_smoothing=0.3)
    logs = defense.evaluate(X, Y, batch_size=batch_size, verbose=0, return_dict=True)
    expected = {"accuracy": 2 / 3, "adversarial_accuracy": 1 / 3, "loss": LOSS}
    assert logs == pytest.approx(expected, abs=1e-6)


def test_evaluate_measures_no_attack_where_there_is_none():
    logs = make().evaluate(X, Y, verbose=0, return_dict=True)
    assert logs == pytest.approx({"accuracy": 2 / 3, "loss": LOSS}, abs=1e-6)


def test_metrics_are_nan_while_nothing_was_counted():
    defense = make(attack=attacks.StepFGSM(eps=0.25))
    defense.evaluate(X, Y, verbose=0)
    defense.reset_metrics()
    logs = defense.get_metrics_result()
    assert np.isnan(logs["accuracy"])
    assert np.isnan(logs["adversarial_accuracy"])


def test_metrics_given_to_compile_count_clean_images():
    defense = make(metrics=["sparse_categorical_accuracy"])
    logs = defense.fit(X, Y, batch_size=3, verbose=0, validation_data=(X[:2], Y[:2]))
    assert logs.history["sparse_categorical_accuracy"] == pytest.approx([2 / 3])
    assert logs.history["val_sparse_categorical_accuracy"] == pytest.approx([1 / 2])
    assert logs.history["val_accuracy"] == pytest.approx([1 / 2])


def test_a_keras_model_on_arrays_with_a_short_last_batch():
    x, y = rows(10)
    defense = make(Kurakin, attack=attacks.StepLL(eps=16 / 255), learning_rate=0.1)
    history = defense.fit(x, y, batch_size=4, epochs=2, validation_data=(x, y)).history
    names = {"accuracy", "adversarial_accuracy", "loss"}
    assert set(history) == names | {f"val_{name}" for name in names}
    assert np.isfinite(list(history.values())).all()
    assert not np.array_equal(defense.classifier.get_weights()[0], KERNEL)

    logs = defense.evaluate(x, y, batch_size=4, return_dict=True, verbose=0)
    logits = defense.predict(x, batch_size=4, verbose=0)
    assert logits.shape == (10, 2)
    np.testing.assert_array_equal(logits, defense.classifier.predict(x, verbose=0))
    assert logs["accuracy"] == pytest.approx(np.mean(logits.argmax(1) == y))


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
@pytest.mark.parametrize("dtype", ["int32", "int64", "float32"])
def test_unpack_gives_float_images_and_flat_integer_labels(shape, dtype):
    labels = tf.constant(Y.reshape(shape), dtype)
    x, y = make().unpack((tf.constant(X, tf.float64), labels))
    assert (x.dtype, y.dtype) == (tf.float32, tf.int32)
    np.testing.assert_array_equal(y, Y)


REJECTED = [
    ({"y": np.eye(2)[Y]}, r"labels must be integers.*argmax"),
    ({"y": None}, "labels must be integers"),
    ({"x": (X * 255).astype(np.uint8)}, r"floating point.*uint8.*divide by 255"),
    ({"sample_weight": np.ones(3)}, "Standard weighs examples itself"),
]


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        *[("fit", *case) for case in REJECTED],
        *[("evaluate", *case) for case in REJECTED],
        ("fit", {"class_weight": {0: 1.0, 1: 2.0}}, "Standard weighs examples itself"),
    ],
)
def test_rejected_data(method, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(make(), method)(**{"x": X, "y": Y, "verbose": 0} | arguments)


def test_compile_takes_no_loss():
    with pytest.raises(ValueError, match=r"Standard defines its own loss.*'mse'"):
        make().compile("sgd", loss="mse")


@pytest.mark.parametrize("jit_compile", [False, True])
def test_compile_uses_xla_only_when_asked(jit_compile):
    defense = make()
    assert defense.jit_compile is False
    defense.compile("sgd", jit_compile=jit_compile)
    assert defense.jit_compile is jit_compile


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_label_smoothing_outside_its_range(smoothing):
    with pytest.raises(ValueError, match=f"label_smoothing.*received {smoothing}"):
        make(label_smoothing=smoothing)


def test_replicas_take_equal_shares_of_a_batch():
    make().check_batch(8, replicas=2)
    with pytest.raises(ValueError, match="a multiple of the 2 replicas; received 9"):
        make().check_batch(9, replicas=2)


def test_other_keras_backends_are_refused(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ImportError, match=r"'jax'.*KERAS_BACKEND"):
        runpy.run_path(base.__file__)


def test_lookup_of_a_defence():
    assert defenses.get("kurakin") is Kurakin
    with pytest.raises(UsageError, match="did you mean 'kurakin'"):
        defenses.get("kurakn")


@pytest.mark.parametrize(
    "attack", [attacks.StepLL(eps=0.1), attacks.PGD(eps=0.1, steps=2)]
)
def test_crafting_and_evaluating_change_no_variable_of_the_classifier(attack):
    classifier = keras.Sequential(
        [
            keras.Input((1, 2, 1)),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(2),
        ]
    )
    defense = Standard(classifier, attack=attack)
    defense.compile("sgd")
    before = [v.numpy().copy() for v in classifier.variables]
    x_adv = attack(defense.logits, tf.constant(X), tf.constant(Y), seed=1)
    defense.evaluate(X, Y, verbose=0)
    assert not np.array_equal(x_adv, X)
    assert len(before) == 7  # four of BatchNormalization, a seed, kernel and bias
    for old, variable in zip(before, classifier.variables, strict=True):
        np.testing.assert_array_equal(old, variable)


def seeds(defense):
    """Seeds of every (step, purpose, replica) of two each."""
    found = {}
    for step in (0, 1):
        defense.optimizer.iterations.assign(step)
        for purpose in (0, 1):
            for replica in (0, 1):
                seed = defense.step_seed(purpose, replica=replica)
                found[step, purpose, replica] = tuple(seed.numpy())
    return found


def test_step_seeds_differ_by_step_purpose_replica_and_run_and_nothing_else():
    first, again, other = (seeds(make(Defense, seed=s)) for s in (5, 5, 6))
    assert first == again
    assert len({*first.values(), *other.values()}) == 16


def test_step_seed_knows_its_replica(mirrored):
    with mirrored.scope():
        defense = make(Defense)
    found = mirrored.run(lambda: defense.step_seed(0))
    for replica, seed in enumerate(mirrored.experimental_local_results(found)):
        np.testing.assert_array_equal(seed, defense.step_seed(0, replica=replica))
