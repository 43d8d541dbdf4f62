"""The directory of a run: what is where in it, and whose it is."""

import pathlib

from tfadv import config
from tfadv.errors import RunError, UsageError
from tfadv.files import read_json, remove_leftovers, write_json


class Workdir:
    """Paths of a run, and the guard that a directory holds one run only.

        config.json     the resolved configuration
        checkpoints/    to resume from
        tensorboard/    training curves
        model.keras     the trained classifier
        saved_model/    the same for serving
        results.json, curves.png, examples.png    what it withstands
        stopped.json    after how many steps, where that was before the last
        partners/<i>/   the other networks of a defence that trains several

    Args:
        path: the directory; made by `claim`.
    """

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.config = self.path / "config.json"
        self.checkpoints = self.path / "checkpoints"
        self.tensorboard = self.path / "tensorboard"
        self.model = self.path / "model.keras"
        self.saved_model = self.path / "saved_model"
        self.results = self.path / "results.json"
        self.stopped = self.path / "stopped.json"

    def companion(self, name):
        """Where a network is that was trained beside the classifier."""
        return self.path / f"{name}.keras"

    def partner(self, number):
        """The workdir of the network that was trained as partner `number`, from 1."""
        return self.path / "partners" / str(number)

    def steps(self):
        """How many steps the finished run took: those asked for, or fewer."""
        if self.stopped.exists():
            return read_json(self.stopped, "where the run stopped")["steps"]
        return self.read_config()["train"]["steps"]

    def claim(self, resolved):
        """Writes `config.json`, or checks that this run may continue what is there.

        Only `[evaluate]` may differ from an earlier run in the same place. What a
        killed run left half-written is removed.

        Raises:
            UsageError: another configuration's run; says in which fields.
            RunError: files but no configuration, or one that cannot be read.
        """
        if self.config.exists():
            old = self.read_config()
            changed = [
                f"{key} is {was!r} there and {now!r} here"
                for key, was, now in config.differences(old, resolved)
                if not key.startswith("evaluate.")
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

    def trained_model(self):
        """Path of the trained classifier.

        Raises:
            UsageError: the training has not finished.
        """
        if not self.model.exists():
            raise UsageError(
                f"{self.path} holds no trained model yet: run its bin/train command "
                "again to finish it"
            )
        return self.model
