import types

import numpy as np
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


def trainable(name, seed=1, steps=40, full_steps=40, fold=None):
    data = {"data": {"name": "digits"}}
    return types.SimpleNamespace(
        name=name,
        seed=seed,
        steps_taken=steps,
        full_steps=full_steps,
        tables=data,
        fold=fold,
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

    def source(self, cell, target):
        return self.get(cell.source)


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
    column = before[0] | {"attack": "a column that it had"}
    corrected = before[0] | {"published": 1.0}
    second = [row for row in table.rows if row.name == "Second"]
    kept = [gone, column, corrected, *before[1:]]
    made = compose(table, {}, rows=second, before=kept)
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


# ------------------------------------------------------------------- folds and one-off


FOLDED = """
    title = "Two folds"
    folds = ["adience_0", "adience_1"]
    attacks = [
        { as = "fgs", name = "step_fgsm", metric = "one_off" },
        { as = "fgs_from", name = "step_fgsm", sources = ["hard"] },
    ]
    eps = ["16/256"]
    [[rows]]
    name = "R"
    model = "plain"
    clean = 56.73
    clean_one_off = 90.0
    fgs = nan
    fgs_from = 35.0
    sd = { clean = 2.5 }
    """


class Folds:
    """What `compose` asks of `models.Models`; one training was stopped early."""

    def of_row(self, row):
        return [
            trainable(row.model, seed=7, steps=steps, fold=fold)
            for steps, fold in ((40, "adience_0"), (20, "adience_1"))
        ]

    def source(self, cell, target):
        return cell.source and trainable(cell.source, fold=target.fold)


# By fold, attack and the source with its fold: right, nearly right.
OF_FOLDS = {
    ("adience_0", "clean", None): (0.6, 0.9),
    ("adience_1", "clean", None): (0.5, 0.8),
    ("adience_0", "fgs", None): (0.1, 0.4),
    ("adience_1", "fgs", None): (0.2, 0.5),
    ("adience_0", "fgs_from", ("hard", "adience_0")): (0.3, 0.6),
    ("adience_1", "fgs_from", ("hard", "adience_1")): (0.35, 0.7),
}


def of_folds(cell, target, source):
    attack = cell.attack.removesuffix("_one_off")
    by = source and (source.name, source.fold)
    accuracy, near = OF_FOLDS[target.fold, attack, by]
    n = 30 if target.fold == "adience_0" else 10
    return {"accuracy": accuracy, "one_off": near, "n": n, "ci95": [0.0, 1.0]}


def test_cells_over_folds_are_means_with_their_deviation(tmp_path):
    """Of the folds, not of all images; `metric` is there where it is not accuracy."""
    table = tiny.read(tmp_path, FOLDED + tiny.MODELS)
    made = outcome.compose(table, table.rows, Folds(), of_folds, fraction=1.0)
    assert made["data"] == "adience_0, adience_1"
    clean, near, fgs, black = made["cells"]
    # Mean 55, deviations 5 and -5: sd = sqrt(50 / 1) = 7.07. 30 and 10 images.
    assert clean == {
        "row": "R",
        "attack": "clean",
        "eps": 0.0,
        "source": None,
        "published": 56.73,
        "published_sd": 2.5,
        "measured": 55.0,
        "measured_sd": 7.07,
        "ci95": None,
        "n": 40,
        "seed": 7,
        "folds": ["adience_0", "adience_1"],
        "steps": 30,
        "steps_of": 40,
    }
    assert near == clean | {
        "attack": "clean_one_off",
        "metric": "one_off",
        "published": 90.0,
        "published_sd": None,
        "measured": 85.0,
    }
    assert (fgs["metric"], fgs["measured"], fgs["measured_sd"]) == (
        *("one_off", 45.0),
        7.07,
    )
    # 30 and 35: sd = sqrt(2 * 2.5^2) = 3.54.
    assert (black["source"], black["measured"], black["measured_sd"]) == (
        *("hard", 32.5),
        3.54,
    )
    assert "metric" not in black
    page = outcome.document(made).splitlines()
    assert page[2] == (
        "Data: adience_0, adience_1. Trained for whole schedules. Accuracy and one-off "
        "(the class or one beside it) in percent, means over the folds +- their "
        "standard deviation; difference = measured - published."
    )
    assert page[4:] == [
        "|  |  | clean | one-off clean | one-off fgs 0.0625 | fgs 0.0625 from hard |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
        "| R | published | 56.7 +-2.50 | 90.0 | - | 35.0 |",
        "| 30 of 40 steps | measured | 55.0 +-7.07 | 85.0 +-7.07 | 45.0 +-7.07 | "
        "32.5 +-3.54 |",
        "| seed 7, 2 folds, 40 images | difference | -1.7 | -5.0 |  | -2.5 |",
    ]


def test_a_fold_that_is_not_measured_leaves_no_mean(tmp_path):
    table = tiny.read(tmp_path, FOLDED + tiny.MODELS)

    def some(cell, target, source):
        if (cell.attack, target.fold) == ("clean", "adience_1"):
            return None
        return of_folds(cell, target, source)

    made = outcome.compose(table, table.rows, Folds(), some, fraction=1.0)
    values = [cell["measured"] for cell in made["cells"]]
    assert values == [None, 85.0, 45.0, 32.5]
    assert made["cells"][0]["n"] is None
    assert "measured_sd" not in made["cells"][0]


def test_one_fold_has_no_deviation(tmp_path):
    table = tiny.read(tmp_path, FOLDED + tiny.MODELS)
    one = types.SimpleNamespace(
        of_row=lambda row: Folds().of_row(row)[:1], source=Folds().source
    )
    made = outcome.compose(table, table.rows, one, of_folds, fraction=1.0)
    clean = made["cells"][0]
    assert (clean["measured"], clean["measured_sd"], clean["n"]) == (60.0, None, 30)
    assert clean["folds"] == ["adience_0"]


def test_one_off_of_a_single_model_has_its_own_interval(tmp_path):
    text = """
    title = "No folds"
    attacks = ["step_fgsm"]
    eps = ["16/255"]
    [[rows]]
    name = "R"
    model = "plain"
    clean = 50.0
    clean_one_off = 90.0
    """
    table = tiny.read(tmp_path, text + tiny.MODELS)

    def found(cell, target, source):
        counted = {"accuracy": 0.5, "one_off": 27 / 30, "n": 30, "ci95": [0.33, 0.67]}
        return {"attack": "clean", "eps": 0.0, **counted}

    made = outcome.compose(table, table.rows, Models(), found, fraction=1.0)
    clean, near = made["cells"]
    assert (clean["measured"], clean["ci95"]) == (50.0, [33.0, 67.0])
    # Wilson's interval by hand.
    z, p, n = 1.959964, 0.9, 30
    middle, spread = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + (z / n) ** 2 / 4)
    expected = [100 * (middle + s * spread) / (1 + z**2 / n) for s in (-1, 1)]
    np.testing.assert_allclose(near["ci95"], expected, atol=0.006)
    assert (near["measured"], near["metric"]) == (90.0, "one_off")
    assert "folds" not in near and "measured_sd" not in near


# ------------------------------------------------------------ what Kurakin et al. count


MEASURES = """
    title = "Measures"
    attacks = [
        { as = "error", name = "step_fgsm", metric = "error_rate" },
        { as = "rate", name = "pgd", metric = "transfer_rate", sources = ["b"] },
        { as = "rate5", name = "pgd", metric = "top5_transfer_rate", sources = ["b"] },
        { as = "error5", name = "pgd", metric = "top5_error_rate", sources = ["b"] },
    ]
    eps = ["16/255"]
    [models.b]
    config = "plain.toml"
    [[rows]]
    name = "R"
    model = "plain"
    clean_top5 = 95.0
    error = 60.0
    rate = 50.0
    rate5 = 40.0
    error5 = 30.0
    """
COUNTED = {
    "attack": "any",
    "eps": 16 / 255,
    "accuracy": 0.3,
    "ci95": [0.2, 0.4],
    "n": 80,
    "top5": 0.9,
    "transfer_rate": 0.75,
    "kept": 20,
    "top5_transfer_rate": 0.25,
    "top5_kept": 8,
}


def wilson(p, n):
    """The bounds in percent."""
    z = 1.959964
    middle, spread = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + (z / n) ** 2 / 4)
    return [100 * (middle + s * spread) / (1 + z**2 / n) for s in (-1, 1)]


def test_every_metric_is_a_share_of_its_own_images(tmp_path):
    table = tiny.read(tmp_path, MEASURES + tiny.MODELS)
    made = outcome.compose(
        table, table.rows, Models(), lambda *_: COUNTED, fraction=1.0
    )
    expected = {
        "clean_top5": ("top5", 90.0, 80, None),
        "error": ("error_rate", 70.0, 80, None),
        "rate": ("transfer_rate", 75.0, 20, 20),
        "rate5": ("top5_transfer_rate", 25.0, 8, 8),
        "error5": ("top5_error_rate", 10.0, 80, None),
    }
    assert [cell["attack"] for cell in made["cells"]] == list(expected)
    for cell in made["cells"]:
        metric, percent, of, kept = expected[cell["attack"]]
        assert (cell["metric"], cell["measured"]) == (metric, percent)
        assert (cell["n"], cell.get("kept")) == (80, kept)
        np.testing.assert_allclose(cell["ci95"], wilson(percent / 100, of), atol=0.006)
    page = outcome.document(made)
    assert (
        ". Top-5 (the class is among the five of the largest logits), error rate "
        "(what is not right), top-5 error rate (what is not right by top-5), transfer "
        "rate (of images that a source gets right and that then fool it, those that "
        "fool the model as well) and top-5 transfer rate (the same where right means "
        "top-5) in percent; difference"
    ) in page
    assert "| R | published | 95.0 | 60.0 | 50.0 | 40.0 | 30.0 |" in page
    assert " | measured | 90.0 | 70.0 | 75.0 | 25.0 | 10.0 |" in page
    assert "top-5 clean | error rate error 16/255 | " in page


def test_images_that_fool_no_source_have_no_rate(tmp_path):
    table = tiny.read(tmp_path, MEASURES + tiny.MODELS)
    nothing = COUNTED | {"transfer_rate": None, "kept": 0}
    made = outcome.compose(
        table, table.rows, Models(), lambda *_: nothing, fraction=1.0
    )
    none = next(cell for cell in made["cells"] if cell["attack"] == "rate")
    assert (none["measured"], none["ci95"], none["n"]) == (None, None, 80)
    assert none["kept"] == 0
    assert [c["measured"] for c in made["cells"]] == [90.0, 70.0, None, 25.0, 10.0]


def test_rates_of_folds_are_means(tmp_path):
    """Of 70 and 80 per cent: sd = sqrt(2 * 5^2). 10 and 20 images are kept."""
    folds = 'folds = ["adience_0", "adience_1"]'
    table = tiny.read(tmp_path, folds + MEASURES + tiny.MODELS)

    def found(cell, target, source):
        rate, kept = {"adience_0": (0.7, 10), "adience_1": (0.8, 20)}[target.fold]
        return COUNTED | {"transfer_rate": rate, "kept": kept}

    made = outcome.compose(table, table.rows, Folds(), found, fraction=1.0)
    rate = next(cell for cell in made["cells"] if cell["attack"] == "rate")
    assert (rate["measured"], rate["measured_sd"]) == (75.0, 7.07)
    assert (rate["n"], rate["kept"], rate["ci95"]) == (160, 30, None)


RATIOS = """
    title = "Ratios"
    attacks = [
        { name = "step_fgsm", metric = "robustness_ratio" },
        { as = "fgs5", name = "step_fgsm", metric = "top5_robustness_ratio" },
    ]
    eps = ["16/255"]
    [[rows]]
    name = "One"
    model = "plain"
    step_fgsm = "?"
    [[rows]]
    name = "Two seeds"
    model = "hard"
    seeds = 2
    step_fgsm = 104.5
    fgs5 = "?"
    """
# By seed: right when attacked and when clean, the same of top-5.
SEEDS = {1: (0.3, 0.6, 0.9, 0.9), 2: (0.6, 0.8, 0.4, 0.8)}


def attacked_and_clean(cell, target, source):
    right, clean, top5, clean5 = SEEDS[target.seed]
    row = {"accuracy": right, "top5": top5, "n": 200, "ci95": [0.0, 1.0]}
    return row | {"clean": {"accuracy": clean, "top5": clean5}}


def test_a_ratio_over_seeds_is_the_mean_of_their_ratios(tmp_path):
    """1/2 and 3/4, not 0.9 / 1.4; of top-5 1 and 1/2. sd = difference / sqrt(2)."""
    table = tiny.read(tmp_path, RATIOS + tiny.MODELS)
    made = outcome.compose(
        table, table.rows, Models(seeds=(1, 2)), attacked_and_clean, fraction=1.0
    )
    one, two, five = made["cells"]
    # No interval is known of a single one.
    assert (one["measured"], one["ci95"], one["n"]) == (50.0, None, 200)
    assert (two["measured"], two["measured_sd"]) == (62.5, 17.68)
    assert (five["measured"], five["measured_sd"]) == (75.0, 35.36)
    assert (two["metric"], five["metric"]) == (
        *("robustness_ratio", "top5_robustness_ratio"),
    )
    # More than the clean accuracy, where labels leak.
    assert (one["published"], two["published"]) == (None, 104.5)
    page = outcome.document(made)
    assert (
        ". Robustness ratio (accuracy divided by that on clean images) and top-5 "
        "robustness ratio (the same of top-5) in percent; difference"
    ) in page
    assert "| robustness ratio step_fgsm 16/255 |" in page


def test_a_ratio_to_nothing_right_is_none(tmp_path):
    table = tiny.read(tmp_path, RATIOS + tiny.MODELS)

    def found(cell, target, source):
        row = attacked_and_clean(cell, target, source)
        return row | {"clean": {"accuracy": 0.0, "top5": 0.5}}

    made = outcome.compose(table, table.rows, Models(seeds=(1, 2)), found, fraction=1.0)
    one, two, five = made["cells"]
    assert (one["measured"], one["n"], two["measured"]) == (None, 200, None)
    # 0.9 / 0.5 and 0.4 / 0.5.
    assert five["measured"] == 130.0


def test_what_a_figure_needs_beside_the_cells(tmp_path, table):
    assert "figure" not in compose(table, {})
    noise = 'attacks = ["step_fgsm", { as = "noise", name = "random_sign" }]'
    text = TABLE.replace('attacks = ["step_fgsm"]', noise).replace(
        "clean = 97.0", "step_fgsm = [1, 2]"
    )
    text = text.replace("[[rows]]", '[figure]\n    x = "eps"\n    [[rows]]', 1)
    drawn = tiny.read(tmp_path, text + tiny.MODELS)
    assert compose(drawn, {})["figure"] == {
        "x": "eps",
        "metric": "accuracy",
        "controls": ["noise"],
    }


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
