import logging

import keras
import numpy as np
import pytest

from tfadv.training import Best
from tfadv.workdir import Workdir


def network(value):
    """A classifier whose only weight says which it is."""
    dense = keras.layers.Dense(1, use_bias=False)
    made = keras.Sequential([keras.Input((1,)), dense])
    made.set_weights([np.full((1, 1), value, np.float32)])
    return made


@pytest.fixture
def workdir(tmp_path):
    return Workdir(tmp_path / "run")


def kept(workdir):
    """{step: the value of the network that is kept}."""
    return {
        step: keras.models.load_model(workdir.best_file(step)).get_weights()[0].item()
        for step in workdir.best_steps()
    }


def measured(best, *accuracies, first=1):
    for step, accuracy in enumerate(accuracies, start=first):
        best.consider(step, np.float32(accuracy), network(step))


def test_the_most_accurate_is_kept_and_of_equals_the_first(workdir):
    best = Best(workdir)
    best.begin()
    assert kept(workdir) == {}
    measured(best, 0.25, 0.5, 0.5, 0.125)
    best.tidy()
    assert kept(workdir) == {2: 2.0}
    assert (float(best.accuracy), int(best.step)) == (0.5, 2)
    assert [path.name for path in workdir.best.iterdir()] == ["step_2.keras"]


def test_an_accuracy_of_nothing_is_kept_until_there_is_more(workdir):
    best = Best(workdir)
    measured(best, 0.0, 0.0)
    best.tidy()
    assert kept(workdir) == {1: 1.0}


def test_what_is_no_number_is_not_the_best(workdir):
    best = Best(workdir)
    measured(best, np.nan)
    assert kept(workdir) == {}


def resumed(workdir, accuracy, step):
    """As it is after a checkpoint was restored that knew this much."""
    best = Best(workdir)
    best.accuracy.assign(accuracy)
    best.step.assign(step)
    best.begin()
    return best


def test_a_run_that_was_killed_finds_the_same_best(workdir):
    """Killed after step 4, with a checkpoint of step 2: 3 and 4 come again."""
    measured(Best(workdir), 0.25, 0.125, 0.5, 0.75)
    # What no checkpoint knows yet stays, and so does what one knows.
    assert set(kept(workdir)) == {1, 3, 4}
    best = resumed(workdir, 0.25, 1)
    assert kept(workdir) == {1: 1.0}
    measured(best, 0.5, 0.75, first=3)
    best.tidy()
    assert kept(workdir) == {4: 4.0}


def test_what_a_killed_write_has_left_goes(workdir):
    measured(Best(workdir), 0.5)
    (workdir.best / ".writing-abc").mkdir()
    resumed(workdir, 0.5, 1)
    assert [path.name for path in workdir.best.iterdir()] == ["step_1.keras"]


def test_a_file_that_is_missing_is_told_and_looked_for_anew(workdir, caplog):
    measured(Best(workdir), 0.5)
    workdir.best_file(1).unlink()
    with caplog.at_level(logging.WARNING, logger="absl"):
        best = resumed(workdir, 0.5, 1)
    assert "step_1.keras is missing" in caplog.text
    measured(best, 0.25, first=2)
    assert kept(workdir) == {2: 2.0}
