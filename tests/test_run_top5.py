"""Evaluation where there are more than ten classes."""

import dataclasses
import json

import keras
import numpy as np
import pytest

from tfadv import config, data, models, run
from tfadv.data import digits


@pytest.mark.parametrize("num_classes", [10, 11])
def test_top5_is_told_of_more_than_ten_classes(tmp_path, monkeypatch, num_classes):
    """As if there were a digit that no image has."""
    source = dataclasses.replace(digits.DIGITS, num_classes=num_classes)
    monkeypatch.setitem(data.DATASETS, "digits", source)
    path = tmp_path / "model.keras"
    keras.utils.set_random_seed(0)
    models.small_cnn((8, 8, 1), num_classes, width=2).save(path)
    evaluate = {
        "attacks": ["step_fgsm", "random_sign"],
        "eps": ["16/255"],
        "batch_size": 20,
        "num_examples": 50,
    }
    written = {"data": {"name": "digits"}, "evaluate": evaluate}
    changes = config.Config().merged(written, "here")
    trained = run.open_model(saved_model=path, changes=changes)
    found = run.evaluate(trained, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == found
    text = run.report_text(found)
    if num_classes == 10:
        assert not any("top5" in row for row in found["rows"])
        assert "top-5" not in text
        return
    images = digits.read("test").take(slice(50))
    logits = keras.models.load_model(path)(images.x / np.float32(255)).numpy()
    larger = logits > logits[np.arange(50), images.y][:, None]
    clean = found["rows"][0]
    assert clean["top5"] == np.mean(larger.sum(axis=1) < 5)
    assert all("top5" in row for row in found["rows"])
    lines = [line.split() for line in text.splitlines()]
    below = lines[[line[:1] for line in lines].index(["clean"]) + 1]
    assert below == ["top-5", f"{100 * clean['top5']:.1f}"]
