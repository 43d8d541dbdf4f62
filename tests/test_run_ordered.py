"""Evaluation where neighbouring classes are alike, on the drawn faces."""

import json
import pathlib

import keras
import numpy as np
import pytest

from tfadv import config, models, run
from tfadv.evaluation.confusion import confusion_matrix, one_off
from tfadv.report import plots

TESTDATA = pathlib.Path(__file__).resolve().parents[1] / "testdata"
EPS = ["4/256", "16/256", "8/256"]


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """A file with a network of random weights."""
    path = tmp_path_factory.mktemp("faces") / "model.keras"
    keras.utils.set_random_seed(0)
    models.small_cnn((32, 32, 3), 8, width=2).save(path)
    return path


def opened(path, name, crop=None):
    evaluate = {
        "attacks": ["step_fgsm", "iter_fgsm", "random_sign"],
        "eps": EPS,
        "batch_size": 5,
        "num_examples": 12,
    }
    written = {"data": {"name": name, "crop": crop}, "evaluate": evaluate}
    changes = config.Config().merged(written, "here")
    return run.open_model(saved_model=path, changes=changes)


def test_what_is_nearly_right_is_measured_and_drawn(faces, tmp_path, monkeypatch):
    drawn, draw = [], plots.confusion

    def note(rows, path, *, title):
        drawn.append((rows, title))
        draw(rows, path, title=title)

    monkeypatch.setattr(plots, "confusion", note)
    trained = opened(faces, "adience_1", crop=32)
    found = run.evaluate(trained, tmp_path, data_dir=str(TESTDATA))
    assert json.loads((tmp_path / "results.json").read_text()) == found
    written = {path.name for path in tmp_path.iterdir()}
    names = {"results.json", "curves.png", "examples.png", "confusion.png"}
    assert written == names
    assert (tmp_path / "confusion.png").stat().st_size > 5000

    images = trained.dataset.read_test(str(TESTDATA))
    x = np.asarray(images.x) / np.float32(255)
    guessed = np.argmax(keras.models.load_model(faces)(x), axis=1)
    expected = confusion_matrix(images.y, guessed, 8)
    clean = found["rows"][0]
    assert clean["confusion"] == expected.tolist()
    assert clean["accuracy"] == np.trace(expected) / 12
    assert clean["one_off"] == one_off(expected)
    assert {row["attack"] for row in found["rows"][-3:]} == {"worst case"}
    for row in found["rows"][:-3]:
        counts = np.sum(row["confusion"], axis=1)
        np.testing.assert_array_equal(counts, np.bincount(images.y, minlength=8))

    # The clean images, and those of the last attack in steps at its largest eps.
    ((rows, title),) = drawn
    assert [(row["attack"], row["eps"]) for row in rows] == [
        ("clean", 0.0),
        ("iter_fgsm", 16 / 256),
    ]
    assert all(row in found["rows"] for row in rows)
    assert title == "model.keras, unknown steps, seed 0"
    lines = [line.split() for line in run.report_text(found).splitlines()]
    below = lines[[line[:1] for line in lines].index(["clean"]) + 1]
    assert below == ["one-off", f"{100 * clean['one_off']:.1f}"]


def test_classes_without_an_order_are_not(tmp_path):
    path = tmp_path / "model.keras"
    models.small_cnn((8, 8, 1), 10, width=2).save(path)
    found = run.evaluate(opened(path, "digits"), tmp_path / "out")
    assert not (tmp_path / "out" / "confusion.png").exists()
    assert not any({"one_off", "confusion"} & row.keys() for row in found["rows"])
    assert "one-off" not in run.report_text(found)
