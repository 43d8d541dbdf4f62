"""[train] precision, sync_bn and on_nan, from the configuration to the results."""

import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfadv import config, experiment, run
from tfadv.errors import RunError, UsageError
from tfadv.files import write_json
from tfadv.trained import open_model
from tfadv.workdir import Workdir

CONFIGS = pathlib.Path(__file__).resolve().parents[1] / "configs"


def tables(*overrides, method="kurakin"):
    """A method on the digits, 20 steps of it, tried with one attack."""
    shortened = config.shortened(config.load(CONFIGS / f"{method}.toml"), 20)
    small = [
        "model.width=4",
        "train.checkpoint_every=8",
        'evaluate.attacks=["step_fgsm"]',
        "evaluate.eps=16/255",
        "evaluate.num_examples=30",
        "evaluate.batch_size=30",
    ]
    return config.override(shortened, [*small, *overrides])


MIXED = "train.precision=mixed_bfloat16"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(workdir, what `train` returned) of a run in bfloat16."""
    path = tmp_path_factory.mktemp("run") / "workdir"
    return path, run.train(tables(MIXED), path, profile=2)


def weights(path):
    return keras.models.load_model(path / "model.keras").get_weights()


def test_what_is_saved_is_float32_and_plain_keras(finished):
    path, _ = finished
    with zipfile.ZipFile(path / "model.keras") as file:
        text = file.read("config.json").decode()
    assert '"float32"' in text
    assert "bfloat16" not in text
    assert "tfadv" not in text
    assert '"synchronized": true' not in text
    model = keras.models.load_model(path / "model.keras")
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}
    assert {weight.dtype for weight in model.weights} == {"float32"}
    x = tf.zeros([2, *model.input_shape[1:]]) + 0.3
    assert model(x).dtype == tf.float32
    served = tf.saved_model.load(str(path / "saved_model"))
    np.testing.assert_allclose(
        served.from_float(x)["logits"], model(x), rtol=1e-5, atol=1e-6
    )


def test_what_was_synchronised_is_saved_as_if_not(mirrored, tmp_path, monkeypatch):
    """In the loop its batch normalisation is, in both saved files it is not."""
    seen, loop = [], run.run_loop

    def noted(defense, *args, **kwargs):
        layers = defense.classifier.layers
        seen.extend(getattr(layer, "synchronized", None) for layer in layers)
        return loop(defense, *args, **kwargs)

    monkeypatch.setattr(run, "run_loop", noted)
    network = ("model.name=resnet_cifar", "model.depth=8")
    options = ("train.sync_bn=true", "train.steps=2")
    wanted = tables(*network, *options, method="standard")
    run.fit(wanted, tmp_path / "run", strategy=mirrored)
    assert True in seen
    assert False not in seen
    for path in tmp_path.rglob("*.keras"):
        with zipfile.ZipFile(path) as file:
            text = file.read("config.json").decode()
        assert '"synchronized": false' in text
        assert '"synchronized": true' not in text
    tf.saved_model.load(str(tmp_path / "run" / "saved_model"))


def test_it_trained_in_bfloat16(finished, tmp_path):
    """Elsewhere the same, in float32 the weights are others."""
    run.fit(tables(), tmp_path / "run")
    pairs = list(zip(weights(finished[0]), weights(tmp_path / "run"), strict=True))
    assert not all(np.array_equal(a, b) for a, b in pairs)


def test_it_is_resumed_to_the_same_bits(finished, tmp_path):
    path = shutil.copytree(finished[0], tmp_path / "copy")
    for lost in [*(path / "checkpoints").glob("ckpt-20.*"), path / "model.keras"]:
        lost.unlink()
    run.fit(tables(MIXED), path)
    pairs = zip(weights(finished[0]), weights(path), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)


def test_another_precision_is_another_run(finished):
    with pytest.raises(UsageError, match=r"train\.precision is 'mixed_bfloat16' there"):
        run.fit(tables(), finished[0])


def test_a_run_can_be_profiled(finished):
    assert (finished[0] / "profile.json").exists()
    assert list((finished[0] / "tensorboard").glob("plugins/profile/*/*.xplane.pb"))


def test_rewinds_are_in_the_results(finished, tmp_path):
    path, found = finished
    assert "rewinds" not in found
    path = shutil.copytree(path, tmp_path / "copy")
    rewinds = [{"step": 7, "to": 4, "what": "the loss is nan"}]
    write_json(path / "rewinds.json", rewinds)
    found = run.evaluate(open_model(workdir=path), path)
    assert found["rewinds"] == rewinds
    assert "gone on past steps that diverged" in run.report_text(found)


def test_a_run_that_diverges_ends_in_one_line(tmp_path):
    """What a rate of 10^30 makes of the weights is not finite within a few steps."""
    path = tmp_path / "run"
    with pytest.raises(RunError, match=r"has diverged: .* at step \d+\. "):
        run.fit(tables("optimizer.learning_rate=[1e30, 1e30]"), path)
    assert not (path / "model.keras").exists()


# Younger than workdirs.


def test_defaults_leave_no_trace_in_a_workdir():
    resolved = experiment.build(tables()).config["train"]
    assert not {"precision", "sync_bn", "on_nan"} & set(resolved)


def test_other_values_are_kept():
    asked = {"precision": "mixed_bfloat16", "sync_bn": True, "on_nan": "rewind"}
    resolved = experiment.build(tables().merged({"train": asked}, "test")).config
    assert resolved["train"].items() >= asked.items()


def test_what_is_done_about_nan_may_change(tmp_path):
    plain = experiment.build(tables()).config
    rewinding = experiment.build(tables("train.on_nan=rewind")).config
    synchronised = experiment.build(tables("train.sync_bn=true")).config
    workdir = Workdir(tmp_path / "run")
    workdir.claim(plain)
    workdir.claim(rewinding)
    assert workdir.read_config()["train"]["on_nan"] == "rewind"
    with pytest.raises(UsageError, match=r"train\.sync_bn is None there and True here"):
        workdir.claim(synchronised)


@pytest.mark.parametrize("option", ["precision=half", "on_nan=pray", "sync_bn=1"])
def test_values_that_are_not(option):
    with pytest.raises(UsageError, match=option.split("=")[0]):
        experiment.build(tables(f"train.{option}"))


def test_a_finite_difference_needs_float32():
    options = [MIXED, "generator.k=2"]
    built = experiment.build(tables(*options, method="adversarial_network"))
    with pytest.raises(UsageError, match=r"needs 'float32'.* use 'exact' or 'none'"):
        built.make_defense(built.make_model())
    options.append("defense.regularizer=none")
    built = experiment.build(tables(*options, method="adversarial_network"))
    built.make_defense(built.make_model())


def run_flags(*arguments):
    """What the flags of bin/train mean for [train], in a process of its own."""
    code = (
        "import sys; from tfadv import cli; cli.define_training(); "
        "cli.flags.FLAGS(['train', *sys.argv[1:]]); "
        "print(sorted(cli.training_config()[0]['train'].items()))"
    )
    return subprocess.run(
        [sys.executable, "-c", code, "--method=kurakin", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_flags():
    flags = ["--precision=mixed_bfloat16", "--sync_bn", "--on_nan=rewind"]
    given, plain = run_flags(*flags), run_flags()
    for key, value in (
        ("precision", "'mixed_bfloat16'"),
        ("sync_bn", "True"),
        ("on_nan", "'rewind'"),
    ):
        assert f"('{key}', {value})" in given.stdout
        assert f"'{key}'" not in plain.stdout
