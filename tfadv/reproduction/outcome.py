"""Published beside measured: the cells of a table, as JSON, Markdown and text."""

import statistics

from tfadv import attacks
from tfadv.evaluation import format_eps, whitebox
from tfadv.report.results import versions
from tfadv.reproduction import tables

# What a page says of what its columns count.
COUNTED = {
    "one_off": "the class or one beside it",
    "top5": "the class is among the five of the largest logits",
    "error_rate": "what is not right",
    "top5_error_rate": "what is not right by top-5",
    "transfer_rate": "of images that a source gets right and that then fool it, those "
    "that fool the model as well",
    "top5_transfer_rate": "the same where right means top-5",
    "robustness_ratio": "accuracy divided by that on clean images",
    "top5_robustness_ratio": "the same of top-5",
}


def compose(
    table, rows, models, measured, *, fraction, batch_statistics=None, before=()
):
    """The outcome of a table, as far as it is measured.

    Args:
        table: `tables.Table`.
        rows: those of its rows that are measured now.
        models: `models.Models`.
        measured: (cell, target, source) -> row of `evaluation.measure`, or None while
            it is not measured; target and source are `Trainable`s of one fold. For a
            cell that counts a ratio it has the row of clean images as `clean`.
        fraction: of every schedule.
        batch_statistics: dict with `bn_eval` and `batch_size`, to stand in the outcome
            where batch normalisation took the statistics of each batch.
        before: cells of an earlier outcome, kept for the table's other rows as far as
            these still have them.

    Returns:
        dict with `table`, `title`, `data` (of all folds), `fraction`, `versions`,
        `notes` (from row to text) and `cells`, and where the table has a figure with
        `figure`, what `curves.of` needs beside the cells; numbers in percent. A cell
        that is not measured yet has `measured` None. One that counts something else
        than what is right says what in `metric`. A mean over seeds has them in `seed`,
        one over folds in `folds`; it has `measured_sd` in place of `ci95`. `n` counts
        the images of one seed, but of all folds together: each is tested in one. A
        transfer rate has the number of images that it is a share of in `kept`, over all
        seeds and folds; where one of these has none, `measured` is None. So it is with
        a ratio where a model gets no clean image right. The ratio of a single seed has
        no `ci95`: how many images are right both times is not known.
    """
    now = {row.name: row for row in rows}
    cells = []
    for row in table.rows:
        if row.name in now:
            cells += _cells(row, models, measured)
        else:
            cells += _kept(row, before)
    return {
        "table": table.name,
        "title": table.title,
        "data": ", ".join(table.folds)
        or models.of_row(rows[0])[0].tables["data"]["name"],
        "fraction": fraction,
        **(batch_statistics or {}),
        "versions": versions(),
        "notes": {row.name: row.note for row in table.rows if row.note},
        **({} if table.figure is None else {"figure": _figure(table)}),
        "cells": cells,
    }


def _kept(row, before):
    """Earlier cells of a row that the table still has, beside what it says now."""
    keys = ("attack", "eps", "source", "metric")
    usual = {"metric": "accuracy"}
    earlier = {
        tuple((usual | cell)[key] for key in keys): cell
        for cell in before
        if cell["row"] == row.name
    }
    for cell in row.cells:
        found = earlier.get(tuple(getattr(cell, key) for key in keys))
        if found is not None:
            sd = {"published_sd": cell.published_sd} if "published_sd" in found else {}
            yield found | {"published": cell.published} | sd


def _figure(table):
    """What `curves.of` needs beside the cells."""
    names = {column: spec["name"] for column, spec in table.attacks.items()}
    figure = {
        "x": table.figure.x,
        "metric": table.figure.metric,
        "controls": [c for c, name in names.items() if name in attacks.NOISE],
    }
    if table.figure.x == "at":
        figure["label"] = table.figure.label
        figure["at"] = {row.name: row.at for row in table.rows}
        figure["group"] = {row.name: row.group for row in table.rows}
    return figure


def _cells(row, models, measured):
    targets = models.of_row(row)
    folds = [target.fold for target in targets if target.fold]
    for cell in row.cells:
        found = [
            measured(cell, target, models.source(cell, target)) for target in targets
        ]
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
            "steps": round(statistics.mean(target.steps_taken for target in targets)),
            "steps_of": targets[0].full_steps,
        }
        if cell.metric != "accuracy":
            one["metric"] = cell.metric
        if folds:
            one["folds"] = folds
        if row.seeds:
            one["seed"] = [target.seed for target in targets]
        if folds or row.seeds:
            one["published_sd"] = cell.published_sd
        if all(found):
            counts = [one_found["n"] for one_found in found]
            one["n"] = sum(counts) if folds else counts[0]
            one |= _counted(found, cell.metric, is_mean=bool(folds or row.seeds))
        yield one


def _counted(found, metric, *, is_mean):
    """What measured rows, one of a seed or a fold, say of a metric, for a cell."""
    shares, of = zip(*(_share(row, metric) for row in found), strict=True)
    told = {"kept": sum(of)} if metric in tables.TRANSFER else {}
    if None in shares:
        return told
    percent = [100 * share for share in shares]
    told["measured"] = round(statistics.mean(percent), 2)
    if is_mean:
        sd = round(statistics.stdev(percent), 2) if len(percent) > 1 else None
        return {**told, "measured_sd": sd}
    if metric in tables.RATIO:
        return told
    bounds = _ci95(found[0], metric)
    return {**told, "ci95": [round(100 * bound, 2) for bound in bounds]}


def _share(row, metric):
    """What a measured row says of a metric: (fraction, of how many images).

    The fraction is None for the transfer rate of no images, and for the ratio to none.
    """
    if metric in tables.RATIO:
        key = "top5" if metric in tables.TOP5 else "accuracy"
        clean = row["clean"][key]
        return (row[key] / clean if clean else None), row["n"]
    if metric in tables.TRANSFER:
        return row[metric], row[metric.replace("transfer_rate", "kept")]
    if metric.endswith("error_rate"):
        return 1 - row["top5" if metric in tables.TOP5 else "accuracy"], row["n"]
    return row[metric], row["n"]


def _ci95(row, metric):
    """The interval of what a measured row says of a metric."""
    if metric == "accuracy":
        return row["ci95"]
    share, n = _share(row, metric)
    return whitebox.interval(round(n * share), n)


def render(outcome, *, markdown=False):
    """The outcome as a table, for a terminal or as Markdown.

    A row of the paper becomes three lines: published, measured, difference; below its
    name stand how many steps of how many its model was trained for, with which seed
    and on how many folds, and how many images it was measured on.
    """
    by_row, columns = {}, {}
    for cell in outcome["cells"]:
        key = (cell["attack"], cell["eps"], cell["source"], cell.get("metric"))
        columns.setdefault(key, _column(cell))
        by_row.setdefault(cell["row"], {})[key] = cell
    lines = [["", "", *columns.values()]]
    for name, cells in by_row.items():
        some = next(iter(cells.values()))
        steps = f"{some['steps']:,} of {some['steps_of']:,} steps"
        seeds = some["seed"]
        seeds = f"{len(seeds)} seeds" if isinstance(seeds, list) else f"seed {seeds}"
        seeds += f", {len(some['folds'])} folds" if "folds" in some else ""
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
    """`fgs 0.3`, or `one-off fgs 0.3 from A2`; see `tables.heading`."""
    size = f" {format_eps(cell['eps'])}" if cell["eps"] else ""
    by = f" from {cell['source']}" if cell["source"] else ""
    metric = cell.get("metric", "accuracy")
    return f"{tables.heading(cell['attack'], metric, black_box=bool(by))}{size}{by}"


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


def _what(cells):
    """What these cells count: `Accuracy and one-off (the class or one beside it)`."""
    counted = [cell.get("metric", "accuracy") for cell in cells]
    texts = ["accuracy"] if "accuracy" in counted or not counted else []
    texts += [
        f"{tables.in_words(metric)} ({meaning})"
        for metric, meaning in COUNTED.items()
        if metric in counted
    ]
    text = " and ".join([part for part in (", ".join(texts[:-1]), texts[-1]) if part])
    return text[0].upper() + text[1:]


def document(outcome):
    """The outcome as a page of Markdown."""
    share, cells = outcome["fraction"], outcome["cells"]
    how = "whole schedules" if share == 1 else f"{100 * share:g} % of every schedule"
    what = f"{_what(cells)} in percent"
    if any("folds" in cell for cell in cells):
        what += ", means over the folds +- their standard deviation"
    return (
        f"# {heading(outcome)}\n\nData: {outcome['data']}. Trained for {how}. {what}; "
        "difference = measured - published.\n\n"
        f"{render(outcome, markdown=True)}\n"
    )
