"""Rows as a text table, and in words which of them to believe."""

import itertools

from tfadv import attacks
from tfadv.evaluation import format_eps, leaking
from tfadv.evaluation.transfer import crosswise

# A one-step attack that leaves this much more accuracy than the iterative one, with
# disjoint intervals, does so because its gradient misleads, not for lack of steps.
CLEARLY = 0.20
# What rows may hold beside the accuracy, and stands below it: its name, what it means.
BELOW = {
    "one_off": ("  one-off", "one-off: the image gets its own class or one beside it"),
    "top5": ("  top-5", "top-5: its class is among the five of the largest logits"),
}


def render(rows):
    """A table of accuracies in percent: a line an attack, a column an eps.

    Below a line stand the one-off accuracies, where the classes have an order, and the
    top-5 accuracies, where the rows have them.

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
    more = below(rows)
    for label in labels:
        places = [0.0] if label == "clean" else sizes
        found = [cells.get((label, eps)) for eps in places]
        line = "".join(f"{_cell(row):>13}" for row in found)
        lines.append(f"{label:<{width}}{line}".rstrip())
        for key in more:
            line = "".join(f"{_cell_below(row, key):>13}" for row in found)
            lines.append(f"{BELOW[key][0]:<{width}}{line}".rstrip())
    n = rows[0]["n"]
    lines += ["", f"{n} test images; +- half of the 95 % Wilson interval", *notes(more)]
    return "\n".join(lines + verdicts(rows))


def render_transfer(rows):
    """A table of black-box accuracies in percent for each attack and eps.

    A line is a target, a column a source, which has a number so that long names fit.
    Below it stand the one-off and top-5 accuracies, where the rows have them.

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
    more = below(rows)
    names = [name for name, _ in BELOW.values()]
    width = max(map(len, (*panels, *targets, *names)))
    columns = "".join(f"{text:>7} " for text in ("clean", *range(1, len(sources) + 1)))
    for heading, place in panels.items():
        head = f"{heading:<{width}}{columns.rstrip()}"
        lines += ["", head, "-" * len(head)]
        for target in targets:
            found = [cells.get(("clean", 0.0, target, None))]
            found += [cells.get((*place, target, source)) for source in sources]
            for key in ("accuracy", *more):
                name = BELOW[key][0] if key in BELOW else target
                line = "".join(_transfer_cell(row, key) for row in found)
                lines.append(f"{name:<{width}}{line}".rstrip())
    widest = max(row["ci95"][1] - row["ci95"][0] for row in rows)
    return "\n".join(
        [
            *lines,
            "",
            "accuracy in %: a line is a target, a column the source that the images",
            "were made for; * the target itself, white box",
            f"{rows[0]['n']} test images; half of a 95 % Wilson interval is at most "
            f"{50 * widest:.1f}",
            *notes(more),
        ]
    )


def _transfer_cell(row, key):
    if row is None:
        return f"{'-':>7} "
    mark = "*" if row["source"] == row["target"] else " "
    return f"{100 * row[key]:>7.1f}{mark}"


def below(rows):
    """The keys of `BELOW` that the rows hold: they are of one data set."""
    return [key for key in BELOW if any(key in row for row in rows)]


def notes(keys):
    """Lines that say what the numbers below others mean."""
    return [f"{BELOW[key][1]}, in %" for key in keys]


def steps_text(steps, full_steps):
    """How long a model was trained, as in `20 of 2000 steps`; None where unknown."""
    if steps is None:
        return "unknown steps"
    return f"{steps} of {full_steps} steps" if full_steps != steps else f"{steps} steps"


def bn_text(bn_eval):
    """What a title adds where accuracy is not that of single images, else nothing."""
    return ", batch statistics" if bn_eval == "batch" else ""


def _cell(row):
    if row is None:
        return ""
    low, high = row["ci95"]
    return f"{100 * row['accuracy']:.1f} +-{50 * (high - low):.1f}"


def _cell_below(row, key):
    """Another accuracy of a row, as long as `_cell`: it stands below that."""
    if row is None:
        return ""
    spread = _cell(row).partition(" ")[2]
    return f"{100 * row[key]:.1f} {' ' * len(spread)}"


def verdicts(rows):
    """Sentences on every eps at which one-step attacks overstate the robustness.

    Args:
        rows: of `evaluation.measure`.

    Returns:
        list of str; empty where one-step and iterative attacks agree, and no attack
        helps the model by telling it labels (`leaking.verdicts`).
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
    return found + leaking.verdicts(rows)


def _weakest_accuracy(rows, names):
    """The row of least accuracy among these attacks, or None."""
    rows = [row for row in rows if row["attack"].partition("(")[0] in names]
    return min(rows, key=lambda row: row["accuracy"], default=None)
