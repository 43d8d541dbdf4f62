"""Rows as a text table, and in words which of them to believe."""

import itertools

from tfadv import attacks
from tfadv.evaluation import format_eps
from tfadv.evaluation.transfer import crosswise

# A one-step attack that leaves this much more accuracy than the iterative one, with
# disjoint intervals, does so because its gradient misleads, not for lack of steps.
CLEARLY = 0.20


def render(rows):
    """A table of accuracies in percent: a line an attack, a column an eps.

    Args:
        rows: of `evaluation.measure`.

    Returns:
        str, lines joined by newlines, ending in the sentences of `verdicts`.
    """
    sizes = sorted({row["eps"] for row in rows if row["attack"] != "clean"})
    labels = list(dict.fromkeys(row["attack"] for row in rows))
    cells = {(row["attack"], row["eps"]): row for row in rows}
    width = max(len(label) for label in (*labels, "accuracy in %"))
    head = f"{'accuracy in %':<{width}}" + "".join(
        f"{'eps ' + format_eps(eps):>13}" for eps in sizes
    )
    lines = [head, "-" * len(head)]
    for label in labels:
        if label == "clean":
            clean = _cell(cells["clean", 0.0])
            lines.append(f"{label:<{width}}{clean:>13}")
            continue
        found = (cells.get((label, eps)) for eps in sizes)
        lines.append(
            f"{label:<{width}}" + "".join(f"{_cell(r) if r else '':>13}" for r in found)
        )
    n = rows[0]["n"]
    lines += ["", f"{n} test images; +- half of the 95 % Wilson interval"]
    return "\n".join(lines + verdicts(rows))


def render_transfer(rows):
    """A table of black-box accuracies in percent for each attack and eps.

    A line is a target, a column a source, which has a number so that long names fit.

    Args:
        rows: of `evaluation.transfer.measure`.

    Returns:
        str, lines joined by newlines.
    """
    (labels, sizes, targets, sources), cells = crosswise(rows)
    lines = [f"source {i}: {source}" for i, source in enumerate(sources, 1)]
    panels = {
        f"{label}, eps {format_eps(eps)}": (label, eps)
        for label, eps in itertools.product(labels, sizes)
    }
    width = max(map(len, (*panels, *targets)))
    columns = "".join(f"{text:>7} " for text in ("clean", *range(1, len(sources) + 1)))
    for heading, place in panels.items():
        head = f"{heading:<{width}}{columns.rstrip()}"
        lines += ["", head, "-" * len(head)]
        for target in targets:
            found = [cells.get(("clean", 0.0, target, None))]
            found += [cells.get((*place, target, source)) for source in sources]
            line = "".join(map(_transfer_cell, found))
            lines.append(f"{target:<{width}}{line}".rstrip())
    widest = max(row["ci95"][1] - row["ci95"][0] for row in rows)
    return "\n".join(
        [
            *lines,
            "",
            "accuracy in %: a line is a target, a column the source that the images",
            "were made for; * the target itself, white box",
            f"{rows[0]['n']} test images; half of a 95 % Wilson interval is at most "
            f"{50 * widest:.1f}",
        ]
    )


def _transfer_cell(row):
    if row is None:
        return f"{'-':>7} "
    mark = "*" if row["source"] == row["target"] else " "
    return f"{100 * row['accuracy']:>7.1f}{mark}"


def steps_text(steps, full_steps):
    """How long a model was trained, as in `20 of 2000 steps`; None where unknown."""
    if steps is None:
        return "unknown steps"
    return f"{steps} of {full_steps} steps" if full_steps != steps else f"{steps} steps"


def bn_text(bn_eval):
    """What a title adds where accuracy is not that of single images, else nothing."""
    return ", batch statistics" if bn_eval == "batch" else ""


def _cell(row):
    low, high = row["ci95"]
    return f"{100 * row['accuracy']:.1f} +-{50 * (high - low):.1f}"


def verdicts(rows):
    """Sentences on every eps at which one-step attacks overstate the robustness.

    Args:
        rows: of `evaluation.measure`.

    Returns:
        list of str; empty where one-step and iterative attacks agree.
    """
    found = []
    for eps in sorted({row["eps"] for row in rows}):
        at_eps = [row for row in rows if row["eps"] == eps]
        one_step = _weakest_accuracy(at_eps, attacks.ONE_STEP)
        iterative = _weakest_accuracy(at_eps, attacks.ITERATIVE)
        if one_step is None or iterative is None:
            continue
        gap = one_step["accuracy"] - iterative["accuracy"]
        if gap >= CLEARLY and one_step["ci95"][0] > iterative["ci95"][1]:
            found.append(
                f"At eps {format_eps(eps)} every one-step attack leaves at least "
                f"{100 * one_step['accuracy']:.1f} %, but {iterative['attack']} only "
                f"{100 * iterative['accuracy']:.1f} %: this model masks gradients, "
                "which misleads one-step attacks. Believe the row "
                f"{iterative['attack']}."
            )
    return found


def _weakest_accuracy(rows, names):
    """The row of least accuracy among these attacks, or None."""
    rows = [row for row in rows if row["attack"].partition("(")[0] in names]
    return min(rows, key=lambda row: row["accuracy"], default=None)
