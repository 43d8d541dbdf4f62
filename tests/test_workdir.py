import copy
import json

import pytest

from tfadv.errors import RunError, UsageError
from tfadv.workdir import Workdir

RESOLVED = {
    "attack": {"name": "step_ll", "eps": 0.1},
    "train": {"steps": 100, "seed": 0, "full_steps": None},
    "evaluate": {"eps": (0.1, 0.2), "num_examples": None},
}


def changed(section, key, value):
    resolved = copy.deepcopy(RESOLVED)
    resolved.setdefault(section, {})[key] = value
    return resolved


@pytest.fixture
def workdir(tmp_path):
    return Workdir(tmp_path / "run")


def stored(workdir):
    return json.loads(workdir.config.read_text())


@pytest.mark.parametrize("exists", [False, True])
def test_a_new_or_empty_directory_is_claimed(workdir, exists):
    if exists:
        workdir.path.mkdir()
    workdir.claim(RESOLVED)
    assert stored(workdir) == json.loads(json.dumps(RESOLVED))
    assert workdir.read_config() == stored(workdir)


def test_the_same_configuration_may_continue(workdir):
    workdir.claim(RESOLVED)
    workdir.checkpoints.mkdir()
    workdir.claim(copy.deepcopy(RESOLVED))
    # As a later process holds it: lists where tuples were.
    workdir.claim(workdir.read_config())
    assert workdir.checkpoints.is_dir()


def test_only_evaluate_may_differ(workdir):
    workdir.claim(RESOLVED)
    other = changed("evaluate", "eps", (0.3,))
    workdir.claim(other)
    assert stored(workdir)["evaluate"]["eps"] == [0.3]


@pytest.mark.parametrize(
    "section, key, value, message",
    [
        ("train", "steps", 200, "train.steps is 100 there and 200 here"),
        ("train", "full_steps", 9, "train.full_steps is None there and 9 here"),
        ("attack", "name", "pgd", "attack.name is 'step_ll' there and 'pgd' here"),
        ("defense", "k", 3, "defense.k is None there and 3 here"),
    ],
)
def test_another_configuration_is_refused(workdir, section, key, value, message):
    workdir.claim(RESOLVED)
    before = workdir.config.read_bytes()
    with pytest.raises(UsageError) as caught:
        workdir.claim(changed(section, key, value))
    assert message in str(caught.value) and str(workdir.path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert workdir.config.read_bytes() == before


def test_a_difference_beside_evaluate_is_still_refused(workdir):
    workdir.claim(RESOLVED)
    other = changed("evaluate", "eps", (0.3,))
    other["train"]["seed"] = 1
    with pytest.raises(UsageError) as caught:
        workdir.claim(other)
    assert "train.seed" in str(caught.value) and "evaluate" not in str(caught.value)


def test_a_removed_section_is_a_difference(workdir):
    workdir.claim(RESOLVED)
    without = {k: v for k, v in RESOLVED.items() if k != "attack"}
    with pytest.raises(UsageError, match=r"attack\.name is 'step_ll' there and None"):
        workdir.claim(without)


def test_a_foreign_directory_is_refused(workdir):
    workdir.path.mkdir()
    (workdir.path / "thesis.txt").write_text("precious")
    with pytest.raises(RunError, match=r"not empty and holds no config\.json"):
        workdir.claim(RESOLVED)
    assert [p.name for p in workdir.path.iterdir()] == ["thesis.txt"]


def test_a_file_is_refused(workdir):
    workdir.path.write_text("precious")
    with pytest.raises((RunError, UsageError), match=str(workdir.path)):
        workdir.claim(RESOLVED)
    assert workdir.path.read_text() == "precious"


def test_what_a_killed_first_claim_leaves_is_no_obstacle(workdir):
    (workdir.path / ".writing-abc").mkdir(parents=True)
    workdir.claim(RESOLVED)
    assert workdir.config.exists()


@pytest.mark.parametrize("damage", ["", '{"train": {"ste', "[1, 2]", '{"train": 3}'])
def test_a_damaged_configuration(workdir, damage):
    workdir.path.mkdir()
    workdir.config.write_text(damage)
    with pytest.raises(RunError, match=r"config\.json") as caught:
        workdir.claim(RESOLVED)
    assert "\n" not in str(caught.value)
    assert workdir.config.read_text() == damage


def test_reading_what_was_never_claimed(workdir):
    with pytest.raises(UsageError, match=r"no config\.json") as caught:
        workdir.read_config()
    assert f"--workdir={workdir.path}" in str(caught.value)


def test_trained_model_only_after_training(workdir):
    workdir.claim(RESOLVED)
    with pytest.raises(UsageError, match="no trained model yet"):
        workdir.trained_model()
    workdir.model.write_bytes(b"")
    assert workdir.trained_model() == workdir.path / "model.keras"


def test_steps_of_a_run(tmp_path):
    """Those that were asked for, or fewer where it stopped early."""
    workdir = Workdir(tmp_path / "run")
    workdir.claim({"train": {"steps": 20}})
    assert workdir.steps() == 20
    workdir.stopped.write_text('{"steps": 12}')
    assert workdir.steps() == 12


def test_the_best_classifier_of_a_finished_run(workdir):
    workdir.claim(RESOLVED)
    with pytest.raises(UsageError, match="holds no trained model yet"):
        workdir.trained_model("best")
    workdir.model.touch()
    assert workdir.trained_model() == workdir.model
    with pytest.raises(UsageError, match=r"kept no best.*--checkpoint=last"):
        workdir.trained_model("best")
    workdir.best.mkdir()
    workdir.best_file(50).touch()
    (workdir.best / ".writing-1").mkdir()
    assert workdir.trained_model("best") == workdir.path / "best" / "step_50.keras"
    assert (workdir.steps("best"), workdir.steps()) == (50, 100)


@pytest.mark.parametrize(
    ("attack", "holdout", "refused"),
    [(None, 9, True), (None, 0, False), ({"name": "pgd", "eps": 0.1}, 9, False)],
)
def test_the_best_of_an_undefended_run_is_chosen_at_one_eps(
    workdir, attack, holdout, refused
):
    resolved = {**RESOLVED, "data": {"holdout": holdout}}
    resolved.pop("attack")
    resolved |= {} if attack is None else {"attack": attack}
    other = copy.deepcopy(resolved)
    other["evaluate"]["eps"] = (0.3,)
    workdir.claim(resolved)
    if refused:
        with pytest.raises(UsageError, match=r"evaluate\.eps is .* there and"):
            workdir.claim(other)
        # When it has been chosen, anything may be measured.
        workdir.model.write_text("")
        workdir.saved_model.mkdir()
    workdir.claim(other)
    assert stored(workdir)["evaluate"]["eps"] == [0.3]
