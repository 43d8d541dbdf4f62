import logging
import re
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfadv import attacks
from tfadv.defenses import Kurakin, Standard, UnifiedEmbedding
from tfadv.errors import RunError
from tfadv.training import Checkpoints, start_from, train


def make(value=0.0, *, width=3, metrics=None, factory=Standard, rate=0.1):
    """A defence of a linear classifier whose weights all equal `value`."""
    classifier = keras.Sequential(
        [
            keras.Input((2, 2, 1)),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(width),
        ]
    )
    defense = factory(classifier)
    defense.compile(keras.optimizers.SGD(rate, momentum=0.9), metrics=metrics)
    defense.build((None, 2, 2, 1))
    defense.optimizer.build(classifier.trainable_variables)
    fill(defense, value)
    return defense


def fill(defense, value):
    for variable in defense.classifier.trainable_variables:
        variable.assign(tf.fill(variable.shape, float(value)))


def weight(defense):
    """The value that all weights have."""
    (value,) = np.unique([w.numpy().flat[0] for w in defense.trainable_variables])
    return value


def save(directory, steps, keep=3):
    """Checkpoints of `steps`, whose weights equal their step."""
    defense = make()
    checkpoints = Checkpoints(directory, defense, keep=keep)
    for step in steps:
        fill(defense, step)
        checkpoints.save(step)


def damage(path, how):
    data = path.read_bytes()
    if how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "flipped":
        middle = len(data) // 2
        path.write_bytes(
            data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]
        )
    else:
        path.unlink()


def test_without_checkpoints_nothing_is_restored(tmp_path):
    defense = make(value=7.0)
    assert Checkpoints(tmp_path / "none" / "yet", defense).restore() is False
    assert weight(defense) == 7.0


def test_the_newest_of_several_is_restored(tmp_path):
    save(tmp_path, [1, 2, 10])
    defense = make()
    assert Checkpoints(tmp_path, defense).restore() is True
    assert weight(defense) == 10


@pytest.mark.parametrize(
    ("keep", "kept"), [(1, [5]), (2, [4, 5]), (9, [1, 2, 3, 4, 5])]
)
def test_keep_says_how_many_stay(keep, kept, tmp_path):
    save(tmp_path, [1, 2, 3, 4, 5], keep=keep)
    found = sorted(tmp_path.glob("*.index")), sorted(tmp_path.glob("*.data*"))
    for paths in found:
        assert [path.name.split(".")[0] for path in paths] == [
            f"ckpt-{n}" for n in kept
        ]


def test_a_checkpoint_holds_all_state_of_a_run(tmp_path):
    """Weights, momentum, step, metrics in mid-epoch and dropout's seed."""

    def state(defense):
        owned = [*defense.variables, *defense.optimizer.variables]
        return [v.numpy() for v in [*owned, *defense.metrics_variables]]

    x = np.random.default_rng(0).uniform(size=(6, 2, 2, 1)).astype(np.float32)
    first, second = make(value=1.0), make(value=2.0)
    first.fit(x, np.arange(6) % 3, batch_size=2, verbose=0)
    before = state(second)
    Checkpoints(tmp_path, first).save(3)
    Checkpoints(tmp_path, second).restore()
    assert int(second.optimizer.iterations) == 3
    for old, saved, restored in zip(before, state(first), state(second), strict=True):
        np.testing.assert_array_equal(restored, saved)
        # Only the learning rate, a variable of the optimizer, is as it was.
        assert saved.ndim == 0 or not np.array_equal(old, saved)


def test_metrics_given_to_compile_survive_a_stop_in_mid_epoch(tmp_path):
    """Two of four steps, then the rest from the checkpoint: the metrics of all four."""
    x = np.random.default_rng(0).uniform(size=(8, 2, 2, 1)).astype(np.float32)
    data = tf.data.Dataset.from_tensor_slices((x, np.arange(8) % 3)).batch(2)

    def run(directory, steps):
        keras.utils.set_random_seed(0)
        defense = make(value=1.0, metrics=["sparse_categorical_accuracy"])
        checkpoints = Checkpoints(directory, defense)
        run = {"steps": steps, "steps_per_epoch": 4, "checkpoints": checkpoints}
        return train(defense, lambda start: data.skip(start), **run)

    whole = run(tmp_path / "whole", 4)
    run(tmp_path / "parts", 2)
    assert run(tmp_path / "parts", 4) == whole
    assert whole["sparse_categorical_accuracy"] == whole["accuracy"]


@pytest.mark.parametrize("how", ["truncated", "empty", "flipped", "missing"])
@pytest.mark.parametrize("part", ["index", "data-00000-of-00001"])
def test_a_damaged_newest_gives_way_to_the_one_before(how, part, tmp_path, caplog):
    save(tmp_path, [1, 2, 3])
    damage(tmp_path / f"ckpt-3.{part}", how)
    defense = make()
    with caplog.at_level(logging.WARNING, logger="absl"):
        assert Checkpoints(tmp_path, defense).restore() is True
    assert weight(defense) == 2
    (record,) = [r for r in caplog.records if r.name == "absl"]
    assert record.levelno == logging.WARNING
    assert f"{tmp_path}/ckpt-3 cannot be read" in record.getMessage()


def test_training_replaces_a_damaged_newest(tmp_path):
    save(tmp_path, [1, 2, 3])
    damage(tmp_path / "ckpt-3.index", "truncated")
    defense = make()
    checkpoints = Checkpoints(tmp_path, defense)
    checkpoints.restore()
    fill(defense, 33)
    checkpoints.save(3)
    again = make()
    Checkpoints(tmp_path, again).restore()
    assert weight(again) == 33


def test_all_damaged_is_an_error_that_names_them(tmp_path):
    save(tmp_path, [1, 2])
    for path in tmp_path.glob("*.data*"):
        damage(path, "truncated")
    with pytest.raises(RunError, match=r"\(ckpt-2, ckpt-1\)\. Delete that folder"):
        Checkpoints(tmp_path, make()).restore()


def test_checkpoints_of_another_network_are_an_error(tmp_path):
    save(tmp_path, [1])
    with pytest.raises(RunError, match=r"none of the checkpoints.*\(ckpt-1\)"):
        Checkpoints(tmp_path, make(width=4)).restore()


@pytest.mark.parametrize(
    "error",
    [
        tf.errors.ResourceExhaustedError(None, None, "no space left\non device"),
        OSError(28, "no space left"),
    ],
)
def test_a_full_disk_is_an_error_that_keeps_the_earlier_ones(
    error, tmp_path, monkeypatch
):
    save(tmp_path, [1])
    defense = make()
    checkpoints = Checkpoints(tmp_path, defense)

    def fail(*args, **kwargs):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(tf.train.CheckpointManager, "save", fail)
        message = f"checkpoint of step 2 in {tmp_path}: .*no space left.*are intact"
        with pytest.raises(RunError, match=message):
            checkpoints.save(2)
    assert checkpoints.restore() is True
    assert weight(defense) == 1


def test_a_directory_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(RunError, match="cannot write the checkpoint of step 1"):
        Checkpoints(tmp_path / "file" / "checkpoints", make()).save(1)


# Another run's end as the begin of this one.


def unified(classifier):
    return UnifiedEmbedding(classifier, attack=attacks.StepLL(eps=0.1), mode="pivot")


@pytest.fixture
def origin(tmp_path):
    """(defence after three steps, the directory of its checkpoints)."""
    defense = make(value=1.0)
    x = np.random.default_rng(0).uniform(size=(6, 2, 2, 1)).astype(np.float32)
    defense.fit(x, np.arange(6) % 3, batch_size=2, verbose=0)
    Checkpoints(tmp_path / "origin", defense).save(3)
    return defense, tmp_path / "origin"


def common(defense):
    """What start_from takes."""
    owned = [*defense.classifier.trainable_variables, *defense.optimizer.variables]
    return [v.numpy() for v in owned]


@pytest.mark.parametrize("factory", [Standard, unified])
def test_start_from_takes_classifier_optimizer_and_step(origin, factory):
    first, directory = origin
    defense = make(value=2.0, factory=factory)
    before = common(defense)
    assert start_from(defense, directory) == 3
    assert int(defense.optimizer.iterations) == 3
    for old, given, taken in zip(before, common(first), common(defense), strict=True):
        np.testing.assert_array_equal(taken, given)
        # Weights and momenta; the step and the learning rate are scalars.
        assert given.ndim == 0 or not np.array_equal(old, given)
    # What was counted stays behind.
    assert np.isnan(defense.get_metrics_result()["accuracy"])


def test_start_from_takes_batch_statistics(tmp_path):
    def normalized(mean):
        normalize = keras.layers.BatchNormalization()
        flatten, dense = keras.layers.Flatten(), keras.layers.Dense(3)
        layers = [keras.Input((2, 2, 1)), normalize, flatten, dense]
        defense = Standard(keras.Sequential(layers))
        defense.compile("sgd")
        defense.build((None, 2, 2, 1))
        defense.optimizer.build(defense.classifier.trainable_variables)
        normalize.moving_mean.assign([mean])
        return defense, normalize.moving_mean

    Checkpoints(tmp_path, normalized(3.0)[0]).save(1)
    defense, mean = normalized(0.0)
    start_from(defense, tmp_path)
    np.testing.assert_array_equal(mean, [3])


def with_head(value=0.0, **options):
    """A defence of a small network with an auxiliary head; all weights are `value`."""
    x = keras.Input((8, 8, 1))
    maps = keras.layers.Conv2D(2, 3, padding="same", name="maps")(x)
    logits = keras.layers.Dense(3)(keras.layers.Flatten()(maps))
    attack = attacks.StepLL(eps=0.1)
    options = {"auxiliary_layer": "maps", "auxiliary_width": 0.01} | options
    defense = Kurakin(keras.Model(x, logits), attack=attack, **options)
    defense.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    defense.build((None, 8, 8, 1))
    defense.optimizer.build(defense.trained_variables)
    for variable in defense.trained_variables:
        variable.assign(tf.fill(variable.shape, float(value)))
    return defense


def test_start_from_takes_the_auxiliary_head(tmp_path):
    first = with_head(3.0)
    Checkpoints(tmp_path, first).save(1)
    defense = with_head(1.0)
    start_from(defense, tmp_path)
    assert len(defense.auxiliary.trainable_weights) > 2
    for variable in defense.trained_variables:
        np.testing.assert_array_equal(variable, np.full(variable.shape, 3.0))


def test_start_from_a_run_without_the_head(tmp_path):
    Checkpoints(tmp_path, with_head(3.0, auxiliary_layer=None)).save(1)
    assert "cannot start from the checkpoint" in failure(with_head(), tmp_path)


def test_start_from_keeps_the_learning_rate_of_this_run(origin):
    """A setting of the new run, though a variable of the optimizer."""
    defense = make(rate=0.025)
    start_from(defense, origin[1])
    assert float(defense.optimizer.learning_rate) == np.float32(0.025)


def test_start_from_takes_the_newest(tmp_path):
    save(tmp_path, [1, 2, 10])
    defense = make(value=7.0)
    start_from(defense, tmp_path)
    assert weight(defense) == 10


def failure(defense, directory):
    """The message of the `RunError`, which is one line."""
    with pytest.raises(RunError) as caught:
        start_from(defense, directory)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_start_from_nothing(tmp_path):
    for directory in (tmp_path, tmp_path / "absent"):
        message = failure(make(), directory)
        assert message == f"no checkpoint to start from in {directory}"


@pytest.mark.parametrize("other", [{"width": 4}, {"width": 1}])
def test_start_from_another_network(origin, other):
    message = failure(make(**other), origin[1])
    assert f"cannot start from the checkpoint {origin[1]}/ckpt-3: " in message


def test_start_from_a_network_of_fewer_layers(origin):
    classifier = keras.Sequential(
        [
            keras.Input((2, 2, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
            keras.layers.Dense(3),
        ]
    )
    defense = Standard(classifier)
    defense.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    defense.build((None, 2, 2, 1))
    defense.optimizer.build(classifier.trainable_variables)
    assert "cannot start from the checkpoint" in failure(defense, origin[1])


@pytest.mark.parametrize("how", ["truncated", "empty", "missing"])
@pytest.mark.parametrize("part", ["index", "data-00000-of-00001"])
def test_start_from_a_damaged_checkpoint(origin, how, part):
    damage(origin[1] / f"ckpt-3.{part}", how)
    message = failure(make(), origin[1])
    assert str(origin[1]) in message


# What goes with them.


def counted(value):
    return tf.train.Checkpoint(value=tf.Variable(float(value)))


def test_older_checkpoints_may_lack_a_state_that_is_optional(tmp_path):
    save(tmp_path, [1, 2])
    state, defense = counted(5), make()
    options = {"states": {"new": state}, "optional": ("new",)}
    assert Checkpoints(tmp_path, defense, **options).restore() is True
    assert (weight(defense), float(state.value)) == (2, 5)
    # Once it is written it is read.
    state.value.assign(6)
    Checkpoints(tmp_path, defense, **options).save(3)
    state.value.assign(7)
    assert Checkpoints(tmp_path, defense, **options).restore() is True
    assert float(state.value) == 6


def test_a_state_that_is_not_optional_must_be_there(tmp_path):
    save(tmp_path, [1])
    with pytest.raises(RunError, match="none of the checkpoints"):
        Checkpoints(tmp_path, make(), states={"new": counted(5)}).restore()


def test_whoever_asks_is_told_when_one_is_written(tmp_path):
    steps = []
    checkpoints = Checkpoints(
        tmp_path, make(), on_save=lambda: steps.append(checkpoints.newest)
    )
    assert checkpoints.newest is None
    checkpoints.save(3)
    checkpoints.save(7)
    assert steps == [3, 7]


def test_a_newest_that_is_gone_altogether_gives_way(tmp_path, caplog):
    """Both of its files, as where a disk was cleaned."""
    save(tmp_path, [1, 2, 3])
    for path in tmp_path.glob("ckpt-3.*"):
        path.unlink()
    defense = make()
    with caplog.at_level(logging.WARNING, logger="absl"):
        assert Checkpoints(tmp_path, defense).restore() is True
    assert weight(defense) == 2
    assert f"{tmp_path}/ckpt-3 cannot be read" in caplog.text


def test_a_clock_that_was_set_back_loses_none(tmp_path):
    save(tmp_path, [1, 2])
    state = tmp_path / "checkpoint"
    before = state.read_text()
    later = f"last_preserved_timestamp: {time.time() + 1e6}"
    state.write_text(re.sub("last_preserved_timestamp: .*", later, before))
    assert state.read_text() != before
    defense = make()
    assert Checkpoints(tmp_path, defense).restore() is True
    assert weight(defense) == 2
