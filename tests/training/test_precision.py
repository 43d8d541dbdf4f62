import keras
import numpy as np
import pytest
import tensorflow as tf

from tfadv import attacks
from tfadv.defenses import Kurakin
from tfadv.training import Summaries, computing, train
from tfadv.training.precision import as_outside

SHAPE = (4, 4, 1)


def make():
    """Every kind of layer that matters, one of them in a network in the network."""
    inputs = keras.Input(SHAPE)
    x = keras.layers.Rescaling(2.0, -1.0, name="pixels")(inputs)
    inner = keras.Sequential(
        [keras.Input(SHAPE), keras.layers.Conv2D(2, 3, name="conv")], name="inner"
    )
    x = keras.layers.BatchNormalization(name="bn")(inner(x))
    x = keras.layers.Flatten(name="flat")(x)
    logits = keras.layers.Dense(3, name="embedding")(x)
    defense = Kurakin(keras.Model(inputs, logits), attack=attacks.StepLL(eps=0.1))
    defense.compile(keras.optimizers.SGD(0.1))
    defense.build((None, *SHAPE))
    return defense


def layers(defense):
    names = ("pixels", "bn", "flat", "embedding")
    found = {name: defense.classifier.get_layer(name) for name in names}
    return found | {"conv": defense.classifier.get_layer("inner").layers[0]}


def computed_in(defense):
    return {name: layer.compute_dtype for name, layer in layers(defense).items()}


ALL_FLOAT32 = dict.fromkeys(("pixels", "bn", "flat", "embedding", "conv"), "float32")
MIXED = ALL_FLOAT32 | dict.fromkeys(("bn", "flat", "conv"), "bfloat16")


def test_pixels_and_logits_stay_float32():
    defense = make()
    with computing(defense, precision="mixed_bfloat16"):
        assert computed_in(defense) == MIXED
        weights = {v.dtype for v in defense.classifier.weights}
        assert weights == {"float32"}
    assert computed_in(defense) == ALL_FLOAT32


def test_float32_changes_nothing():
    defense = make()
    with computing(defense, precision="float32"):
        assert computed_in(defense) == ALL_FLOAT32


def test_a_failure_takes_it_back():
    defense = make()
    with (
        pytest.raises(ZeroDivisionError),
        computing(defense, precision="mixed_bfloat16"),
    ):
        raise ZeroDivisionError
    assert computed_in(defense) == ALL_FLOAT32


def test_as_outside_within(mirrored):
    with mirrored.scope():
        defense = make()
    statistics = layers(defense)["bn"]
    with computing(defense, precision="mixed_bfloat16", sync_bn=True):
        with as_outside(defense):
            assert computed_in(defense) == ALL_FLOAT32
            assert statistics.synchronized is False
        assert computed_in(defense) == MIXED
        assert statistics.synchronized is True


def test_what_a_layer_computes():
    """1 + 2^-9 is 1 in bfloat16, whose neighbour above 1 is 1 + 2^-7."""
    x = keras.Input((1,))
    y = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones", name="y")(x)
    z = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones", name="z")(y)
    defense = Kurakin(keras.Model(x, z), attack=attacks.StepLL(eps=0.1))
    inputs = tf.constant([[1 + 2.0**-9], [1 + 2.0**-7]])
    np.testing.assert_array_equal(defense.logits(inputs), inputs)
    with computing(defense, precision="mixed_bfloat16"):
        logits = defense.logits(inputs)
    assert logits.dtype == tf.float32
    np.testing.assert_array_equal(logits, [[1], [1 + 2.0**-7]])


def test_an_unknown_precision():
    with (
        pytest.raises(
            ValueError, match=r"one of 'float32', 'mixed_bfloat16'; received"
        ),
        computing(make(), precision="float16"),
    ):
        pass


def test_one_replica_has_nothing_to_synchronise():
    defense = make()
    with computing(defense, sync_bn=True):
        assert layers(defense)["bn"].synchronized is False


def test_replicas_share_statistics_for_the_block(mirrored):
    with mirrored.scope():
        defense = make()
    statistics = layers(defense)["bn"]
    with computing(defense, sync_bn=True):
        assert statistics.synchronized is True
    assert statistics.synchronized is False


def test_accuracy_is_watched_in_float32(tmp_path, monkeypatch):
    """The step computes in bfloat16, what is measured after it in float32."""
    defense, seen = make(), []
    logits, step = defense.logits, defense.train_step

    def noted_logits(x):
        seen.append(("logits", layers(defense)["conv"].compute_dtype))
        return logits(x)

    def noted_step(data):
        seen.append(("step", layers(defense)["conv"].compute_dtype))
        return step(data)

    monkeypatch.setattr(Summaries, "_attacked", lambda self, attack, x, y: x)
    x, y = tf.zeros([2, *SHAPE]), tf.constant([0, 1])
    shown = Summaries(
        tmp_path,
        watched=("holdout", x, y),
        attacks={},
        summary_every=1,
        validate_every=1,
        seed=0,
    )
    object.__setattr__(defense, "train_step", noted_step)
    shown.set_model(defense)
    shown.model.__dict__["logits"] = noted_logits
    data = tf.data.Dataset.from_tensors((x, y)).repeat()
    with computing(defense, precision="mixed_bfloat16"):
        train(defense, data.skip, steps=1, steps_per_epoch=1, callbacks=[shown])
    assert ("step", "bfloat16") in seen
    assert seen[-1] == ("logits", "float32")
