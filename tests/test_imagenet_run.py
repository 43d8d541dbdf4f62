"""The whole path on ImageNet: Inception v3 trained as in Kurakin et al. 2017, in small.

Everything that belongs to it at once: photographs on disk, the preprocessing of
Inception, an auxiliary head, RMSprop with a falling rate, averaged weights, clipped
gradients and a delay.
"""

import json
import resource
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from tests.data import directories
from tfadv import config, experiment, run, transfer
from tfadv.data import pipeline
from tfadv.trained import open_model
from tfadv.workdir import Workdir

# Most of the time goes into building graphs of a hundred layers, several for each run.
pytestmark = pytest.mark.slow

N = 20
GIGABYTE = 2**20  # in the units of `ru_maxrss`


def tables(*, steps=4, size=75, width=0.05, seed=0):
    """`width` 0.05 gives all convolutions their least number of filters, 16."""
    return config.Config(
        {
            "data": {
                "name": "imagenet2012",
                "preprocess": "inception",
                "size": size,
            },
            "model": {"name": "inception_v3", "width": width, "bn_momentum": 0.8},
            "optimizer": {
                "name": "rmsprop",
                "learning_rate": 0.045,
                "decay_rate": 0.94,
                "decay_steps": 2,
                "ema_momentum": 0.5,
                "global_clipnorm": 2.0,
            },
            "attack": {"name": "step_ll", "eps": "16/255"},
            "defense": {
                "name": "kurakin",
                "auxiliary_layer": "mixed_6e",
                "auxiliary_width": width,
                "delay": 1,
            },
            "train": {
                "steps": steps,
                "batch_size": 8,
                "seed": seed,
                "checkpoint_every": 2,
                "validation_examples": 4,
            },
            "evaluate": {
                "attacks": ["step_fgsm", "step_ll"],
                "eps": ["16/255"],
                "batch_size": 10,
            },
        }
    )


def write(folder):
    """As TFDS leaves it, of 20 images to train on and 20 to test on."""
    splits = {
        split: [
            image
            for i in range(N)
            for image in directories.photographs(1, sides=(80 + i, 96), seed=i + start)
        ]
        for split, start in (("train", 0), ("validation", N))
    }
    return directories.write(
        folder, splits, name="imagenet2012", config="", version="5.1.0", encoding="jpeg"
    )


def relabel(directory, labels):
    """Gives the test images of a directory other labels."""
    labels = iter(labels)
    for path in sorted(directory.glob("*validation*")):
        examples = [
            tf.train.Example.FromString(one)
            for one in ArrayRecordReader(str(path)).read_all()
        ]
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for example in examples:
            example.features.feature["label"].int64_list.value[:] = [int(next(labels))]
            writer.write(example.SerializeToString())
        writer.close()
    assert next(labels, None) is None


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(data_dir, workdir) after four steps without a break."""
    root = tmp_path_factory.mktemp("imagenet")
    write(root / "data")
    run.fit(tables(), root / "a", data_dir=str(root / "data"))
    return root / "data", root / "a"


@pytest.fixture(scope="module")
def second(finished):
    """The workdir of a network of another seed, as it begins."""
    path = finished[1].with_name("b")
    path.mkdir()
    built = experiment.build(tables(seed=1))
    (path / "config.json").write_text(json.dumps(built.config))
    keras.utils.set_random_seed(1)
    built.make_model().save(path / "model.keras")
    return path


@pytest.fixture(scope="module")
def labelled(finished, second, tmp_path_factory):
    """A data directory in which networks that know nothing are right now and then.

    Of the test images ten are of the class that the first network finds, five of that
    which it finds fourth, and five of that which the second finds.
    """
    images = open_model(workdir=finished[1]).dataset.read_test(str(finished[0]))
    x = pipeline.to_float(images.x)
    one, other = (
        np.argsort(-keras.models.load_model(path / "model.keras")(x).numpy(), axis=1)
        for path in (finished[1], second)
    )
    folder = tmp_path_factory.mktemp("labelled")
    relabel(write(folder), [*one[:10, 0], *one[10:15, 3], *other[15:, 0]])
    return str(folder)


@pytest.fixture(scope="module")
def found(finished, labelled):
    """What `run.evaluate` says of the first network."""
    path = finished[1]
    return run.evaluate(open_model(workdir=path), path / "out", data_dir=labelled)


def checkpoint(path, step):
    """All that is in the checkpoint of a step, by name."""
    reader = tf.train.load_checkpoint(str(path / "checkpoints" / f"ckpt-{step}"))
    names = reader.get_variable_to_shape_map()
    return {
        name: reader.get_tensor(name)
        for name in names
        if name
        not in (
            "_CHECKPOINTABLE_OBJECT_GRAPH",
            "save_counter/.ATTRIBUTES/VARIABLE_VALUE",
        )
    }


def test_a_run_that_lost_its_end_ends_the_same(finished, tmp_path, monkeypatch):
    """Weights, averages, the head, the optimizer: everything, bit for bit."""
    data_dir, whole = finished
    cut = shutil.copytree(whole, tmp_path / "cut")
    for path in (cut / "checkpoints").glob("ckpt-4.*"):
        path.unlink()
    for path in cut.glob("*.keras"):
        path.unlink()
    # Which would take a while, of the same weights.
    monkeypatch.setattr(run, "export", lambda *_, **__: None)
    run.fit(tables(), cut, data_dir=str(data_dir))
    expected, found = (checkpoint(path, 4) for path in (whole, cut))
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, name)
    saved = [Workdir(path).model for path in (whole, cut)]
    one, other = (keras.models.load_model(path).get_weights() for path in saved)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)
    # The two steps did something.
    before = checkpoint(whole, 2)
    assert (
        sum(not np.array_equal(before[name], expected[name]) for name in before) > 300
    )


def test_what_is_saved_are_the_averaged_weights(finished):
    """m = 1/2, so they are not those of the last step."""
    kernel = keras.models.load_model(finished[1] / "model.keras").get_layer("embedding")
    kernel = kernel.kernel.numpy()
    same = [
        name
        for name, value in checkpoint(finished[1], 4).items()
        if value.shape == kernel.shape and np.array_equal(value, kernel)
    ]
    assert len(same) >= 1 and all(name.startswith("optimizer/") for name in same)


def test_top1_and_top5_are_those_of_the_saved_model(finished, labelled, found):
    images = open_model(workdir=finished[1]).dataset.read_test(labelled)
    assert images.x.shape == (N, 75, 75, 3)
    served = tf.saved_model.load(str(finished[1] / "saved_model"))
    logits = served.serve(np.asarray(images.x))["logits"].numpy()
    model = keras.models.load_model(finished[1] / "model.keras")
    x = pipeline.to_float(images.x)
    np.testing.assert_allclose(logits, model(x), atol=1e-5)
    np.testing.assert_allclose(served.from_float(x)["logits"], logits, atol=1e-5)
    own = logits[np.arange(N), np.asarray(images.y)]
    rank = (logits > own[:, None]).sum(axis=1)
    clean = found["rows"][0]
    assert (clean["accuracy"], clean["top5"]) == ((rank < 1).mean(), (rank < 5).mean())
    assert 0.5 <= clean["accuracy"] < clean["top5"] < 1.0


def test_every_row_tells_top5_and_one_what_leaks(finished, found):
    written = json.loads((finished[1] / "out" / "results.json").read_text())
    assert written == found and (found["steps"], found["full_steps"]) == (4, 4)
    rows = {row["attack"]: row for row in found["rows"]}
    assert list(rows) == ["clean", "step_fgsm", "step_ll", "random_sign"]
    assert all(row["n"] == N and "top5" in row for row in rows.values())
    assert [name for name, row in rows.items() if "leaked" in row] == ["step_fgsm"]
    assert rows["step_fgsm"]["leaked"]["without"] == "step_ll"
    lines = [line.split() for line in run.report_text(found).splitlines()]
    assert ["leaked", str(rows["step_fgsm"]["leaked"]["count"])] in lines


def test_rates_of_transfer_between_two_seeds(finished, second, labelled, found):
    changes = config.Config().merged({"evaluate": {"attacks": ["step_fgsm"]}}, "here")
    sources, targets = transfer.open_both([finished[1], second], changes=changes)
    output = finished[1].with_name("transfer")
    made = transfer.transfer(sources, targets, output, data_dir=labelled)
    assert json.loads((output / "transfer.json").read_text()) == made
    rows = {(r["attack"], r["source"], r["target"]): r for r in made["rows"]}
    # The second network's own class is that of the last five.
    assert 5 / N <= rows["clean", None, "b"]["accuracy"] <= 0.5
    white = {row["attack"]: row for row in found["rows"]}
    for name in ("clean", "step_fgsm"):
        row = rows[name, None if name == "clean" else "a", "a"]
        assert {key: row[key] for key in ("accuracy", "top5")} == {
            key: white[name][key] for key in ("accuracy", "top5")
        }
    # Kept is what was right, less what stayed so.
    fgsm = white["step_fgsm"]
    stayed = round(N * fgsm["accuracy"]) - fgsm["leaked"]["gained"]
    kept = round(N * white["clean"]["accuracy"]) - stayed
    assert kept > 0
    for target in ("a", "b"):
        assert rows["step_fgsm", "a", target]["kept"] == kept
    assert rows["step_fgsm", "a", "a"]["transfer_rate"] == 1.0
    assert 0 <= rows["step_fgsm", "a", "b"]["transfer_rate"] <= 1
    assert (
        rows["step_fgsm", "b", "b"]["kept"] <= N * rows["clean", None, "b"]["accuracy"]
    )


def test_it_takes_little_memory(found):
    """Of the whole process, so whatever ran before counts."""
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 8 * GIGABYTE


def test_a_step_at_the_size_of_the_paper(tmp_path):
    """Images of 299 and the whole network: five minutes and eight gigabytes do."""
    write(tmp_path / "data")
    wanted = tables(steps=1, size=299, width=1.0)
    wanted = wanted.merged(
        {"train": {"batch_size": 2}, "defense": {"delay": 0}}, "here"
    )
    _, workdir = run.fit(wanted, tmp_path / "run", data_dir=str(tmp_path / "data"))
    model = keras.models.load_model(workdir.model)
    # As counted for 1,000 classes (Szegedy et al. 2016, without a head).
    assert model.count_params() == 21_802_784 + 2_049 * 1000
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 8 * GIGABYTE
