"""The whole path on prepared TFDS data, with what lies in testdata/."""

import pathlib

import numpy as np
import pytest

from tfadv import config, run
from tfadv.data import DATASETS, digits
from tfadv.errors import RunError

ROOT = pathlib.Path(__file__).resolve().parents[1]
TESTDATA = ROOT / "testdata"


def test_testdata_is_what_its_script_says():
    for split, count in (("train", 40), ("test", 20)):
        found = DATASETS["mnist"].read(split, str(TESTDATA))
        source = digits.read(split).take(slice(count))
        np.testing.assert_array_equal(found.y, source.y)
        # The middle pixel of each three by three, inside the frame of two.
        np.testing.assert_array_equal(found.x[:, 3:26:3, 3:26:3], source.x)
        assert not found.x[:, :2].any() and not found.x[:, :, 26:].any()


def tables(*overrides):
    path = ROOT / "configs" / "na2018" / "mnist_kurakin.toml"
    small = [
        "model.name=lenet",
        "train.batch_size=16",
        "defense.k=8",
        "evaluate.batch_size=20",
        "evaluate.num_examples=20",
        'evaluate.attacks=["step_ll"]',
        "evaluate.eps=16/255",
    ]
    shortened = config.shortened(config.load(path), 4)
    return config.override(shortened, [*small, *overrides])


def test_a_paper_configuration_runs_on_prepared_data(tmp_path):
    found = run.train(tables(), tmp_path / "run", data_dir=str(TESTDATA))
    assert [row["n"] for row in found["rows"]] == [20, 20, 20]
    assert (found["steps"], found["full_steps"]) == (4, 8000)
    assert found["config"]["defense"]["eps_law"] == "clipped"


def test_data_that_is_not_there_stops_the_run_before_training(tmp_path):
    with pytest.raises(RunError, match="tfds build mnist"):
        run.train(tables(), tmp_path / "run", data_dir=str(tmp_path))
    assert not (tmp_path / "run" / "model.keras").exists()
