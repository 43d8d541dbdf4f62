"""The classifier that withstood most while it was trained."""

import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfadv import attacks, config, run
from tfadv.data import digits
from tfadv.errors import UsageError
from tfadv.trained import open_model
from tfadv.workdir import Workdir

CONFIGS = pathlib.Path(__file__).resolve().parents[1] / "configs"
STEPS, EVERY = 24, 4


def tables(*overrides):
    small = [
        *(f"train.steps={STEPS}", f"train.validate_every={EVERY}", "model.width=4"),
        *("train.checkpoint_every=5", "evaluate.num_examples=40", "attack.eps=16/255"),
        *("evaluate.batch_size=40", 'evaluate.attacks=["step_fgsm"]'),
        *("evaluate.eps=16/255", "optimizer.learning_rate=[0.01, 0.01]"),
    ]
    return config.load(CONFIGS / "kurakin.toml", [*small, *overrides])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(`Workdir`, {step: classifier} of every measurement)."""
    seen, save = {}, run.Best.consider

    def noting(best, step, accuracy, network):
        seen[step] = keras.models.clone_model(network)
        seen[step].set_weights(network.get_weights())
        save(best, step, accuracy, network)

    path = tmp_path_factory.mktemp("best") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run.Best, "consider", noting)
        run.fit(tables(), path)
    return Workdir(path), seen


def weights(path):
    return [w.tobytes() for w in keras.models.load_model(path).get_weights()]


def test_the_first_of_the_most_accurate_under_pgd_is_kept(whole):
    """By measuring all of them again on the held-out images, which come first."""
    workdir, seen = whole
    assert list(seen) == list(range(EVERY, STEPS + 1, EVERY))
    exp = run.experiment.build(tables())
    images = exp.dataset.read_watched(256)
    assert exp.dataset.watched_name == "holdout" and len(images) == 147
    x, y = tf.constant(images.x / np.float32(255)), images.y
    pgd = attacks.PGD(eps=16 / 255)

    def accuracy(network):
        x_adv = pgd(lambda x: network(x, training=False), x, y, seed=0)
        return np.mean(np.argmax(network(x_adv), axis=1) == y)

    found = {step: accuracy(network) for step, network in seen.items()}
    assert len(set(found.values())) > 2
    best = max(found, key=lambda step: (found[step], -step))
    assert workdir.best_steps() == [best]
    expected = [w.tobytes() for w in seen[best].get_weights()]
    assert weights(workdir.best_file(best)) == expected


@pytest.mark.parametrize("stopped", [7, 12, 18])
def test_a_run_that_was_stopped_ends_with_the_same_best(
    whole, stopped, tmp_path, monkeypatch
):
    real = run.run_loop
    with monkeypatch.context() as patch:
        patch.setattr(
            run, "run_loop", lambda *args, **kw: real(*args, **kw | {"steps": stopped})
        )
        patch.setattr(run, "_save", lambda *args: None)
        run.fit(tables(), tmp_path / "run")
    run.fit(tables(), tmp_path / "run")
    workdir, steps = Workdir(tmp_path / "run"), whole[0].best_steps()
    assert workdir.best_steps() == steps
    (found, expected) = (one.best_file(steps[0]) for one in (workdir, whole[0]))
    assert weights(found) == weights(expected)


def test_the_best_is_measured_and_exported_on_demand(whole, tmp_path):
    workdir, _ = whole
    (step,) = workdir.best_steps()
    opened = {
        c: open_model(workdir=workdir.path, checkpoint=c) for c in ("last", "best")
    }
    assert {c: one.steps for c, one in opened.items()} == {"last": STEPS, "best": step}
    assert opened["best"].output == workdir.path / "evaluation_best"
    assert opened["best"].name == opened["last"].name + ", best"
    x = tf.constant(digits.read("test").x[:9] / np.float32(255))
    files = {"last": workdir.model, "best": workdir.best_file(step)}
    for checkpoint, path in files.items():
        logits = keras.models.load_model(path)(x)
        np.testing.assert_array_equal(opened[checkpoint].predict(x), logits)
        output = tmp_path / checkpoint
        run.export_file(workdir.path, None, output, checkpoint=checkpoint)
        loaded = tf.saved_model.load(str(output))
        served = loaded.from_float(x)["logits"]
        np.testing.assert_allclose(served, logits, atol=1e-5)


def test_without_held_out_images_there_is_no_best(tmp_path):
    """Those of the test set must not choose."""
    run.fit(tables("data.holdout=0", "train.steps=4"), tmp_path / "run")
    assert not (tmp_path / "run" / "best").exists()
    with pytest.raises(UsageError, match=r"has kept no best.*\[data\] holdout.*=last"):
        open_model(workdir=tmp_path / "run", checkpoint="best")


def test_the_best_of_what_is_no_run(whole):
    with pytest.raises(UsageError, match="--checkpoint=best goes with --workdir"):
        open_model(saved_model=whole[0].model, checkpoint="best")
