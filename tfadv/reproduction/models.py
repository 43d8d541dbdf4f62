"""The models that tables need, each trained once: found again by what it is."""

import dataclasses
import functools
import hashlib
import json
import pathlib

from tfadv import config, experiment, run
from tfadv.errors import UsageError
from tfadv.workdir import Workdir

# What does not change the weights.
BOOKKEEPING = (
    "checkpoint_every",
    "keep_checkpoints",
    "validate_every",
    "validation_examples",
    "summary_every",
    "init_from",
)


@dataclasses.dataclass(frozen=True)
class Trainable:
    """A model of a table with its seed, ready to be trained or found trained.

    Args:
        name: of the model in its table.
        seed: int.
        tables: `config.Config`, without the paths of what it needs.
        experiment: `experiment.Experiment` of these tables.
        init: the `Trainable` it goes on from, or None.
        stored: the `Trainable` whose stored images it is trained with, or None.
        sources: the `Trainable`s that it needs as finished models.
        path: its workdir. The name ends in a hash of the resolved configuration and
            of what it needs, so equal models of several tables are one.
    """

    name: str
    seed: int
    tables: config.Config
    experiment: experiment.Experiment
    init: "Trainable | None"
    stored: "Trainable | None"
    sources: "list[Trainable]"
    path: pathlib.Path

    @property
    def steps(self):
        return self.experiment.train.steps

    @property
    def full_steps(self):
        return self.experiment.train.full_steps or self.steps

    @property
    def needs(self):
        needed = (self.init, self.stored, *self.sources)
        return [one for one in needed if one is not None]

    @property
    def stored_path(self):
        """Where the stored images are that it is trained with, or None."""
        if self.stored is None:
            return None
        return run.stored_path(self._stored_directory, self.experiment)

    @property
    def _stored_directory(self):
        # One for each largest eps, which the images' own path does not tell.
        return self.stored.path / f"stored_{len(self.experiment.stored.eps)}"

    def check(self):
        """Makes it once, untrained: what cannot be made is known before data is read.

        Raises:
            UsageError: an argument of the model or the defence.
        """
        self.experiment.make_defense(self.experiment.make_model())

    def is_trained(self):
        return Workdir(self.path).is_trained()

    def fit(self, data_dir):
        """Trains it; what it needs must be there."""
        changes = {}
        if self.init is not None:
            changes["train"] = {"init_from": str(self.init.path)}
        if self.stored is not None:
            changes["stored"] = {"path": str(self.stored_path), "source": None}
        if self.sources:
            paths = [str(source.path) for source in self.sources]
            changes["sources"] = {"paths": paths, "configs": []}
        tables = self.tables.merged(changes, "the table")
        run.fit(tables, self.path, data_dir=data_dir)

    def craft(self, data_dir):
        """Writes the stored images it is trained with; their model must be there."""
        source, stored = self.stored.path, self.experiment.stored
        run.craft_stored(source, stored, self._stored_directory, data_dir)


class Models:
    """The models of a table.

    Args:
        table: `tables.Table`.
        workdir: directory; models live in `workdir/models`.
        fraction: of every schedule, in (0, 1].

    Raises:
        UsageError: another fraction. `get` and `of_row`: a configuration that is wrong
            or does not fit what its model needs; says which model.
    """

    def __init__(self, table, workdir, *, fraction=1.0):
        if not 0 < fraction <= 1:
            raise UsageError(f"--fraction must be in (0, 1]; received {fraction:g}")
        self.table, self.fraction = table, fraction
        # Absolute, as configurations hold it and a later call may come from elsewhere.
        self.directory = pathlib.Path(workdir).resolve() / "models"
        # One object a model, however often it is asked for.
        self.get = functools.cache(self._get)

    def of_row(self, row):
        """The `Trainable`s that a row averages over."""
        if row.seeds is None:
            return [self.get(row.model)]
        return [self.get(row.model, seed) for seed in range(1, row.seeds + 1)]

    def _get(self, name, seed=None):
        model = self.table.models[name]
        seed = model.seed if seed is None else seed
        init = self.get(model.init, seed) if model.init else None
        stored = self.get(model.stored) if model.stored else None
        sources = [self.get(source) for source in model.sources]
        try:
            tables = self._tables(model, seed)
            built = experiment.build(tables)
            _check_needs(built, init, stored, sources)
        except UsageError as error:
            where = f"table {self.table.name}, model {name!r}"
            raise UsageError(f"{where}: {error}") from None
        identity = {k: v for k, v in built.config.items() if k != "evaluate"}
        identity["train"] = {
            k: v for k, v in identity["train"].items() if k not in BOOKKEEPING
        }
        if stored is not None:
            identity["stored"] = identity["stored"] | {"source": stored.path.name}
        if sources:
            identity["sources"] = [source.path.name for source in sources]
        if init is not None:
            identity["init"] = init.path.name
        text = json.dumps(identity, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        path = self.directory / f"{pathlib.Path(model.config).stem}_{seed}_{digest}"
        return Trainable(
            name=name,
            seed=seed,
            tables=tables,
            experiment=built,
            init=init,
            stored=stored,
            sources=sources,
            path=path,
        )

    def _tables(self, model, seed):
        tables = config.load(model.config, model.set)
        where = f"{tables.origin('train')} [train]"
        full = config.build(config.Train, tables.get("train", {}), where=where).steps
        if model.steps is not None and model.steps > full:
            raise UsageError(
                f"`steps` must be at most the {full} of its schedule; received "
                f"{model.steps}"
            )
        steps = config.scaled(full, self.fraction)
        tables = config.shortened(tables, steps)
        changes = {"seed": seed}
        if model.steps is not None:
            changes["steps"] = config.scaled(model.steps, steps / full)
            if self.fraction < 1:
                changes["full_steps"] = model.steps
        return tables.merged({"train": changes}, "the table")


def _check_needs(built, init, stored, sources):
    """UsageError where a model does not fit what it needs."""
    if built.train.init_from is not None:
        raise UsageError(
            "train.init_from is for single runs; in a table `init` names a model"
        )
    if (built.stored is None) != (stored is None):
        raise UsageError(
            "`stored` in the table names the model whose images a configuration with "
            "[stored] mixes in: give both or neither"
        )
    if (built.sources is None) != (not sources):
        raise UsageError(
            "`sources` in the table name the finished models that a configuration with "
            "[sources] needs: give both or neither"
        )
    for needed, sections in (
        (init, experiment.SHARED),
        (stored, ("data",)),
        *((source, built.shared_with_sources) for source in sources),
    ):
        if needed is None:
            continue
        theirs, ours = (
            experiment.shared_with_origin(exp.config, sections)
            for exp in (needed.experiment, built)
        )
        for key, was, now in config.differences(theirs, ours):
            raise UsageError(
                f"the model {needed.name!r} that it needs has {key} = {was!r}, this "
                f"one {now!r}; they must agree"
            )
    if init is not None and init.steps >= built.train.steps:
        raise UsageError(
            f"the steps of {init.name!r} count, and {init.steps} of "
            f"{built.train.steps} leave none: let it start from fewer `steps`, or "
            "shorten the table less (--fraction)"
        )


def in_order(wanted):
    """`wanted` and all that is needed to train them, each once, needed ones first."""
    found = {}

    def add(trainable):
        if not trainable.is_trained():
            for needed in trainable.needs:
                add(needed)
        found.setdefault(trainable.path, trainable)

    for trainable in wanted:
        add(trainable)
    return list(found.values())
