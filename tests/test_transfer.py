import dataclasses
import json

import keras
import matplotlib.image
import numpy as np
import pytest

from tfadv import data, experiment, predictor
from tfadv.config import Config
from tfadv.data import digits
from tfadv.errors import RunError, UsageError
from tfadv.evaluation import measure
from tfadv.files import read_json
from tfadv.trained import open_model
from tfadv.transfer import open_both, report_text, transfer

EPS = (16 / 255, 32 / 255)


def finished(path, seed, **tables):
    """What a run leaves, of a network with random weights."""
    written = {
        "data": {"name": "digits"},
        "model": {"name": "small_cnn", "width": 2},
        "optimizer": {"name": "sgd"},
        "defense": {"name": "standard"},
        "train": {"steps": 40, "batch_size": 16, "seed": seed, "full_steps": 2000},
        "evaluate": {
            "attacks": ["step_fgsm"],
            "eps": ["16/255", "32/255"],
            "batch_size": 40,
            "num_examples": 90,
        },
    }
    path.mkdir(parents=True)
    built = experiment.build(Config(written).merged(tables, "here"))
    (path / "config.json").write_text(json.dumps(built.config))
    keras.utils.set_random_seed(seed)
    built.make_model().save(path / "model.keras")
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three workdirs; the second was trained and is evaluated otherwise."""
    root = tmp_path_factory.mktemp("runs")
    other = {
        "train": {"steps": 30, "full_steps": 30},
        "evaluate": {"attacks": ["pgd"], "num_examples": 7, "batch_size": 7},
    }
    return (
        finished(root / "a", 1),
        finished(root / "b", 2, **other),
        finished(root / "c", 3),
    )


def changes(**tables):
    return Config().merged(tables, "--a-flag")


def test_a_model_on_both_sides_is_opened_once(runs, monkeypatch):
    opened, load = [], predictor.load

    def note(path, *args):
        opened.append(path.parent.name)
        return load(path, *args)

    monkeypatch.setattr(predictor, "load", note)
    a, b, c = runs
    # The same directory, written otherwise.
    sources, targets = open_both([a, b], [c, f"{a.parent}/x/../b"])
    assert opened == ["a", "b", "c"]
    assert (list(sources), list(targets)) == (["a", "b"], ["c", "b"])
    assert sources["b"] is targets["b"]
    assert sources["b"].path == b


def test_without_targets_the_sources_are_tried_on_each_other(runs):
    sources, targets = open_both(runs[:2], changes=changes(train={"seed": 9}))
    assert list(sources) == list(targets) == ["a", "b"]
    assert sources["a"] is targets["a"]
    assert sources["b"].seed == 9


def test_names_are_told_apart_across_the_sides(runs, tmp_path):
    other = finished(tmp_path / "a", 4)
    sources, targets = open_both([runs[0]], [other])
    assert list(sources) == [f"{runs[0].parent.name}/a"]
    assert list(targets) == [f"{tmp_path.name}/a"]


def test_sides_that_cannot_be(runs, tmp_path):
    a, b, _ = runs
    cropped = finished(tmp_path / "cropped", 1, data={"crop": 6})
    for sources, targets, message in (
        ([], [a], "at least one source"),
        ([a, a], [b], "is given twice"),
        ([a], [b, b], "is given twice"),
        ([a], [cropped], "digits 8x8x1 by a; digits 6x6x1 by cropped"),
        ([a], [tmp_path / "absent"], "is not a workdir"),
    ):
        with pytest.raises(UsageError, match=message):
            open_both(sources, targets)


def test_everything_is_measured_as_the_first_source_says(runs, tmp_path):
    a, b, c = runs
    output = tmp_path / "new" / "out"
    found = transfer(*open_both([a, b], [b, c]), output)
    assert found == read_json(output / "transfer.json", "the result")
    assert {path.name for path in output.iterdir()} == {
        "transfer.json",
        "transfer.png",
    }
    assert matplotlib.image.imread(output / "transfer.png").std() > 0.05

    rows = found["rows"]
    assert [(r["source"], r["target"], r["attack"], r["eps"]) for r in rows] == [
        (None, "b", "clean", 0.0),
        (None, "c", "clean", 0.0),
        *(
            (source, target, attack, eps)
            for source in ("a", "b")
            for attack in ("step_fgsm", "random_sign")
            for target in ("b", "c")
            for eps in EPS
        ),
    ]
    # The white box of b is what an evaluation of b finds with the settings of a.
    first = open_model(workdir=a)
    expected = measure(
        open_model(workdir=b).predict,
        digits.read("test").take(slice(90)),
        first.suite,
        EPS,
        batch_size=40,
        seed=1,
    )
    white = [r for r in rows if r["target"] == "b" and r["source"] in (None, "b")]
    assert [r["accuracy"] for r in white] == [r["accuracy"] for r in expected]
    assert {r["n"] for r in rows} == {90}


def test_the_result_says_what_it_is_of(runs, tmp_path):
    a, b, c = runs
    seeded = changes(train={"seed": 9}, evaluate={"eps": ["16/255"]})
    found = transfer(*open_both([a, b], [b, c], changes=seeded), tmp_path)
    assert {
        k: v for k, v in found.items() if k not in ("rows", "models", "versions")
    } == {
        "data": "digits",
        "n": 90,
        "attacks": ["step_fgsm", "random_sign"],
        "eps": [16 / 255],
        "batch_size": 40,
        "seed": 9,
        "sources": ["a", "b"],
        "targets": ["b", "c"],
    }
    assert set(found["models"]) == {"a", "b", "c"}
    for path, seed, steps, full in ((a, 1, 40, 2000), (b, 2, 30, 30), (c, 3, 40, 2000)):
        model = found["models"][path.name]
        assert model["workdir"] == str(path)
        # That of the training, whatever that of the attacks is.
        assert (model["seed"], model["steps"], model["full_steps"]) == (
            seed,
            steps,
            full,
        )
        assert model["config"]["model"]["width"] == 2
    assert found["versions"]["keras"] == keras.__version__
    text = report_text(found)
    assert f"a: 40 of 2000 steps, seed 1, {a}\n" in text
    assert f"b: 30 steps, seed 2, {b}\n" in text
    assert "step_fgsm, eps 16/255" in text


def test_classes_with_an_order_are_told(runs, tmp_path, monkeypatch):
    """As if a digit were nearly read where it is one off."""
    a, b, _ = runs
    plain = transfer(*open_both([a], [b]), tmp_path / "plain")
    assert not any("one_off" in row for row in plain["rows"])
    assert "one-off" not in report_text(plain)

    ordered = dataclasses.replace(digits.DIGITS, ordered=True)
    monkeypatch.setitem(data.DATASETS, "digits", ordered)
    found = transfer(*open_both([a], [b]), tmp_path)
    assert found == read_json(tmp_path / "transfer.json", "the result")
    assert "  one-off" in report_text(found)
    new = ("one_off", "confusion")
    for row, old in zip(found["rows"], plain["rows"], strict=True):
        assert {k: v for k, v in row.items() if k not in new} == old
        assert np.shape(row["confusion"]) == (10, 10)
        assert np.trace(row["confusion"]) == round(90 * row["accuracy"])
    images = digits.read("test").take(slice(90))
    logits = open_model(workdir=b).predict(images.x / np.float32(255))
    distance = np.abs(np.argmax(logits, axis=1) - images.y)
    assert found["rows"][0]["one_off"] == np.mean(distance <= 1)


def test_top5_is_told_of_more_than_ten_classes(runs, tmp_path, monkeypatch):
    plain = transfer(*open_both([runs[0]]), tmp_path / "plain")
    assert not any("top5" in row for row in plain["rows"])

    eleven = dataclasses.replace(digits.DIGITS, num_classes=11)
    monkeypatch.setitem(data.DATASETS, "digits", eleven)
    a = finished(tmp_path / "eleven", 1)
    found = transfer(*open_both([a]), tmp_path)
    assert found == read_json(tmp_path / "transfer.json", "the result")
    assert "  top-5" in report_text(found)
    images = digits.read("test").take(slice(90))
    logits = open_model(workdir=a).predict(images.x / np.float32(255)).numpy()
    larger = logits > logits[np.arange(90), images.y][:, None]
    assert found["rows"][0]["top5"] == np.mean(larger.sum(axis=1) < 5)
    assert {"top5", "top5_transfer_rate", "top5_kept"} < found["rows"][-1].keys()


def test_the_title_tells_the_steps_of_the_models(runs, tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr(
        "tfadv.report.plots.heat_map", lambda rows, path, title: titles.append(title)
    )
    few = changes(evaluate={"num_examples": 5, "batch_size": 5})
    transfer(*open_both([runs[0]], changes=few), tmp_path)
    transfer(*open_both(runs, changes=few), tmp_path)
    assert titles == [
        "digits, 5 test images; trained 40 of 2000 steps",
        "digits, 5 test images; trained 40 of 2000 steps or 30 steps",
    ]


def test_statistics_of_batches_are_told(runs, tmp_path, monkeypatch):
    """Of 90 images, 80 fill two batches of 40."""
    titles = []
    monkeypatch.setattr(
        "tfadv.report.plots.heat_map", lambda rows, path, title: titles.append(title)
    )
    batch = changes(evaluate={"bn_eval": "batch"})
    found = transfer(*open_both([runs[0]], changes=batch), tmp_path)
    assert (found["bn_eval"], found["n"], found["batch_size"]) == ("batch", 80, 40)
    assert {row["n"] for row in found["rows"]} == {80}
    about = "digits, 80 test images, batch statistics; trained 40 of 2000 steps"
    assert titles == [about]
    assert report_text(found).splitlines()[0] == "digits, batch statistics"
    assert read_json(tmp_path / "transfer.json", "the result") == found


def test_the_training_loss_of_a_source_is_told(runs, tmp_path, monkeypatch):
    """With labels smoothed by .95 step_fgsm makes almost all images easier."""
    titles = []
    monkeypatch.setattr(
        "tfadv.report.plots.heat_map", lambda rows, path, title: titles.append(title)
    )
    smooth = {"name": "standard", "label_smoothing": 0.95}
    a = finished(tmp_path / "smooth", 1, defense=smooth)
    plain = transfer(*open_both([a], [runs[1]]), tmp_path / "plain")
    assert "craft_on" not in plain
    loss = changes(evaluate={"craft_on": "training_loss"})
    found = transfer(*open_both([a], [runs[1]], changes=loss), tmp_path)
    assert found["craft_on"] == "training_loss"
    about = ", attacks on the training loss"
    assert titles[1] == titles[0].replace("images;", f"images{about};") != titles[0]
    assert report_text(found).splitlines()[0] == f"digits{about}"
    # What the images are made on changes; clean ones and noise do not.
    a_trained = open_model(workdir=a, changes=loss)
    expected = measure(
        open_model(workdir=runs[1]).predict,
        digits.read("test").take(slice(90)),
        a_trained.suite,
        EPS,
        batch_size=40,
        seed=1,
        craft_on=a_trained.craft_on,
    )
    assert [r["accuracy"] for r in found["rows"]] == [r["accuracy"] for r in expected]
    changed = [
        (r["attack"], r["source"])
        for r, old in zip(found["rows"], plain["rows"], strict=True)
        if r["accuracy"] != old["accuracy"]
    ]
    assert set(changed) == {("step_fgsm", "smooth")}


def test_sources_are_attacked_on_one_kind_of_loss(runs, tmp_path):
    other = finished(tmp_path / "d", 1, evaluate={"craft_on": "training_loss"})
    message = r"craft_on: 'logits' by a, 'training_loss' by d\. Say which for all"
    with pytest.raises(UsageError, match=message):
        open_both([runs[0], other])
    # Targets are not attacked.
    open_both([runs[0]], [other])


def test_an_output_that_cannot_be_is_known_before_the_data_is_read(
    runs, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("")
    sources, targets = open_both(runs[:1])
    monkeypatch.setattr(
        type(sources["a"].dataset), "read_test", lambda *_: pytest.fail("data was read")
    )
    for output in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(RunError, match=f"cannot write {output}: "):
            transfer(sources, targets, output)
