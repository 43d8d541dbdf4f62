import pytest

from tfadv import config
from tfadv.analysis import rows
from tfadv.errors import UsageError
from tfadv.evaluation import suite
from tfadv.evaluation.whitebox import row

PGD = "pgd(steps=40, restarts=2)"


def run(*cells, name="runs/a"):
    """A run with the clean row and one for each (label, pixels)."""
    found = [row("clean", 0.0, 9, 10)]
    found += [row(label, e / 255, e % 10, 10) for label, e in cells]
    return {"workdir": name, "config": {}, "rows": found}


FULL = run(*((label, e) for label in ("step_ll", PGD, "random_sign") for e in (8, 16)))
LESS = run(("random_sign", 16), ("step_ll", 16), ("step_ll", 4), ("iter_ll", 16))


def test_without_a_choice_all_that_is_shared():
    assert rows.chosen([FULL]) == (
        ["step_ll", PGD, "random_sign"],
        [8 / 255, 16 / 255],
    )
    assert rows.chosen([FULL, LESS]) == (["step_ll", "random_sign"], [16 / 255])


def test_a_choice_by_name_or_label():
    names = ["pgd", "step_ll", "pgd", "step_fgsm"]
    found = rows.chosen([LESS, FULL], names, [0.2, 0.1, 0.2])
    # An attack that no run has: `rows_of` will tell how to measure it.
    assert found == ([PGD, "step_ll", "step_fgsm"], [0.1, 0.2])
    assert rows.chosen([FULL], [PGD])[0] == [PGD]


@pytest.mark.parametrize(
    ("runs", "names", "sizes", "message"),
    [
        ([FULL], ["step_l"], None, "unknown attack 'step_l'.*'step_ll'"),
        ([FULL, run(("pgd(steps=3)", 8))], ["pgd"], None, "may be pgd.steps=40.* or "),
        ([FULL], None, [16.0], "--eps: .*'16/255'"),
        ([FULL, run(("iter_ll", 8))], None, None, "share no attack: .*--attacks"),
        ([FULL, run(("step_ll", 4))], None, None, "share no eps"),
    ],
)
def test_choices_that_cannot_be(runs, names, sizes, message):
    with pytest.raises(UsageError, match=message):
        rows.chosen(runs, names, sizes)


def test_rows_come_in_the_order_of_the_choice():
    found = rows.rows_of(FULL, ["random_sign", "step_ll"], [8 / 255, 16 / 255])
    assert [(r["attack"], round(r["eps"] * 255), r["accuracy"]) for r in found] == [
        ("clean", 0, 0.9),
        ("random_sign", 8, 0.8),
        ("random_sign", 16, 0.6),
        ("step_ll", 8, 0.8),
        ("step_ll", 16, 0.6),
    ]


def test_of_a_row_measured_twice_the_first_counts():
    twice = run(("step_ll", 8), ("step_ll", 8))
    twice["rows"][2] = row("step_ll", 8 / 255, 1, 10)
    assert rows.rows_of(twice, ["step_ll"], [8 / 255])[1]["accuracy"] == 0.8


def test_a_missing_row_names_the_command_that_measures_it():
    with pytest.raises(UsageError) as caught:
        rows.rows_of(LESS, ["step_ll", "iter_ll"], [4 / 255, 16 / 255])
    # All that was asked for: bin/evaluate replaces what it wrote before.
    assert str(caught.value) == (
        "runs/a has no row of iter_ll at eps 4/255. This measures them: bin/evaluate "
        "--workdir=runs/a --attacks=step_ll,iter_ll --eps=4/255,16/255"
    )


def test_the_command_for_attacks_with_arguments():
    text = rows.command("my runs/a", ["step_ll", PGD], [0.3])
    assert text == (
        "bin/evaluate '--workdir=my runs/a' --set 'evaluate.attacks=[\"step_ll\", "
        '{name = "pgd", steps = 40, restarts = 2}]\' --eps=0.3'
    )


@pytest.mark.parametrize(
    "written",
    [
        "step_ll",
        {"name": "pgd", "steps": 4, "random_start": False},
        {"name": "iter_fgsm", "label": "predicted", "step_size": "2/255"},
        {"name": "pgd", "step_size": 0.01},
    ],
)
def test_the_command_measures_under_the_same_label(written):
    evaluate = config.Evaluate(attacks=(written,), eps=(0.1,))
    label = suite.build(evaluate, where="here")[0].label
    text = rows.command("a", [label, "pgd(steps=3)"], [0.1])
    override = text.partition("--set '")[2].partition("' --eps")[0]
    read = config.override(config.Config(), [override])["evaluate"]["attacks"]
    again = suite.build(config.Evaluate(attacks=tuple(read), eps=(0.1,)), where="here")
    assert again[0].label == label


def test_the_worst_case_of_a_run_is_no_attack():
    runs = [
        {
            "workdir": name,
            "rows": [
                {"attack": attack, "eps": 0.1}
                for attack in ("step_ll", "pgd", "worst case")
            ],
        }
        for name in ("a", "b")
    ]
    assert rows.chosen(runs) == (["step_ll", "pgd"], [0.1])


def test_what_was_crafted_on_a_twin_alone_cannot_be_asked_for():
    names = ("step_ll in bfloat16", "step_ll", "pgd(steps=4) in bfloat16", PGD)
    found = [{"attack": name, "eps": 0.1} for name in names]
    assert rows.chosen([{"workdir": "a", "rows": found}])[0] == ["step_ll", PGD]


def test_sizes_that_were_measured_in_l2_may_exceed_1():
    found = [{"attack": "pgd(norm=l2)", "eps": 1.5}]
    assert rows.chosen([{"workdir": "a", "rows": found}]) == (["pgd(norm=l2)"], [1.5])
