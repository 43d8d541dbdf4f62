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
# Of these, what decides when a run with `patience` stops.
DECIDING_WITH_PATIENCE = ("validate_every", "validation_examples")


@dataclasses.dataclass(frozen=True)
class Trainable:
    """A model of a table with its seed and fold, ready to be trained or found trained.

    Args:
        name: of the model in its table.
        seed: int.
        fold: name of the data set that the table averages over others with, or None.
        shift: what a mean over seeds adds to the own seeds of the models that it needs
            or is attacked by.
        partner: number of the network in its [partners], from 1, or None for its
            [model].
        tables: `config.Config` of its training, without the paths of what it needs.
        experiment: `experiment.Experiment` of these tables.
        init: the `Trainable` it goes on from, or None.
        stored: the `Trainable` whose stored images it is trained with, or None.
        sources: the `Trainable`s that it needs as finished models.
        run_path: workdir of its training. The name ends in a hash of the resolved
            configuration and of what it needs, so equal models of several tables are
            one, and partners are trained together.
    """

    name: str
    seed: int
    fold: str | None
    shift: int
    partner: int | None
    tables: config.Config
    experiment: experiment.Experiment
    init: "Trainable | None"
    stored: "Trainable | None"
    sources: "list[Trainable]"
    run_path: pathlib.Path

    @property
    def path(self):
        """Its own workdir."""
        if self.partner is None:
            return self.run_path
        return Workdir(self.run_path).partner(self.partner)

    @property
    def key(self):
        """What tells it from all other models: the end of its workdir's path."""
        return self.path.relative_to(self.run_path.parent).as_posix()

    @property
    def config(self):
        """The resolved configuration in which it is the [model]."""
        if self.partner is None:
            return self.experiment.config
        return experiment.of_partner(self.experiment.config, self.partner)

    @property
    def steps(self):
        return self.experiment.train.steps

    @property
    def full_steps(self):
        return self.experiment.train.full_steps or self.steps

    @property
    def steps_taken(self):
        """`steps`, or fewer where it is trained and was stopped before."""
        return Workdir(self.path).steps() if self.is_trained() else self.steps

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
        # The partners are written first: the run has ended when all of them are there.
        return all(Workdir(p).is_trained() for p in (self.path, self.run_path))

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
        run.fit(tables, self.run_path, data_dir=data_dir)

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
        self._known = functools.cache(self._make)

    def get(self, name, seed=None, fold=None, shift=0):
        """The `Trainable` of a model.

        Args:
            name: of the model in the table.
            seed: int, or None for its own and `shift`.
            fold: name of a data set that takes the place of its own, or None.
            shift: see `Trainable`.
        """
        if seed is None:
            seed = self.table.models[name].seed + shift
        return self._known(name, seed, fold, shift)

    def of_row(self, row):
        """The `Trainable`s that a row averages over."""
        if self.table.folds:
            return [self.get(row.model, fold=fold) for fold in self.table.folds]
        if row.seeds is None:
            return [self.get(row.model)]
        return [self.get(row.model, 1 + k, shift=k) for k in range(row.seeds)]

    def source(self, cell, target):
        """The `Trainable` whose images a cell attacks `target` with; None: its own."""
        if not cell.source:
            return None
        return self.get(cell.source, fold=target.fold, shift=target.shift)

    def _make(self, name, seed, fold, shift):
        model = self.table.models[name]
        alike = {"fold": fold, "shift": shift}
        init = self.get(model.init, seed, **alike) if model.init else None
        stored = self.get(model.stored, **alike) if model.stored else None
        sources = [self.get(source, **alike) for source in model.sources]
        try:
            tables = self._tables(model, seed, fold)
            built = experiment.build(tables)
            _check_partner(model.partner, len(built.networks) - 1)
            _check_needs(built, init, stored, sources)
        except UsageError as error:
            where = f"table {self.table.name}, model {name!r}"
            raise UsageError(f"{where}: {error}") from None
        identity = {k: v for k, v in built.config.items() if k != "evaluate"}
        bookkeeping = set(BOOKKEEPING)
        if built.train.patience is not None:
            bookkeeping -= set(DECIDING_WITH_PATIENCE)
        identity["train"] = {
            k: v for k, v in identity["train"].items() if k not in bookkeeping
        }
        if stored is not None:
            identity["stored"] = identity["stored"] | {"source": stored.key}
        if sources:
            identity["sources"] = [source.key for source in sources]
        if init is not None:
            identity["init"] = init.key
        text = json.dumps(identity, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        path = self.directory / f"{pathlib.Path(model.config).stem}_{seed}_{digest}"
        return Trainable(
            name=name,
            seed=seed,
            fold=fold,
            shift=shift,
            partner=model.partner,
            tables=tables,
            experiment=built,
            init=init,
            stored=stored,
            sources=sources,
            run_path=path,
        )

    def _tables(self, model, seed, fold):
        tables = config.load(model.config)
        if fold is not None:
            # All of [data], because another name starts the table afresh.
            changes = {"data": tables.get("data", {}) | {"name": fold}}
            origin = f"{tables.origin('data')}, fold {fold}"
            tables = tables.merged(changes, origin)
        tables = config.override(tables, model.set)
        if fold is not None and tables["data"]["name"] != fold:
            raise UsageError(
                f"`set` makes data.name {tables['data']['name']!r}, and `folds` of the "
                f"table {fold!r}: leave it out of `set`"
            )
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


def _check_partner(number, count):
    """UsageError where a configuration has no partner of this number."""
    if number is not None and number > count:
        there = f"is from 1 to {count}, the networks of" if count else "needs"
        raise UsageError(
            f"`partner` {there} [partners] in its configuration; received {number}"
        )


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
    several = len(built.networks) > 1
    if several and init is not None:
        raise UsageError(
            "`init` is one network, and [partners] has others: name what all of them "
            "start from in `sources`"
        )
    if several and sources and len(sources) != len(built.networks):
        raise UsageError(
            f"the {len(built.networks)} networks of [model] and [partners] start from "
            f"as many `sources`; received {len(sources)}"
        )
    if init is not None and init.partner is not None:
        raise UsageError(
            f"`init` goes on from checkpoints, and {init.name!r} has none of its own: "
            "it was trained as the partner of another"
        )
    needed = [
        (init, experiment.SHARED, built.config),
        (stored, ("data",), built.config),
    ]
    for i, source in enumerate(sources):
        needed.append((source, built.shared_with_sources, built.beside_source(i)))
    for one, sections, own in needed:
        if one is None:
            continue
        theirs, ours = (
            experiment.shared_with_origin(resolved, sections)
            for resolved in (one.config, own)
        )
        for key, was, now in config.differences(theirs, ours):
            raise UsageError(
                f"the model {one.name!r} that it needs has {key} = {was!r}, this "
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
