"""What the README shows works as it stands there."""

import pathlib
import re

import numpy as np
import pytest

from tfadv import models
from tfadv.data import digits
from tfadv.export import export

README = (pathlib.Path(__file__).resolve().parents[1] / "README.md").read_text()
IN_PYTHON, SERVING = re.findall(r"```python\n(.*?)```", README, re.S)


def test_the_example_on_the_readers_own_model(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    train, test = digits.read("train"), digits.read("test")
    names = {
        "classifier": models.small_cnn((8, 8, 1), 10, width=8),
        "x_train": np.float32(train.x / 255),
        "y_train": train.y,
        "x_test": np.float32(test.x / 255),
        "y_test": test.y,
    }
    exec(IN_PYTHON, names)
    assert "'adversarial_accuracy':" in capsys.readouterr().out
    moved = np.abs(names["x_adv"] - names["x_test"][:100]).max()
    assert moved == pytest.approx(8 / 255, abs=1e-6)
    assert (tmp_path / "robust.keras").is_file()


def test_the_example_of_serving(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    classifier = models.small_cnn((8, 8, 1), 10, width=8)
    export(classifier, tmp_path / "runs" / "kurakin" / "saved_model")
    image = digits.read("test").x[:5]
    names = {"images_uint8": image}
    exec(SERVING, names)
    expected = classifier(image / np.float32(255)).numpy().argmax(axis=1)
    np.testing.assert_array_equal(names["out"]["class"], expected)
