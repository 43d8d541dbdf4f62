"""The lines of a figure, by hand."""

import types

import pytest

from tests.reproduction import tiny
from tfadv.reproduction import curves, outcome

EPS_TABLE = """
    title = "Against eps"
    attacks = [
        "step_fgsm",
        { as = "noise", name = "random_sign" },
        { as = "top", name = "pgd", metric = "top5" },
    ]
    eps = ["4/255", "2/255"]
    [figure]
    x = "eps"
    [[rows]]
    name = "First"
    model = "plain"
    clean = "?"
    clean_top5 = "?"
    step_fgsm = ["?", "?"]
    noise = ["?", "?"]
    top = ["?", "?"]
    [[rows]]
    name = "Second"
    model = "hard"
    step_fgsm = ["?", "?"]
    """

AT_TABLE = """
    title = "Against a number"
    attacks = [
        { name = "step_ll", metric = "robustness_ratio" },
        { as = "fgs", name = "step_fgsm", metric = "robustness_ratio" },
    ]
    eps = ["4/255", "2/255"]
    [figure]
    x = "at"
    label = "width"
    metric = "robustness_ratio"
    [[rows]]
    name = "wide"
    model = "plain"
    at = 2
    group = "plain"
    clean = "?"
    step_ll = ["?", "?"]
    fgs = ["?", "?"]
    [[rows]]
    name = "narrow"
    model = "plain"
    at = 0.5
    group = "plain"
    step_ll = ["?", "?"]
    [[rows]]
    name = "hard"
    model = "hard"
    at = 2
    group = "defended"
    step_ll = ["?", "?"]
    """


class Models:
    """What `compose` asks of `models.Models`."""

    def of_row(self, row):
        return [
            types.SimpleNamespace(
                name=row.name,
                seed=seed,
                steps_taken=20,
                full_steps=20 if row.name == "Second" else 40,
                tables={"data": {"name": "digits"}},
                fold=None,
            )
            for seed in range(1, 1 + (row.seeds or 1))
        ]

    def source(self, cell, target):
        return cell.source and types.SimpleNamespace(name=cell.source)


def drawn(folder, text, accuracies):
    """The figure of a table: {(row, column, eps in pixels): accuracy}.

    Intervals are .2 wide; the clean accuracy of ratios is .5.
    """

    def found(cell, target, source):
        accuracy = accuracies.get((target.name, cell.attack, round(255 * cell.eps)))
        if isinstance(accuracy, tuple):
            accuracy = accuracy[target.seed - 1]
        if accuracy is None:
            return None
        return {
            "accuracy": accuracy,
            "top5": accuracy,
            "transfer_rate": accuracy,
            "kept": 10,
            "n": 10,
            "ci95": [accuracy - 0.1, accuracy + 0.1],
            "clean": {"accuracy": 0.5, "top5": 0.5},
        }

    table = tiny.read(folder, text + tiny.MODELS)
    return curves.of(outcome.compose(table, table.rows, Models(), found, fraction=1.0))


def line(label, x, y, low=None, high=None, *, control=False):
    none = [None] * len(x)
    return {
        "label": label,
        "control": control,
        "x": x,
        "y": pytest.approx(y),
        "low": none if low is None else pytest.approx(low),
        "high": none if high is None else pytest.approx(high),
    }


def test_rows_against_eps(tmp_path):
    """Lines begin at the clean images; what is not measured yet is left out."""
    found = drawn(
        tmp_path,
        EPS_TABLE,
        {
            ("First", "clean", 0): 0.9,
            ("First", "clean_top5", 0): 1.0,
            ("First", "step_fgsm", 2): 0.5,
            ("First", "step_fgsm", 4): 0.3,
            ("First", "noise", 4): 0.8,
            ("Second", "step_fgsm", 4): 0.6,
        },
    )
    assert (found["title"], found["x_label"]) == ("Against eps", "eps in pixels of 255")
    assert (found["y_label"], found["ordered"]) == ("accuracy in %", False)
    assert (found["reference"], found["band"]) == (None, "band: 95 % Wilson interval")
    assert found["panels"] == [
        [
            {
                "title": "First\n20 of 40 steps",
                "lines": [
                    line(
                        "step_fgsm",
                        [0, 2, 4],
                        [90, 50, 30],
                        [80, 40, 20],
                        [100, 60, 40],
                    ),
                    line("noise", [0, 4], [90, 80], [80, 70], [100, 90], control=True),
                ],
            },
            {
                "title": "Second\n20 steps",
                "lines": [line("step_fgsm", [4], [60], [50], [70])],
            },
        ]
    ]


def test_lines_of_another_metric(tmp_path):
    """Those of top-5, from clean top-5 on; the second row then needs one, too."""
    text = EPS_TABLE.replace('x = "eps"', 'x = "eps"\n    metric = "top5"').replace(
        'model = "hard"\n    step_fgsm', 'model = "hard"\n    top'
    )
    found = drawn(
        tmp_path, text, {("First", "clean_top5", 0): 1.0, ("First", "top", 2): 0.7}
    )
    assert found["y_label"] == "top-5 in %"
    first, second = found["panels"][0]
    (top,) = first["lines"]
    assert (top["label"], top["x"], top["y"]) == ("top", [0, 2], [100.0, 70.0])
    # Nothing is measured there, and the legend names it.
    assert second["lines"] == [line("top", [], [])]


def test_black_box_lines_name_their_source(tmp_path):
    """Two sources of one size, or one of two; a transfer rate has no clean images."""
    text = """
    title = "Black box"
    attacks = [
        { as = "fgs_from_transfer_rate", name = "step_fgsm", metric = "transfer_rate" },
        { as = "pgd_from_transfer_rate", name = "pgd", metric = "transfer_rate",
          sources = ["start", "hard"], eps = ["4/255"] },
    ]
    eps = ["2/255", "4/255"]
    sources = ["hard"]
    [figure]
    x = "eps"
    metric = "transfer_rate"
    [[rows]]
    name = "R"
    model = "plain"
    clean = "?"
    fgs_from_transfer_rate = ["?", "?"]
    pgd_from_transfer_rate = [nan, "?"]
    """.replace('"transfer_rate",\n         ', '"transfer_rate",')
    rates = {
        ("R", "fgs_from_transfer_rate", 2): 0.25,
        ("R", "fgs_from_transfer_rate", 4): 0.5,
        ("R", "pgd_from_transfer_rate", 4): 0.75,
        ("R", "clean", 0): 1.0,
    }
    ((panel,),) = drawn(tmp_path, text, rates)["panels"]
    shown = [(one["label"], one["x"], one["y"]) for one in panel["lines"]]
    assert shown == [
        ("fgs from hard", [2, 4], [25.0, 50.0]),
        ("pgd from hard", [4], [75.0]),
    ]


def test_four_rows_are_in_two_lines_of_panels(tmp_path):
    row = EPS_TABLE[EPS_TABLE.rindex("[[rows]]") :]
    more = "".join(row.replace("Second", name) for name in ("Third", "Fourth"))
    found = drawn(tmp_path, EPS_TABLE + more, {})
    names = [
        [panel["title"].split("\n")[0] for panel in side] for side in found["panels"]
    ]
    assert names == [["First", "Second", "Third"], ["Fourth"]]


def test_rows_against_their_numbers(tmp_path):
    """A panel an attack, down, and a group, across; a line an eps, with sorted x."""
    found = drawn(
        tmp_path,
        AT_TABLE,
        {
            ("wide", "clean", 0): 0.5,
            ("wide", "step_ll", 2): 0.45,
            ("narrow", "step_ll", 2): 0.4,
            ("narrow", "step_ll", 4): 0.3,
            ("hard", "step_ll", 4): 0.55,
            ("wide", "fgs", 4): 0.1,
        },
    )
    assert (found["x_label"], found["y_label"]) == ("width", "robustness ratio in %")
    assert (found["ordered"], found["reference"], found["band"]) == (True, 100, "")
    steps = "20 of 40 steps"
    assert found["panels"] == [
        [
            {
                "title": f"plain\nstep_ll, {steps}",
                "lines": [
                    line("eps 2/255", [0.5, 2], [80, 90]),
                    line("eps 4/255", [0.5], [60]),
                ],
            },
            {
                "title": f"defended\nstep_ll, {steps}",
                "lines": [
                    line("eps 2/255", [], []),
                    # Above 1: an attack that helps.
                    line("eps 4/255", [2], [110]),
                ],
            },
        ],
        [
            {
                "title": f"plain\nfgs, {steps}",
                "lines": [line("eps 2/255", [], []), line("eps 4/255", [2], [20])],
            },
            {"title": "defended\nno rows", "lines": []},
        ],
    ]


def test_without_groups_a_panel_has_no_name_but_the_attack(tmp_path):
    text = AT_TABLE.replace('    group = "plain"\n', "").replace(
        'at = 2\n    group = "defended"', "at = 3"
    )
    found = drawn(tmp_path, text, {})
    assert [[panel["title"] for panel in side] for side in found["panels"]] == [
        ["step_ll, 20 of 40 steps"],
        ["fgs, 20 of 40 steps"],
    ]


def test_bands_of_means_are_deviations(tmp_path):
    """80 and 60: 70 +- sqrt(2 * 10^2); one seed measured is no mean yet."""
    text = EPS_TABLE.replace('model = "hard"', 'model = "hard"\n    seeds = 2').replace(
        'model = "plain"', 'model = "plain"\n    seeds = 2'
    )
    found = drawn(
        tmp_path,
        text,
        {
            ("Second", "step_fgsm", 2): (0.8, 0.6),
            ("Second", "step_fgsm", 4): (0.8, None),
        },
    )
    assert found["band"] == "band: one standard deviation over seeds to each side"
    (second,) = found["panels"][0][1]["lines"]
    sd = round(200**0.5, 2)
    assert second == line("step_fgsm", [2], [70], [70 - sd], [70 + sd])
