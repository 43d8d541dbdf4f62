"""The same rows from several runs, and the command that measures what is missing.

A run is a dict `{"workdir": path, "config": tables, "rows": rows}` with the rows of
`evaluation.measure`; nothing is computed anew.
"""

import json
import shlex

from tfadv import attacks
from tfadv.attacks import core
from tfadv.errors import UsageError
from tfadv.evaluation import format_eps
from tfadv.evaluation.suite import crafted_elsewhere
from tfadv.evaluation.whitebox import WORST_CASE


def chosen(runs, names=None, sizes=None):
    """Which attacks and sizes to draw, as they are called in the rows.

    Args:
        runs: list of dicts, see above.
        names: labels of rows, or names of attacks where one label has the name; None
            for every attack that all runs have.
        sizes: eps in the units of x; None for every eps that all runs have.

    Returns:
        (labels, sizes), lists without repetition.

    Raises:
        UsageError: an unknown or ambiguous name, an eps outside [0, 1], or runs that
            share no attack or no eps.
    """
    # The worst case is that of a run's own attacks, which may not be another's, and
    # nobody can ask for what was crafted on a twin alone.
    apart = ("clean", WORST_CASE)
    each = [
        [
            row
            for row in run["rows"]
            if row["attack"] not in apart and not crafted_elsewhere(row["attack"])
        ]
        for run in runs
    ]
    labels = _common([[row["attack"] for row in rows] for rows in each])
    if names is not None:
        known = dict.fromkeys(row["attack"] for rows in each for row in rows)
        labels = list(dict.fromkeys(_label(name, known) for name in names))
    if sizes is None:
        sizes = _common([[row["eps"] for row in rows] for rows in each])
    measured = {row["eps"] for rows in each for row in rows}
    for eps in sizes:
        if eps not in measured:  # Which may be in l2, and exceed 1.
            _check_size(eps)
    if not labels or not sizes:
        raise UsageError(
            f"the runs share no {'eps' if labels else 'attack'}: say with --attacks "
            "and --eps which rows to draw"
        )
    return labels, sorted(dict.fromkeys(sizes))


def _common(lists):
    """What all lists hold, in the order of the first."""
    return [v for v in dict.fromkeys(lists[0]) if all(v in other for other in lists)]


def _label(name, known):
    """The label in `known` that is `name` or is of the attack `name`."""
    if name in known:
        return name
    attacks.get(name.partition("(")[0])
    same = [label for label in known if label.partition("(")[0] == name]
    if len(same) > 1:
        raise UsageError(
            f"--attacks: {name!r} may be {' or '.join(same)}; write one in full, in "
            "double quotes"
        )
    return same[0] if same else name


def _check_size(eps):
    try:
        core.check_eps(eps)
    except ValueError as error:
        raise UsageError(f"--eps: {error}") from None


def rows_of(run, labels, sizes):
    """The clean row of a run and one for each label and size, labels slowest.

    Raises:
        UsageError: one is missing; says which command measures it.
    """
    found = {(r["attack"], _key(r["eps"])): r for r in reversed(run["rows"])}
    wanted = [("clean", 0.0), *((label, eps) for label in labels for eps in sizes)]
    missing = [
        f"{label} at eps {format_eps(eps)}"
        for label, eps in wanted
        if (label, _key(eps)) not in found
    ]
    if missing:
        raise UsageError(
            f"{run['workdir']} has no row of {', '.join(missing)}. This measures them: "
            f"{command(run['workdir'], labels, sizes)}"
        )
    return [found[label, _key(eps)] for label, eps in wanted]


def _key(eps):
    """Equal for sizes that differ only by how they are rounded and printed."""
    return round(eps, 6)


def command(workdir, labels, sizes):
    """The bin/evaluate call whose rows are those of `labels` at `sizes`."""
    which = f"--attacks={','.join(labels)}"
    if any("(" in label for label in labels):
        which = f"--set evaluate.attacks=[{', '.join(map(_toml, labels))}]"
    eps = f"--eps={','.join(map(format_eps, sizes))}"
    return shlex.join(
        ["bin/evaluate", f"--workdir={workdir}", *which.split(" ", 1), eps]
    )


def _toml(label):
    """A label as an entry of `evaluate.attacks`."""
    name, _, arguments = label.rstrip(")").partition("(")
    if not arguments:
        return json.dumps(name)
    pairs = [pair.split("=", 1) for pair in arguments.split(", ")]
    table = {"name": name} | {key: _read(text) for key, text in pairs}
    return f"{{{', '.join(f'{key} = {json.dumps(v)}' for key, v in table.items())}}}"


def _read(text):
    """What `text`, a value in a label, was: a truth value, a number or a string."""
    try:
        return json.loads({"True": "true", "False": "false"}.get(text, text))
    except ValueError:
        return text
