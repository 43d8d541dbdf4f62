"""Outcomes of bin/reproduce: published beside measured."""

import numbers
import pathlib

from tfadv.errors import UsageError
from tfadv.evaluation import format_eps
from tfadv.files import read_json
from tfadv.report.html import charts
from tfadv.report.html.markup import join, scroll, tag
from tfadv.reproduction import curves, outcome, tables

# Differences of as many points and more have the full colour.
FULL = 20.0
NEEDED = {"table": str, "title": str, "fraction": numbers.Real, "cells": list}
CELL = ("row", "attack", "eps", "source", "published", "measured", "steps", "steps_of")


def check(paths):
    """UsageError where one of these files is missing; nothing is read."""
    for path in paths:
        if not pathlib.Path(path).is_file():
            raise UsageError(
                f"--outcomes: there is no file {path}: expected an outcome of "
                "bin/reproduce, such as results/na2018_table1.json"
            )


def read(path):
    """The outcome in a JSON file.

    Raises:
        UsageError: it is something else.
        RunError: it cannot be read.
    """
    found = read_json(path, "the outcome of a table")
    good = isinstance(found, dict) and all(
        isinstance(found.get(key), kind) for key, kind in NEEDED.items()
    )
    if not good or not all(
        isinstance(cell, dict) and all(key in cell for key in CELL)
        for cell in found["cells"]
    ):
        raise UsageError(
            f"--outcomes: {path} is not an outcome of bin/reproduce, which has "
            f"{', '.join(NEEDED)}"
        )
    return found


def of(made, path, *, level=2, anchor=None):
    """The part of a report that is about one table of a paper.

    Args:
        made: of `read`.
        path: where it came from.
        level: of its heading.
        anchor: id for links, or None.
    """
    columns, by_row = {}, {}
    for cell in made["cells"]:
        key = cell["attack"], cell["eps"], cell["source"], cell.get("metric")
        columns.setdefault(key, _column(cell))
        by_row.setdefault(cell["row"], {})[key] = cell
    head = [tag("td", ""), tag("td", "")]
    head += [tag("th", text, scope="col") for text in columns.values()]
    table = tag(
        "table",
        tag(
            "caption",
            "In percent; difference = measured - published. Blue: the model "
            "withstands more than published, orange: less.",
        ),
        tag("thead", tag("tr", head)),
        [_group(name, cells, columns) for name, cells in by_row.items()],
        class_="outcome",
    )
    notes = {k: v for k, v in (made.get("notes") or {}).items() if k in by_row}
    share = made["fraction"]
    how = "whole schedules" if share == 1 else f"{100 * share:g} % of every schedule"
    versions = made.get("versions") or {}
    return tag(
        "section",
        tag(f"h{level}", outcome.heading(made)),
        tag(
            "p",
            f"Published beside measured. Data: {made.get('data', 'unknown')}. "
            f"Trained for {how}. {_summary(made['cells'])}",
            class_="subtitle",
        ),
        scroll(table, f"{made['title']}: published and measured"),
        [tag("p", f"{k}: {v}.", class_="small") for k, v in notes.items()],
        _figure(made),
        tag(
            "p",
            f"Versions: {', '.join(f'{k} {v}' for k, v in versions.items())}. File: ",
            tag("code", path),
            class_="small",
        ),
        id=anchor,
        class_="run",
    )


def _column(cell):
    metric = cell.get("metric", "accuracy")
    by = cell["source"]
    return join(
        tables.heading(cell["attack"], metric, black_box=bool(by)),
        tag("small", f"eps {format_eps(cell['eps'])}") if cell["eps"] else None,
        tag("small", f"from {by}") if by else None,
    )


def _group(name, cells, columns):
    """The three rows of a row of the paper."""
    some = next(iter(cells.values()))
    seeds = some.get("seed")
    seeds = f"{len(seeds)} seeds" if isinstance(seeds, list) else f"seed {seeds}"
    folds = f", {len(some['folds'])} folds" if some.get("folds") else ""
    counts = sorted({cell["n"] for cell in cells.values() if cell.get("n")})
    images = "".join(f", {count:,} images" for count in counts)
    about = f"{some['steps']:,} of {some['steps_of']:,} steps, {seeds}{folds}{images}"
    first = tag(
        "th", name, tag("small", about), scope="rowgroup", rowspan=3, class_="name"
    )
    lines = []
    for kind, show in (
        ("published", lambda cell: tag("td", _percent(cell, "published"))),
        ("measured", lambda cell: tag("td", _percent(cell, "measured"))),
        ("difference", _difference),
    ):
        shown = [show(cells[key]) if key in cells else tag("td", "") for key in columns]
        head = tag("th", kind, scope="row")
        lines.append(tag("tr", [first] * (not lines), head, shown, class_=kind))
    return tag("tbody", lines)


def _percent(cell, key):
    value, sd = cell[key], cell.get(f"{key}_sd")
    text = "-" if value is None else f"{value:.1f}"
    more = sd is not None and tag("small", f"± {sd:.2f}")
    return join(text, more or None)


def _difference(cell):
    if cell["published"] is None or cell["measured"] is None:
        return tag("td", "")
    points = cell["measured"] - cell["published"]
    better = points if _more_is_better(cell) else -points
    kind = "more" if better > 0 else "less"
    heat = min(abs(points) / FULL, 1)
    return tag(
        "td", f"{points:+z.1f}", style=f"--heat:{heat:.2f}", class_=f"heat {kind}"
    )


def _more_is_better(cell):
    metric = cell.get("metric", "accuracy")
    return not metric.endswith(("error_rate", "transfer_rate"))


def _summary(cells):
    """How close it is, in a sentence."""
    gaps = [
        abs(cell["measured"] - cell["published"])
        for cell in cells
        if cell["measured"] is not None and cell["published"] is not None
    ]
    if not gaps:
        return "Nothing that was published is measured yet."
    close = sum(gap <= 1 for gap in gaps)
    missing = sum(cell["measured"] is None for cell in cells)
    left = f"; {missing} are not measured yet" if missing else ""
    return (
        f"{close} of {len(gaps)} numbers are within 1 point of the published ones, the "
        f"farthest is {max(gaps):.1f} away{left}."
    )


def _figure(made):
    """The paper's figure, where the table has one."""
    if "figure" not in made:
        return None
    found = curves.of(made)
    panels = [panel for side_by_side in found["panels"] for panel in side_by_side]
    drawn = [
        charts.lines(
            panel["lines"],
            title=panel["title"].replace("\n", ", "),
            x_label=found["x_label"],
            y_label="; ".join(t for t in (found["y_label"], found["band"]) if t),
        )
        for panel in panels
    ]
    return tag("div", drawn, class_="beside")
