import pytest

from tfadv.analysis import accuracy_curve
from tfadv.errors import UsageError
from tfadv.evaluation.whitebox import row


def run(**defense):
    return {
        "workdir": "runs/a",
        "config": {
            "model": {"name": "lenet", "width": 2},
            "defense": {"name": "unified_embedding", **defense},
            "train": {"steps": 10, "seed": defense.get("k", 0)},
            "evaluate": {"eps": [defense.get("k", 0)]},
        },
        "rows": [],
    }


def test_the_value_under_a_dotted_key():
    one = run(embedding_weight=1e-4)
    assert accuracy_curve.value(one, "defense.embedding_weight") == 1e-4
    assert accuracy_curve.value(one, "train.steps") == 10


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("defense.embeding_weight", "has no .*'defense.embedding_weight'.*--key"),
        ("embedding_weight", "has no 'embedding_weight'"),
        ("defense.mode", "defense.mode is 'pivot'; expected a number"),
        ("defense.half", "is True; expected a number"),
        ("defense.k", "is None; expected a number"),
    ],
)
def test_what_is_no_value(key, message):
    one = run(embedding_weight=1e-4, mode="pivot", half=True)
    one["config"]["defense"]["k"] = None
    with pytest.raises(UsageError, match=f"^runs/a: .*{message}"):
        accuracy_curve.value(one, key)


# Wilson's lower bound of 14 in 100 is 0.085, of 17 in 100 it is 0.109.
@pytest.mark.parametrize(
    ("correct", "n", "classes", "diverged"),
    [(10, 100, 10, True), (14, 100, 10, True), (17, 100, 10, False), (0, 9, 10, True)],
)
def test_at_chance(correct, n, classes, diverged):
    assert accuracy_curve.at_chance(row("clean", 0.0, correct, n), classes) is diverged


def test_chance_depends_on_the_number_of_classes():
    clean = row("clean", 0.0, 10, 100)
    assert accuracy_curve.at_chance(clean, 10)
    assert not accuracy_curve.at_chance(clean, 100)


def test_other_differences_are_told_but_not_seed_and_evaluation():
    runs = [run(k=1, weight=0.1), run(k=2, weight=0.2), run(k=1, weight=0.1, norm=1)]
    found = accuracy_curve.also_differ(runs, "defense.weight")
    assert sorted(found) == ["defense.k", "defense.norm"]
    assert accuracy_curve.also_differ(runs[:1], "defense.weight") == []
