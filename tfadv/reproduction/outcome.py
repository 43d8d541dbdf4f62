"""Published beside measured: the cells of a table, as JSON, Markdown and text."""

import statistics

from tfadv.evaluation import format_eps
from tfadv.report.results import versions


def compose(
    table, rows, models, measured, *, fraction, batch_statistics=None, before=()
):
    """The outcome of a table, as far as it is measured.

    Args:
        table: `tables.Table`.
        rows: those of its rows that are measured now.
        models: `models.Models`.
        measured: (cell, target, source) -> row of `evaluation.measure`, or None while
            it is not measured; target and source are `Trainable`s.
        fraction: of every schedule.
        batch_statistics: dict with `bn_eval` and `batch_size`, to stand in the outcome
            where batch normalisation took the statistics of each batch.
        before: cells of an earlier outcome, kept for the table's other rows.

    Returns:
        dict with `table`, `title`, `data`, `fraction`, `versions`, `notes` (from row to
        text) and `cells`; numbers in percent. A cell that is not measured yet has
        `measured` None.
    """
    now = {row.name: row for row in rows}
    cells = []
    for row in table.rows:
        if row.name in now:
            cells += _cells(row, models, measured)
        else:
            cells += [cell for cell in before if cell["row"] == row.name]
    return {
        "table": table.name,
        "title": table.title,
        "data": models.of_row(rows[0])[0].tables["data"]["name"],
        "fraction": fraction,
        **(batch_statistics or {}),
        "versions": versions(),
        "notes": {row.name: row.note for row in table.rows if row.note},
        "cells": cells,
    }


def _cells(row, models, measured):
    targets = models.of_row(row)
    for cell in row.cells:
        source = models.get(cell.source) if cell.source else None
        found = [measured(cell, target, source) for target in targets]
        one = {
            "row": row.name,
            "attack": cell.attack,
            "eps": cell.eps,
            "source": cell.source,
            "published": cell.published,
            "measured": None,
            "ci95": None,
            "n": None,
            "seed": targets[0].seed,
            "steps": targets[0].steps,
            "steps_of": targets[0].full_steps,
        }
        if row.seeds:
            one["seed"] = [target.seed for target in targets]
            one["published_sd"] = cell.published_sd
        if all(found):
            percent = [100 * one_found["accuracy"] for one_found in found]
            one["measured"] = round(statistics.mean(percent), 2)
            one["n"] = found[0]["n"]
            if row.seeds:
                one["measured_sd"] = (
                    round(statistics.stdev(percent), 2) if len(percent) > 1 else None
                )
            else:
                one["ci95"] = [round(100 * bound, 2) for bound in found[0]["ci95"]]
        yield one


def render(outcome, *, markdown=False):
    """The outcome as a table, for a terminal or as Markdown.

    A row of the paper becomes three lines: published, measured, difference; below its
    name stand how many steps of how many its model was trained for, with which seed,
    and how many images it was measured on.
    """
    by_row, columns = {}, {}
    for cell in outcome["cells"]:
        key = (cell["attack"], cell["eps"], cell["source"])
        columns.setdefault(key, _column(cell))
        by_row.setdefault(cell["row"], {})[key] = cell
    lines = [["", "", *columns.values()]]
    for name, cells in by_row.items():
        some = next(iter(cells.values()))
        steps = f"{some['steps']:,} of {some['steps_of']:,} steps"
        seeds = some["seed"]
        seeds = f"{len(seeds)} seeds" if isinstance(seeds, list) else f"seed {seeds}"
        counts = sorted({cell["n"] for cell in cells.values() if cell["n"]})
        seeds += "".join(f", {count:,} images" for count in counts)
        for label, text, show in (
            (name, "published", _published),
            (steps, "measured", _measured),
            (seeds, "difference", _difference),
        ):
            values = (show(cells[c]) if c in cells else "" for c in columns)
            lines.append([label, text, *values])
    notes = [f"\n{k}: {v}." for k, v in outcome["notes"].items() if k in by_row]
    if markdown:
        rule = ["---"] * 2 + ["---:"] * len(columns)
        rows = [lines[0], rule, *lines[1:]]
        return "\n".join(["| " + " | ".join(row) + " |" for row in rows] + notes)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    drawn = [
        "  ".join(
            text.ljust(w) if i < 2 else text.rjust(w)
            for i, (text, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join(drawn + notes)


def _column(cell):
    """`fgs 0.3`, or `fgs 0.3 from A2` for the attack `fgs` or `fgs_from`."""
    size = f" {format_eps(cell['eps'])}" if cell["eps"] else ""
    if not cell["source"]:
        return cell["attack"] + size
    return f"{cell['attack'].removesuffix('_from')}{size} from {cell['source']}"


def _with_sd(value, sd):
    text = "-" if value is None else f"{value:.1f}"
    return f"{text} +-{sd:.2f}" if sd is not None else text


def _published(cell):
    return _with_sd(cell["published"], cell.get("published_sd"))


def _measured(cell):
    return _with_sd(cell["measured"], cell.get("measured_sd"))


def _difference(cell):
    if cell["published"] is None or cell["measured"] is None:
        return ""
    return f"{cell['measured'] - cell['published']:+z.1f}"


def heading(outcome):
    """The title, and that accuracy is not that of single images where it is not."""
    if "bn_eval" not in outcome:
        return outcome["title"]
    return (
        f"{outcome['title']}, with the statistics of batches of "
        f"{outcome['batch_size']} (bn_eval = {outcome['bn_eval']})"
    )


def document(outcome):
    """The outcome as a page of Markdown."""
    share = outcome["fraction"]
    how = "whole schedules" if share == 1 else f"{100 * share:g} % of every schedule"
    return (
        f"# {heading(outcome)}\n\nData: {outcome['data']}. Trained for {how}. Accuracy "
        "in percent; difference = measured - published.\n\n"
        f"{render(outcome, markdown=True)}\n"
    )
