import dataclasses
import pathlib

import keras
import numpy as np
import pytest

from tfadv import config, craft, experiment, predictor, sources
from tfadv.data import Images
from tfadv.errors import RunError, UsageError
from tfadv.workdir import Workdir

CONFIGS = pathlib.Path(__file__).resolve().parents[1] / "configs"


def built(method, *overrides):
    return experiment.build(config.load(CONFIGS / f"{method}.toml", overrides))


@pytest.fixture
def finished(tmp_path):
    """(changes of its configuration) -> path of a workdir that looks finished."""

    def make(*overrides, name="model"):
        workdir = Workdir(tmp_path / name)
        workdir.claim(built("standard", *overrides).config)
        workdir.model.write_text("")
        return str(workdir.path)

    return make


def test_sources_are_trained_on_the_data_of_the_run_with_seeds_of_their_own():
    exp = built("ensemble", "train.seed=5", "data.holdout=20")
    found = sources.to_train(exp)
    assert [tables["train"]["seed"] for tables in found] == [6, 7]
    for tables in found:
        assert tables["data"]["holdout"] == 20
        assert tables["defense"] == {"name": "standard"}
        assert tables["train"]["steps"] == 3000
        assert "full_steps" not in tables["train"]


def test_sources_are_as_much_shortened_as_the_run():
    shortened = config.shortened(config.load(CONFIGS / "ensemble.toml"), 300)
    (first, _) = sources.to_train(experiment.build(shortened))
    # A tenth of 3,000 steps, with its drop after 2,500.
    assert first["train"]["steps"] == 300
    assert first["train"]["full_steps"] == 3000
    assert first["optimizer"]["boundaries"] == [250]


def test_finished_runs_take_the_place_of_configurations(finished):
    exp = built("ensemble", f"sources.paths=['{finished()}']")
    sources.check(exp)
    assert exp.sources.paths == (finished(),)


@pytest.mark.parametrize(
    ("method", "theirs", "message"),
    [
        ("ensemble", "data.crop=6", "data.crop = 6, this run has None"),
        ("ensemble_static", "data.crop=6", "data.crop = 6, this run has None"),
        ("generator_attack", "model.width=4", "model.width = 4, this run has 32"),
    ],
)
def test_sources_that_do_not_fit(finished, method, theirs, message):
    path = finished(theirs)
    with pytest.raises(UsageError) as caught:
        sources.check(built(method, f"sources.paths=['{path}']"))
    assert f"[sources]: {path} has {message}; they must agree" in str(caught.value)


def test_a_source_of_another_network_is_fine_for_an_ensemble(finished):
    sources.check(built("ensemble", f"sources.paths=['{finished('model.width=4')}']"))


def test_sources_that_are_not_finished(finished, tmp_path):
    path = finished()
    Workdir(path).model.unlink()
    with pytest.raises(UsageError, match="holds no trained model yet"):
        sources.check(built("ensemble", f"sources.paths=['{path}']"))
    nowhere = tmp_path / "nowhere"
    with pytest.raises(UsageError, match="nowhere is not a workdir"):
        sources.check(built("ensemble", f"sources.paths=['{nowhere}']"))


def test_a_configuration_that_is_wrong(tmp_path):
    text = f"base = '{CONFIGS / 'standard.toml'}'\n[defense]\nk = 3"
    (tmp_path / "wrong.toml").write_text(text)
    exp = built("ensemble", f"sources.configs=['{tmp_path / 'wrong.toml'}']")
    with pytest.raises(UsageError, match=r"wrong.toml \[defense\]: unknown key 'k'"):
        sources.check(exp)


# --------------------------------------------------------------------- crafted copies


@pytest.fixture
def linear_source(tmp_path):
    """A workdir with z = (w . x, 0): every attack moves x against the sign of w."""
    model = keras.Sequential(
        [
            keras.Input((2, 2, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(2, use_bias=False),
        ]
    )
    kernel = np.array([[1.0, 0], [1, 0], [-1, 0], [-1, 0]], np.float32)
    model.set_weights([kernel])
    workdir = Workdir(tmp_path / "source")
    workdir.path.mkdir()
    model.save(workdir.model)
    return workdir


def copies(*attacks, eps="10/255"):
    names = ", ".join(f"'{name}'" for name in attacks)
    return built("ensemble_static", f"crafted.attacks=[{names}]", f"crafted.eps={eps}")


IMAGES = Images(
    x=np.array([[100, 100, 100, 100], [5, 250, 5, 250]], np.uint8).reshape(2, 2, 2, 1),
    y=np.array([0, 1], np.int32),
    source_index=np.array([3, 8]),
)


def test_copies_join_the_training_set(linear_source, tmp_path):
    found = sources.with_crafted(
        IMAGES, copies("step_fgsm", "step_ll"), [linear_source], tmp_path / "crafted"
    )
    # J falls with w . x for class 0 and rises with it for class 1.
    fgsm = [[90, 90, 110, 110], [15, 255, 0, 240]]
    # w . x is 0 for the first image, where of two equal logits the first is taken for
    # the least likely; and 0 for the second.
    ll = [[110, 110, 90, 90], [15, 255, 0, 240]]
    expected = [*IMAGES.x.reshape(2, 4).tolist(), *fgsm, *ll]
    assert found.x.reshape(-1, 4).tolist() == expected
    assert found.y.tolist() == [0, 1] * 3
    assert found.source_index.tolist() == [3, 8] * 3
    assert found.x.dtype == np.uint8


def test_copies_that_are_there_are_not_made_again(linear_source, tmp_path, monkeypatch):
    exp, folder = copies("step_fgsm", "random_sign"), tmp_path / "crafted"
    first = sources.with_crafted(IMAGES, exp, [linear_source], folder)
    (folder / "0_random_sign_1.npy").unlink()
    made = []
    write = craft.write_array

    def note(predict, images, entry, path, **options):
        made.append(path.name)
        return write(predict, images, entry, path, **options)

    monkeypatch.setattr(craft, "write_array", note)
    again = sources.with_crafted(IMAGES, exp, [linear_source], folder)
    assert made == ["0_random_sign_1.npy"]
    np.testing.assert_array_equal(first.x, again.x)


def test_copies_do_not_depend_on_how_a_run_is_measured(linear_source, tmp_path):
    """[evaluate] may change between two calls of one run."""
    exp = copies("random_sign")
    first = sources.with_crafted(IMAGES, exp, [linear_source], tmp_path / "a")
    single = dataclasses.replace(exp.evaluate, batch_size=1)
    exp = dataclasses.replace(exp, evaluate=single)
    again = sources.with_crafted(IMAGES, exp, [linear_source], tmp_path / "b")
    np.testing.assert_array_equal(first.x, again.x)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(b"\x93NUMPY"), "is damaged"),
        (
            lambda path: np.save(path, np.zeros((1, 2, 2, 1), np.uint8)),
            "made of others",
        ),
    ],
)
def test_copies_that_are_spoilt(linear_source, tmp_path, spoil, message):
    exp, folder = copies("step_fgsm"), tmp_path / "crafted"
    sources.with_crafted(IMAGES, exp, [linear_source], folder)
    spoil(folder / "0_step_fgsm_0.npy")
    with pytest.raises(RunError, match=message):
        sources.with_crafted(IMAGES, exp, [linear_source], folder)


# ----------------------------------------------------------------- handed to a defence


def test_a_kept_classifier_gets_the_weights_of_its_source(tmp_path):
    exp = built("generator_attack", "model.width=2", "generator.k=1")
    source = Workdir(tmp_path)
    kept = exp.make_model()
    kept.save(source.model)
    defense = exp.make_defense(exp.make_model())
    assert not np.array_equal(
        kept.get_weights()[0], defense.classifier.get_weights()[0]
    )
    sources.give(defense, [source])
    for a, b in zip(kept.get_weights(), defense.classifier.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_ensemble_gets_the_models_of_its_sources(linear_source):
    exp = built("ensemble", "model.width=2")
    defense = exp.make_defense(exp.make_model())
    sources.give(defense, [linear_source, linear_source])
    predicts = defense.frozen_sources()
    assert len(predicts) == 2
    x = np.random.default_rng(0).random((3, 2, 2, 1), np.float32)
    expected = predictor.load(linear_source.model)(x)
    for predict in predicts:
        np.testing.assert_array_equal(predict(x), expected)
