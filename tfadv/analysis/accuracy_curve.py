"""Accuracy against a value of the configuration: Na et al. 2018, Figure 3."""

import numbers

from tfadv import config
from tfadv.errors import UsageError, nearest


def value(run, key):
    """The number that the run's configuration has under a dotted key.

    Args:
        run: as in `rows`.
        key: `"section.name"`.

    Raises:
        UsageError: no such key, or no number there.
    """
    known = {
        f"{section}.{name}": v
        for section, table in run["config"].items()
        for name, v in table.items()
    }
    if key not in known:
        raise UsageError(
            f"{run['workdir']}: its configuration has no {key!r}{nearest(key, known)} "
            "Compare runs that all have the key, or choose another with --key."
        )
    found = known[key]
    if not isinstance(found, numbers.Real) or isinstance(found, bool):
        raise UsageError(
            f"{run['workdir']}: {key} is {found!r}; expected a number to put on an axis"
        )
    return found


def at_chance(clean, num_classes):
    """Whether the clean accuracy is not clearly above 1 / K: the training diverged.

    Args:
        clean: the row of the clean images.
        num_classes: K.
    """
    return clean["ci95"][0] <= 1 / num_classes


def also_differ(runs, key):
    """Keys besides `key` in which the runs' configurations differ.

    The seed and what a run is measured with do not count.

    Args:
        runs: as in `rows`.
        key: the one that is meant to differ.

    Returns:
        list of dotted keys.
    """
    found = {
        other: None
        for run in runs[1:]
        for other, _, _ in config.differences(runs[0]["config"], run["config"])
    }
    free = (key, "train.seed")
    return [k for k in found if k not in free and not k.startswith("evaluate.")]
