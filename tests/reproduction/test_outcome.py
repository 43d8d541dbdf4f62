import types

import pytest

from tests.reproduction import tiny
from tfadv.reproduction import outcome

TABLE = """
    title = "A title"
    attacks = ["step_fgsm"]
    eps = ["16/255", "32/255"]
    [[rows]]
    name = "First"
    model = "plain"
    note = "not as it was"
    clean = 99.0
    step_fgsm = [nan, 12.5]
    [[rows]]
    name = "Second"
    model = "hard"
    seeds = 3
    clean = 98.0
    step_fgsm = [50, nan]
    sd = { clean = 0.5 }
    [[rows]]
    name = "Third"
    model = "hard"
    clean = 97.0
    """


def trainable(name, seed=1, steps=40, full_steps=40):
    data = {"data": {"name": "digits"}}
    return types.SimpleNamespace(
        name=name, seed=seed, steps=steps, full_steps=full_steps, tables=data
    )


class Models:
    """What `compose` asks of `models.Models`."""

    def __init__(self, seeds=(1, 2, 3)):
        self.get = {"plain": trainable("plain", steps=20)}.get
        self.seeds = [trainable("hard", seed) for seed in seeds]

    def of_row(self, row):
        if row.seeds:
            return self.seeds
        return [trainable(row.model, steps=20 if row.model == "plain" else 30)]


def measured(accuracies):
    """`found` of a table: {(row's model, seed, attack, eps in pixels): accuracy}."""

    def found(cell, target, source):
        by = () if source is None else (source.name,)
        key = (target.name, target.seed, cell.attack, round(255 * cell.eps), *by)
        if key not in accuracies:
            return None
        accuracy = accuracies[key]
        ci95 = [accuracy - 0.125, accuracy + 0.00125]
        return {"accuracy": accuracy, "n": 2000, "ci95": ci95}

    return found


ALL = {
    ("plain", 1, "clean", 0): 0.9904,
    ("plain", 1, "step_fgsm", 16): 0.25,
    ("plain", 1, "step_fgsm", 32): 0.1234567,
    # Mean 97, deviations 1, 0, -1: sd = sqrt(2 / 2) = 1.
    ("hard", 1, "clean", 0): 0.98,
    ("hard", 2, "clean", 0): 0.97,
    ("hard", 3, "clean", 0): 0.96,
    # Mean 51, deviations -1, -1, 2: sd = sqrt(6 / 2) = 1.732.
    ("hard", 1, "step_fgsm", 16): 0.50,
    ("hard", 2, "step_fgsm", 16): 0.50,
    ("hard", 3, "step_fgsm", 16): 0.53,
}


@pytest.fixture
def table(tmp_path):
    return tiny.read(tmp_path, TABLE + tiny.MODELS, "a_table")


def compose(table, accuracies, rows=None, models=None, **options):
    rows = table.rows if rows is None else rows
    found = measured(accuracies)
    options = {"fraction": 1.0} | options
    return outcome.compose(table, rows, models or Models(), found, **options)


def by_place(made):
    return {(c["row"], c["attack"], round(255 * c["eps"])): c for c in made["cells"]}


def test_what_is_around_the_cells(table):
    made = compose(table, ALL, fraction=0.25)
    assert set(made) == {
        *("table", "title", "data", "fraction", "versions", "notes", "cells")
    }
    assert (made["table"], made["title"]) == ("a_table", "A title")
    assert (made["data"], made["fraction"]) == ("digits", 0.25)
    assert made["notes"] == {"First": "not as it was"}
    assert "tensorflow" in made["versions"]


def test_a_cell_is_in_percent(table):
    cells = by_place(compose(table, ALL))
    assert list(cells) == [
        ("First", "clean", 0),
        ("First", "step_fgsm", 16),
        ("First", "step_fgsm", 32),
        ("Second", "clean", 0),
        ("Second", "step_fgsm", 16),
        ("Second", "step_fgsm", 32),
        ("Third", "clean", 0),
    ]
    assert cells["First", "step_fgsm", 32] == {
        "row": "First",
        "attack": "step_fgsm",
        "eps": 32 / 255,
        "source": None,
        "published": 12.5,
        "measured": 12.35,
        "ci95": [-0.15, 12.47],
        "n": 2000,
        "seed": 1,
        "steps": 20,
        "steps_of": 40,
    }
    assert cells["First", "step_fgsm", 16]["published"] is None
    # Another row of another model has its own steps.
    assert cells["Third", "clean", 0]["steps"] == 30


def test_a_cell_over_seeds_is_a_mean_with_its_deviation(table):
    cells = by_place(compose(table, ALL))
    assert cells["Second", "clean", 0] == {
        "row": "Second",
        "attack": "clean",
        "eps": 0.0,
        "source": None,
        "published": 98.0,
        "published_sd": 0.5,
        "measured": 97.0,
        "measured_sd": 1.0,
        "ci95": None,
        "n": 2000,
        "seed": [1, 2, 3],
        "steps": 40,
        "steps_of": 40,
    }
    attacked = cells["Second", "step_fgsm", 16]
    assert (attacked["measured"], attacked["measured_sd"]) == (51.0, 1.73)
    assert attacked["published_sd"] is None


def test_one_seed_has_no_deviation(table):
    cells = by_place(compose(table, ALL, models=Models(seeds=[1])))
    assert cells["Second", "clean", 0]["measured"] == 98.0
    assert cells["Second", "clean", 0]["measured_sd"] is None


def test_what_is_not_measured_is_none_and_so_is_a_mean_over_some(table):
    some = {k: v for k, v in ALL.items() if k != ("hard", 2, "clean", 0)}
    cells = by_place(compose(table, some))
    assert cells["First", "clean", 0]["measured"] == 99.04
    for key in ("measured", "n", "ci95"):
        assert cells["Second", "clean", 0][key] is None
    assert "measured_sd" not in cells["Second", "clean", 0]
    # Nothing right is a measurement too.
    zero = by_place(compose(table, {("plain", 1, "clean", 0): 0.0}))
    assert zero["First", "clean", 0]["measured"] == 0.0


def test_rows_that_are_not_measured_now_keep_what_they_had(table):
    before = compose(table, ALL, fraction=0.5)["cells"]
    gone = before[0] | {"row": "A row that the table had", "measured": 1.0}
    second = [row for row in table.rows if row.name == "Second"]
    made = compose(table, {}, rows=second, before=[gone, *before])
    was, now = by_place({"cells": before}), by_place(made)
    assert list(now) == list(was)
    for place, cell in now.items():
        if place[0] == "Second":
            assert cell["measured"] is None
        else:
            assert cell == was[place]
    # What was never measured is not there.
    assert {c["row"] for c in compose(table, {}, rows=second)["cells"]} == {"Second"}


BLACK = """
    title = "Black box"
    attacks = ["step_fgsm"]
    eps = ["16/255"]
    sources = ["plain", "hard"]
    [[rows]]
    name = "P"
    model = "plain"
    step_fgsm = [40.0, nan]
    """


def test_cells_of_a_black_box_table_name_their_source(tmp_path):
    table = tiny.read(tmp_path, BLACK + tiny.MODELS)
    (cell,) = compose(table, {("plain", 1, "step_fgsm", 16, "plain"): 0.5})["cells"]
    assert (cell["source"], cell["published"], cell["measured"]) == ("plain", 40, 50)
    text = outcome.render(compose(table, {}))
    assert "step_fgsm 16/255 from plain" in text


# ---------------------------------------------------------------------------- as a text


SMALL = {
    "title": "A title",
    "data": "digits",
    "fraction": 1.0,
    "notes": {"B": "as released", "C": "not measured"},
    "cells": [
        {
            "row": "A",
            "attack": "clean",
            "eps": 0.0,
            "source": None,
            "published": 99.6,
            "measured": 99.56,
            "n": 1500,
            "seed": 7,
            "steps": 800,
            "steps_of": 8000,
        },
        {
            "row": "A",
            "attack": "pgd",
            "eps": 16 / 255,
            "source": None,
            "published": None,
            "measured": 20.0,
            "n": 1500,
            "seed": 7,
            "steps": 800,
            "steps_of": 8000,
        },
        {
            "row": "B",
            "attack": "pgd",
            "eps": 16 / 255,
            "source": None,
            "published": 30.0,
            "published_sd": 1.0,
            "measured": 20.04,
            "measured_sd": 0.5,
            "n": 30,
            "seed": [1, 2],
            "steps": 8000,
            "steps_of": 8000,
        },
        {
            "row": "B",
            "attack": "pgd",
            "eps": 32 / 255,
            "source": None,
            "published": 5.0,
            "published_sd": None,
            "measured": None,
            "n": None,
            "seed": [1, 2],
            "steps": 8000,
            "steps_of": 8000,
        },
    ],
}


# Of -0.04 no sign is left; 20.04 - 30 = -9.96.
TEXT = """
                                  clean   pgd 16/255  pgd 32/255
A                     published    99.6            -
800 of 8,000 steps    measured     99.6         20.0
seed 7, 1,500 images  difference   +0.0
B                     published          30.0 +-1.00         5.0
8,000 of 8,000 steps  measured           20.0 +-0.50           -
2 seeds, 30 images    difference               -10.0

B: as released.
"""

MARKDOWN = """
|  |  | clean | pgd 16/255 | pgd 32/255 |
| --- | --- | ---: | ---: | ---: |
| A | published | 99.6 | - |  |
| 800 of 8,000 steps | measured | 99.6 | 20.0 |  |
| seed 7, 1,500 images | difference | +0.0 |  |  |
| B | published |  | 30.0 +-1.00 | 5.0 |
| 8,000 of 8,000 steps | measured |  | 20.0 +-0.50 | - |
| 2 seeds, 30 images | difference |  | -10.0 |  |

B: as released.
"""


def test_render_by_hand():
    assert outcome.render(SMALL).splitlines() == TEXT.strip("\n").splitlines()


def test_markdown_by_hand():
    assert outcome.render(SMALL, markdown=True) == MARKDOWN.strip("\n")


def test_white_and_black_box_stand_side_by_side():
    """A black-box column says whose images they are, once, whatever its name."""
    cells = [
        SMALL["cells"][0]
        | {"attack": attack, "eps": eps, "source": source, "published": number}
        for attack, eps, source, number in (
            ("clean", 0.0, None, 99.14),
            ("fgs", 0.3, None, 36.0),
            ("fgs_from", 0.3, "A2", 69.37),
            ("fgs_from", 0.3, "B2", 92.88),
            # Of a white-box attack no part of the name is left out.
            ("far_from", 0.3, None, 10.0),
            ("pgd", 16 / 255, "A2", 37.1),
        )
    ]
    page = outcome.render(SMALL | {"cells": cells}, markdown=True).splitlines()
    assert page[0] == (
        "|  |  | clean | fgs 0.3 | fgs 0.3 from A2 | fgs 0.3 from B2 | far_from 0.3 | "
        "pgd 16/255 from A2 |"
    )
    assert page[2] == "| A | published | 99.1 | 36.0 | 69.4 | 92.9 | 10.0 | 37.1 |"


def test_before_anything_is_measured_no_number_of_images_is_known():
    cell = SMALL["cells"][0] | {"measured": None, "n": None}
    lines = outcome.render(SMALL | {"cells": [cell]}).splitlines()
    assert [line.split("  ")[0] for line in lines[1:]] == [
        *("A", "800 of 8,000 steps", "seed 7")
    ]
    assert lines[2].endswith(" -")


@pytest.mark.parametrize(
    ("fraction", "words"),
    [
        (1.0, "Trained for whole schedules."),
        (0.07, "Trained for 7 % of every schedule."),
        (0.125, "Trained for 12.5 % of every schedule."),
    ],
)
def test_a_page_says_what_it_is_of(fraction, words):
    page = outcome.document(SMALL | {"fraction": fraction})
    title, empty, about, _, *rest = page.splitlines()
    assert (title, empty) == ("# A title", "")
    assert about == (
        f"Data: digits. {words} Accuracy in percent; difference = measured - published."
    )
    assert rest == MARKDOWN.strip("\n").splitlines()
    assert page.endswith("released.\n")
