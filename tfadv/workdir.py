"""The directory of a run: what is where in it, and whose it is."""

import pathlib

from tfadv import config
from tfadv.errors import RunError, UsageError
from tfadv.files import read_json, remove_leftovers, write_json


class Workdir:
    """Paths of a run, and the guard that a directory holds one run only.

        config.json     the resolved configuration
        checkpoints/    to resume from
        best/           the classifier that withstood most on held-out images so far
        tensorboard/    training curves
        model.keras     the trained classifier
        saved_model/    the same for serving
        results.json, curves.png, examples.png    what it withstands
        stopped.json    after how many steps, where that was before the last
        rewinds.json    the batches stepped over, where the training diverged
        profile.json    what the parts of a step take, where that was asked for
        partners/<i>/   the other networks of a defence that trains several

    Args:
        path: the directory; made by `claim`.
    """

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.config = self.path / "config.json"
        self.checkpoints = self.path / "checkpoints"
        self.best = self.path / "best"
        self.tensorboard = self.path / "tensorboard"
        self.model = self.path / "model.keras"
        self.saved_model = self.path / "saved_model"
        self.results = self.path / "results.json"
        self.stopped = self.path / "stopped.json"
        self.rewinds = self.path / "rewinds.json"
        self.profile = self.path / "profile.json"

    def companion(self, name):
        """Where a network is that was trained beside the classifier."""
        return self.path / f"{name}.keras"

    def partner(self, number):
        """The workdir of the network that was trained as partner `number`, from 1."""
        return self.path / "partners" / str(number)

    def steps(self, checkpoint="last"):
        """How many steps the classifier of a finished run took; see `trained_model`."""
        if checkpoint == "best":
            return max(self.best_steps())
        if self.stopped.exists():
            return read_json(self.stopped, "where the run stopped")["steps"]
        return self.read_config()["train"]["steps"]

    def claim(self, resolved):
        """Writes `config.json`, or checks that this run may continue what is there.

        Only `[evaluate]` may differ from an earlier run in the same place, and what is
        done where the training diverges. Not `evaluate.eps`, though, while a classifier
        without [attack] is trained of which the best is kept: it is chosen at the
        largest of them. What a killed run left half-written is removed.

        Raises:
            UsageError: another configuration's run; says in which fields.
            RunError: files but no configuration, or one that cannot be read.
        """
        if self.config.exists():
            old = self.read_config()
            changed = [
                f"{key} is {was!r} there and {now!r} here"
                for key, was, now in config.differences(old, resolved)
                if not self._may_differ(key, old)
            ]
            if changed:
                raise UsageError(
                    f"{self.path} holds a run of another configuration: "
                    f"{'; '.join(changed)}. Choose another --workdir, or the same "
                    "settings to resume it."
                )
        elif self.path.exists() and not self.path.is_dir():
            raise RunError(f"{self.path} is a file. Choose another --workdir.")
        elif self.path.exists() and any(
            p for p in self.path.iterdir() if not p.name.startswith(".writing-")
        ):
            raise RunError(
                f"{self.path} is not empty and holds no config.json: not a workdir of "
                "tfadv. Choose another --workdir."
            )
        remove_leftovers(self.path)
        write_json(self.config, resolved)

    def _may_differ(self, key, old):
        if key == "evaluate.eps" and not self.is_trained():
            # The best classifier so far was chosen at the largest of these.
            undefended = not old.get("attack")
            return not (undefended and old.get("data", {}).get("holdout"))
        return key.startswith("evaluate.") or key == "train.on_nan"

    def is_trained(self):
        """Whether training has ended and left both of its models."""
        return self.model.exists() and self.saved_model.exists()

    def read_config(self):
        """The resolved configuration of the run in this directory.

        Raises:
            UsageError: there is none.
        """
        if not self.config.exists():
            raise UsageError(
                f"{self.path} is not a workdir: it has no config.json. Train one with "
                f"bin/train --workdir={self.path}"
            )
        tables = read_json(self.config, "the workdir's configuration")
        if not isinstance(tables, dict) or not all(
            isinstance(table, dict) for table in tables.values()
        ):
            raise RunError(
                f"the workdir's configuration: {self.config} is damaged: it holds no "
                "tables"
            )
        return tables

    def trained_model(self, checkpoint="last"):
        """Path of the trained classifier.

        Args:
            checkpoint: `"last"`, or `"best"` for the one in `best`.

        Raises:
            UsageError: the training has not finished, or has kept no best.
        """
        if not self.model.exists():
            raise UsageError(
                f"{self.path} holds no trained model yet: run its bin/train command "
                "again to finish it"
            )
        return self.model if checkpoint == "last" else self._best_model()

    def _best_model(self):
        steps = self.best_steps()
        if not steps:
            raise UsageError(
                f"{self.path} has kept no best classifier: that is chosen on held-out "
                "images, [data] holdout, measured every train.validate_every steps. "
                "Take --checkpoint=last"
            )
        return self.best_file(max(steps))

    def best_file(self, step):
        """Where the best classifier is, if it is that of `step`."""
        return self.best / f"step_{step}.keras"

    def best_steps(self):
        """The steps whose classifiers are in `best`; of a finished run one."""
        stems = (path.stem for path in self.best.glob("step_*.keras"))
        return sorted(int(stem.removeprefix("step_")) for stem in stems)


def distinct(paths):
    """dict from each of `paths` made absolute to how it was written, in order.

    Raises:
        UsageError: two are one directory.
    """
    found = {}
    for path in paths:
        resolved = pathlib.Path(path).resolve()
        if resolved in found:
            raise UsageError(
                f"{path} is given twice: {found[resolved]} is the same directory. Name "
                "each model once."
            )
        found[resolved] = path
    return found


def own_end(path, paths):
    """The shortest end of `path`, in whole names, that no other of `paths` has."""
    for count in range(1, len(path.parts) + 1):
        end = path.parts[-count:]
        if sum(other.parts[-count:] == end for other in paths) == 1:
            break
    return str(pathlib.Path(*end))
