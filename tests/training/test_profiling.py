import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfadv import attacks
from tfadv.defenses import (
    E2SAD,
    SATM,
    AdversarialNetwork,
    AdversarialTraining,
    GeneratorAttack,
    Kurakin,
    Standard,
)
from tfadv.training import Profile, train
from tfadv.training.profiling import parts, text

SHAPE, CLASSES, N = (4, 4, 1), 3, 4
RANDOM = np.random.default_rng(0)
X = RANDOM.uniform(size=(N, *SHAPE)).astype(np.float32)
Y = RANDOM.integers(0, CLASSES, N).astype(np.int32)
FGSM = attacks.StepFGSM(eps=0.1)


def network(*, normalized=False):
    layers = [keras.Input(SHAPE), keras.layers.Flatten()]
    layers += [keras.layers.BatchNormalization()] if normalized else []
    return keras.Sequential([*layers, keras.layers.Dense(CLASSES)])


def generator():
    image = keras.Input(SHAPE, name="image")
    return keras.Model(image, keras.layers.Conv2D(1, 3, padding="same")(image))


def make(factory, **options):
    keras.utils.set_random_seed(0)
    defense = factory(network(normalized=True), **options)
    defense.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    defense.build((None, *SHAPE))
    return defense


def batches(start=0):
    return tf.data.Dataset.from_tensors((X, Y)).repeat().skip(start)


def profile(tmp_path, steps=2, **options):
    directory = tmp_path / "tensorboard"
    return Profile(
        steps,
        batches_from=batches,
        directory=directory,
        path=tmp_path / "profile.json",
        rounds=1,
        **options,
    )


def test_a_profile_and_the_parts_leave_the_training_as_it_was(tmp_path):
    plain, profiled = (
        make(Kurakin, attack=attacks.PGD(eps=0.1, steps=2)) for _ in range(2)
    )
    steps = {"steps": 7, "steps_per_epoch": 7}
    expected = train(plain, batches, **steps)
    assert train(profiled, batches, callbacks=[profile(tmp_path)], **steps) == expected
    for a, b in zip(plain.variables, profiled.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    momenta = zip(plain.optimizer.variables, profiled.optimizer.variables, strict=True)
    for a, b in momenta:
        np.testing.assert_array_equal(a, b)
    found = json.loads((tmp_path / "profile.json").read_text())
    # Three to warm up, of which the first compiles, then two.
    assert (found["profiled_steps"], found["last_profiled_step"]) == (2, 5)
    seconds = found["seconds"]
    assert list(seconds) == ["step", "input", "crafting", "forward_backward", "update"]
    assert all(0 < value < 60 for value in seconds.values())
    assert "need not sum to the step" in found["how"]
    assert list((tmp_path / "tensorboard").glob("plugins/profile/*/*.xplane.pb"))


def test_a_run_that_ends_early_is_profiled_so_far(tmp_path):
    shown = profile(tmp_path, steps=50)
    train(make(Standard), batches, steps=5, steps_per_epoch=5, callbacks=[shown])
    found = json.loads((tmp_path / "profile.json").read_text())
    assert (found["profiled_steps"], found["last_profiled_step"]) == (2, 5)


def test_a_run_too_short_to_profile(tmp_path):
    shown = profile(tmp_path)
    train(make(Standard), batches, steps=2, steps_per_epoch=2, callbacks=[shown])
    assert not (tmp_path / "profile.json").exists()


def test_no_steps(tmp_path):
    with pytest.raises(ValueError, match="`steps` must be at least 1; received 0"):
        profile(tmp_path, steps=0)


# Whether the images of a step are made apart from what is learnt of them.
@pytest.mark.parametrize(
    ("factory", "options", "crafts"),
    [
        (Standard, {}, False),
        (AdversarialTraining, {"attack": FGSM, "alpha": 0.5}, True),
        (SATM, {"attack": FGSM, "partners": 1, "domain_weights": (0.0,)}, True),
        (E2SAD, {"attack": FGSM, "eps2": 0.1}, True),
        (AdversarialNetwork, {"generator": 1, "eps": 0.1}, True),
        (GeneratorAttack, {"generator": 1, "eps": 0.1}, False),
    ],
)
def test_parts_of_a_step(factory, options, crafts):
    if "partners" in options:
        options = options | {"partners": [network()]}
    if "generator" in options:
        options = options | {"generator": generator()}
    defense = make(factory, **options)
    found = parts(defense, batches, 0, rounds=1)
    assert (found["crafting"] is not None) == crafts
    assert found["forward_backward"] > 0
    # The methods are its own again.
    assert not {"craft", "descend"} & set(vars(defense))


def test_passes_that_craft_and_learn_are_not_told_apart():
    defense = E2SAD(network(), attack=FGSM, eps2=0.1)
    defense.compile("sgd")
    defense.build((None, *SHAPE))
    assert parts(defense, batches, 0, rounds=1)["crafting"] is None


def test_parts_on_two_replicas(mirrored):
    with mirrored.scope():
        defense = make(Kurakin, attack=FGSM)
        defense.optimizer.build(defense.trained_variables)
    found = parts(defense, batches, 0, rounds=1)
    assert min(found.values()) > 0


def test_the_printed_numbers():
    seconds = {"step": 0.25, "crafting": None, "forward_backward": 0.0126}
    lines = text({"profiled_steps": 3, "seconds": seconds}).splitlines()
    assert lines[0] == "a training step, median of 3:"
    words = [line.split() for line in lines[1:4]]
    assert words == [
        ["step", "250.0", "ms"],
        ["crafting", "none"],
        ["forward,", "backward", "12.6", "ms"],
    ]


def test_a_training_that_goes_on_from_before_is_profiled_anew(tmp_path):
    """As after a rewind: the first turn ends while the profiler runs."""
    shown = profile(tmp_path, steps=2)
    shown.set_model(make(Standard))
    shown.on_train_begin()
    for step in range(4):
        shown.on_train_batch_begin(step)
        shown.on_train_batch_end(step, {"loss": 1.0})
    train(make(Standard), batches, steps=5, steps_per_epoch=5, callbacks=[shown])
    found = json.loads((tmp_path / "profile.json").read_text())
    assert (found["profiled_steps"], found["last_profiled_step"]) == (2, 5)
