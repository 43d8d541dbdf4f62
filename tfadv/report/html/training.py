"""The curves of a training, out of the event files that TensorBoard reads."""

import pathlib

from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.util import tensor_util

# More would be closer together than a line is wide.
POINTS = 200


def read(directory):
    """dict from the name of a scalar to its [(step, value)], in the order of steps.

    Where a resumed run has done steps twice, those of the last event file count. What
    a killed run left unfinished at the end of a file is passed over.

    Args:
        directory: with event files, or missing.
    """
    found = {}
    paths = pathlib.Path(directory).glob("*tfevents*")
    # Their names begin with the time they were made.
    for path in sorted(paths, key=lambda path: path.name):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "scalars":
                    number = float(tensor_util.make_ndarray(value.tensor))
                    found.setdefault(value.tag, {})[event.step] = number
    return {tag: sorted(points.items()) for tag, points in found.items()}


def thinned(points):
    """At most `POINTS` of the points, evenly spaced, with the first and the last."""
    if len(points) <= POINTS:
        return points
    last = len(points) - 1
    return [points[round(i * last / (POINTS - 1))] for i in range(POINTS)]


def groups(curves):
    """Curves that belong into one chart: list of (title, y label, lines).

    Args:
        curves: of `read`.

    Returns:
        list of (str, str, lines as `charts.lines` takes them); accuracies in percent.
    """
    kinds = {
        "accuracy": ("Accuracy while training", "accuracy in %"),
        "loss": ("Loss while training", "mean since the epoch began"),
        "rate": ("Learning rate", "learning rate"),
        "other": ("More of the training", "value"),
    }
    found = {kind: [] for kind in kinds}
    for tag, points in curves.items():
        kind = _kind(tag)
        points = thinned(points)
        factor = 100 if kind == "accuracy" else 1
        line = {
            "label": tag.replace("train/", "training batches: ").replace("_", " ")
            if tag.startswith("train/")
            else tag.replace("_", " ", 1).replace("/", ": ", 1),
            "x": [step for step, _ in points],
            "y": [factor * value for _, value in points],
        }
        found[kind].append(line)
    return [(*kinds[kind], found[kind]) for kind in kinds if found[kind]]


def _kind(tag):
    name = tag.partition("/")[2]
    if not tag.startswith("train/") or name.endswith("accuracy"):
        return "accuracy"
    if name == "learning_rate":
        return "rate"
    return "loss" if "loss" in name else "other"
