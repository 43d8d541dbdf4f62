"""Trains and measures all that a published table needs, resumable at any point."""

import dataclasses
import hashlib
import json
import pathlib
import time
from collections.abc import Callable

from absl import logging

from tfadv import config, experiment
from tfadv.attacks import core
from tfadv.errors import UsageError, nearest
from tfadv.evaluation import measure, suite, transfer
from tfadv.files import make_directory, read_json, replacing, write_json
from tfadv.report import table_plots
from tfadv.reproduction import curves, outcome, tables
from tfadv.reproduction.models import Models, in_order
from tfadv.trained import open_model

# Cost of one image: a gradient with respect to the image, in training steps.
GRADIENT = 0.7


@dataclasses.dataclass(frozen=True)
class Task:
    """A piece of the work.

    Args:
        label: what it does, for the progress line.
        cost: in images that are trained on, times the size of the network.
        is_done: () -> bool, whether an earlier call did it.
        run: () -> None.
    """

    label: str
    cost: float
    is_done: Callable
    run: Callable


def reproduce(
    path,
    workdir,
    *,
    fraction=1.0,
    rows=None,
    num_examples=None,
    batch_size=250,
    bn_eval="moving",
    data_dir=None,
    output=None,
):
    """Makes a table of a paper again; a second call does only what is missing.

    Args:
        path: file of the table.
        workdir: directory for the models, shared by all tables.
        fraction: of every schedule, in (0, 1].
        rows: names of the rows to measure, or None for all. Others keep what an earlier
            outcome at the same place says of them, which must be of the same table,
            fraction, `bn_eval` and `craft_on`.
        num_examples: how many test images (the first ones), or None for all.
        batch_size: images attacked at once.
        bn_eval: what batch normalisation takes when a model is measured; see
            `config.Evaluate`. With `"batch"` a measurement is that of its batch size.
        data_dir: where TFDS finds prepared data.
        output: JSON file of the outcome, a `.md` of the same name beside it, and a
            `.png` where the table has a figure; None for `workdir/<table>.json`.

    Returns:
        The outcome; see `outcome.compose`.

    Raises:
        UsageError, RunError: see `errors`.
        errors.Stopped: a signal came; call again to continue.
    """
    table = tables.read(path)
    chosen = _choose(table, rows)
    models = Models(table, workdir, fraction=fraction)
    bench = Bench(table, models, num_examples, batch_size, data_dir, bn_eval)
    place = pathlib.Path(output or pathlib.Path(workdir) / f"{table.name}.json")
    _earlier(place, table, fraction, bench.statistics)
    tasks = bench.plan(chosen)
    clock = Clock(tasks)

    def publish():
        made = outcome.compose(
            table,
            chosen,
            models,
            bench.found,
            fraction=fraction,
            batch_statistics=bench.statistics,
            # Read again: another process may measure other rows.
            before=_earlier(place, table, fraction, bench.statistics),
        )
        write_json(place, made)
        with replacing(place.with_suffix(".md")) as temporary:
            temporary.write_text(outcome.document(made))
        if table.figure is not None:
            table_plots.lines(curves.of(made), place.with_suffix(".png"))
        return made

    for number, task in enumerate(tasks):
        if not task.is_done():
            logging.info(clock.line(number))
            task.run()
            publish()
        clock.finished(number)
    return publish()


def _choose(table, names):
    if names is None:
        return table.rows
    known = {row.name: row for row in table.rows}
    if not names:
        raise UsageError(f"no row of table {table.name} is chosen")
    for name in names:
        if name not in known:
            raise UsageError(
                f"table {table.name} has no row {name!r}{nearest(name, known)} "
                f"Rows: {', '.join(known)}."
            )
    return [row for row in table.rows if row.name in names]


def _earlier(place, table, fraction, statistics):
    """The cells of the outcome at `place`, which can be written; [] where none is."""
    if place.suffix != ".json":
        raise UsageError(f"--output must end in .json; received {place}")
    make_directory(place.parent)
    if not place.exists():
        return []
    found = read_json(place, "the earlier outcome")
    try:
        theirs = _shared(found["table"], found["fraction"], found)
        cells = found["cells"]
    except (TypeError, KeyError):
        raise UsageError(
            f"{place} is not an outcome of bin/reproduce: choose another --output"
        ) from None
    ours = _shared(table.name, fraction, statistics)
    if theirs != ours:
        raise UsageError(
            f"{place} holds {_in_words(*theirs)}, this is {_in_words(*ours)}, and one "
            "file holds one of them: choose another --output"
        )
    return cells


def _shared(name, fraction, statistics):
    """What all cells of an outcome share."""
    keys = ("bn_eval", "batch_size", "craft_on")
    return name, fraction, *map(statistics.get, keys)


def _in_words(name, fraction, bn_eval, batch_size, craft_on):
    text = f"{name} at fraction {fraction}{config.craft_text(craft_on)}"
    return f"{text} with statistics of batches of {batch_size}" if bn_eval else text


class Clock:
    """Progress over the whole table.

    Args:
        tasks: all of them; those that are done already count as nothing.
    """

    def __init__(self, tasks):
        self.tasks = tasks
        self.costs = [0.0 if task.is_done() else task.cost for task in tasks]
        self.begin, self.done = time.monotonic(), 0.0

    def finished(self, number):
        self.done += self.costs[number]

    def line(self, number):
        """What comes now, how much of the table is done, how long the rest takes."""
        share = self.done / max(sum(self.costs), 1e-9)
        text = f"[{number + 1}/{len(self.tasks)}] {self.tasks[number].label}"
        if not self.done:
            return text
        left = (time.monotonic() - self.begin) / share * (1 - share) / 60
        return f"{text}; {100 * share:.0f} % of the table, about {left:.0f} min left"


class Bench:
    """Trains and measures the models of a table, and keeps what it found on disk.

    Every measurement is a file in the workdir of the model that was attacked, named by
    what was measured, so tables share them.

    Args:
        table: `tables.Table`.
        models: `models.Models`.
        num_examples, batch_size, data_dir, bn_eval: see `reproduce`.

    Attributes:
        statistics: see `outcome.compose`; empty where these are moving averages. Also
            `craft_on`, where that of the table is not "logits".
        top5: whether a column of the table counts top-5, so that all is measured so.

    Raises:
        UsageError: an attack, an eps or a number that cannot be.
    """

    def __init__(
        self, table, models, num_examples, batch_size, data_dir, bn_eval="moving"
    ):
        self.table, self.models = table, models
        self.num_examples, self.batch_size = num_examples, batch_size
        self.data_dir = data_dir
        self.statistics = {}
        if bn_eval != "moving":
            self.statistics = {"bn_eval": bn_eval, "batch_size": batch_size}
        if table.craft_on != "logits":
            self.statistics["craft_on"] = table.craft_on
        self.top5 = any(
            cell.metric in tables.TOP5 for row in table.rows for cell in row.cells
        )
        self._opened, self._images, self._fold = {}, {}, None
        where = f"table {table.name}"
        self.evaluate = config.build(
            config.Evaluate,
            {
                "attacks": list(table.attacks.values()),
                "eps": sorted({e for sizes in table.eps.values() for e in sizes}),
                "batch_size": batch_size,
                "num_examples": num_examples,
                "bn_eval": bn_eval,
                "craft_on": table.craft_on,
            },
            where=where,
        )
        self._entries = {}
        for name, spec in table.attacks.items():
            alone = dataclasses.replace(
                self.evaluate, attacks=(spec,), eps=table.eps[name]
            )
            self._entries[name] = suite.build(alone, where=where)[0]

    def plan(self, rows):
        """The `Task`s that these rows need, in an order in which they can be done.

        Raises:
            UsageError: a model that cannot be made, or measured as the table asks.
        """
        # The white box row by row, so that an interrupted table has whole rows; then
        # source by source, so that each is crafted on once for all its targets.
        everything = self._keys(rows)
        self._check_images([one for key in everything for one in _models(key)])
        self._check_metrics(rows)
        white = [[key for key in self._keys([row]) if key[2] is None] for row in rows]
        black = {}
        for key in everything:
            if key[2] is not None:
                black.setdefault(key[2].path, []).append(key)
        tasks, seen = [], {None}
        for group in [*white, *black.values()]:
            for trainable in in_order([one for key in group for one in _models(key)]):
                tasks += self._training_tasks(trainable, seen)
            for key in group:
                # Columns that differ in what they count share a measurement.
                if self._path(*key) not in seen:
                    seen.add(self._path(*key))
                    tasks.append(self._measure_task(*key))
        return tasks

    def _keys(self, rows):
        """(target, attack, source) of every measurement of these rows."""
        return [
            key
            for row in rows
            for target in self.models.of_row(row)
            for cell in row.cells
            for key in (
                *([(target, "clean", None)] if cell.metric in tables.RATIO else []),
                (target, cell.attack, self.models.source(cell, target)),
            )
        ]

    def _training_tasks(self, trainable, seen):
        """What must be done to have it; notes in `seen` what is planned already."""
        if trainable.run_path in seen:
            return []
        tasks = []
        if not trainable.is_trained():
            # Seeds of one model differ in nothing that could fail.
            if trainable.name not in seen:
                trainable.check()
            if trainable.stored_path not in seen:
                tasks.append(self._craft_task(trainable))
            seen |= {trainable.name, trainable.stored_path}
        seen.add(trainable.run_path)
        return [*tasks, self._train_task(trainable)]

    def _check_images(self, trainables):
        where, firsts = f"table {self.table.name}", {}
        for one in trainables:
            first = firsts.setdefault(one.fold, one)
            if _images(one) != _images(first):
                raise UsageError(
                    f"{where}: its models do not take the same images: {first.name!r} "
                    f"takes {_images(first)}, {one.name!r} takes {_images(one)}"
                )
        sources = {fold: _source(one) for fold, one in firsts.items()}
        kinds = {
            fold: (source.image_shape, source.num_classes, source.ordered)
            for fold, source in sources.items()
        }
        if len(set(kinds.values())) > 1:
            raise UsageError(
                f"{where}: `folds` must be parts of one data set; received "
                f"{', '.join(kinds)}, which differ in their images or classes"
            )
        available = min(source.sizes["test"] for source in sources.values())
        experiment.check_evaluation_sizes(self.evaluate, available, "test", where)

    def _check_metrics(self, rows):
        """UsageError where a column counts what these data do not have."""
        for row in rows:
            target = self.models.of_row(row)[0]
            source, name = _source(target), target.experiment.config["data"]["name"]
            for cell in row.cells:
                where = f"table {self.table.name}, row {row.name!r}: {cell.attack!r}"
                if cell.metric == "one_off" and not source.ordered:
                    raise UsageError(
                        f"{where} counts neighbouring classes (one_off), and those of "
                        f"{name} have no order: leave this column out"
                    )
                if cell.metric in tables.TOP5 and source.num_classes <= 5:
                    raise UsageError(
                        f"{where} counts the five largest logits ({cell.metric}), and "
                        f"{name} has {source.num_classes} classes: leave this column "
                        "out"
                    )

    def found(self, cell, target, source):
        """The measured row for a cell, or None while it is not measured.

        Of a ratio it has the row of the clean images under `clean`.
        """
        row = self._row(target, cell.attack, source, cell.eps)
        if row is None or cell.metric not in tables.RATIO:
            return row
        clean = self._row(target, "clean", None, 0.0)
        return clean and row | {"clean": clean}

    def _row(self, target, attack, source, eps):
        path = self._path(target, attack, source)
        if not path.exists():
            return None
        rows = read_json(path, "a measurement")["rows"]
        return next(row for row in rows if abs(row["eps"] - eps) < 1e-9)

    def _train_task(self, trainable):
        before = trainable.init.steps if trainable.init is not None else 0
        return Task(
            label=f"training {_which(trainable)}, {trainable.steps:,} of "
            f"{trainable.full_steps:,} steps",
            cost=_cost_of_training(trainable) * (trainable.steps - before) * 128,
            is_done=trainable.is_trained,
            run=lambda: trainable.fit(self.data_dir),
        )

    def _craft_task(self, trainable):
        source = trainable.stored
        gradients = 44 * trainable.experiment.stored.max_eps * 255 / 16
        images = _source(source).sizes["train"]
        return Task(
            label=f"crafting the stored images of {source.name}",
            cost=_size(source) * images * gradients * GRADIENT,
            is_done=trainable.stored_path.exists,
            run=lambda: trainable.craft(self.data_dir),
        )

    def _measure_task(self, target, attack, source):
        by = f" crafted on {source.name}" if source is not None else ""
        at = target if source is None else source
        images = _source(target).sizes["test"]
        gradients = 1 if attack in tables.CLEAN else self._gradients(attack)
        return Task(
            label=f"measuring {_which(target)}: {attack}{by}",
            cost=_size(at) * (self.num_examples or images) * gradients * GRADIENT,
            is_done=self._path(target, attack, source).exists,
            run=lambda: self._measure(target, attack, source),
        )

    def _gradients(self, name):
        """How many gradients an attack takes for all eps together, about."""
        attack, eps = self._entries[name].attack, self.table.eps[name]
        if not hasattr(attack, "steps"):
            return 1
        if attack.steps is None:
            free = round(max(eps) * 255)
            return free + sum(core.kurakin_steps(e) - round(e * 255) for e in eps)
        return attack.steps * getattr(attack, "restarts", 1) * len(eps)

    def _measure(self, target, attack, source):
        """Measures one attack at every eps; black box: on all targets of the source."""
        opened = self._open(target)
        images = self._read(opened)
        clean = attack in tables.CLEAN
        made_for = target if source is None else source
        entries = [] if clean else [self._entries[attack]]
        entries = suite.for_model(entries, made_for.path)
        options = {
            "batch_size": self.batch_size,
            "seed": 0,
            "ordered_classes": _source(target).ordered_classes,
            "top5": self.top5,
        }
        craft_on = self._open(made_for).craft_on
        eps = self.table.eps.get(attack, ())
        if source is None:
            rows = measure(
                opened.predict,
                images,
                entries,
                eps,
                clean=clean,
                craft_on=craft_on,
                **options,
            )
            self._write(target, attack, None, rows)
            return
        # Crafted once: whoever else is attacked from this source is measured too.
        targets = {}
        for row in self.table.rows:
            for one in self.models.of_row(row):
                wanted = [
                    self._path(one, cell.attack, self.models.source(cell, one))
                    for cell in row.cells
                    if cell.source
                ]
                if self._path(one, attack, source) in wanted and one.is_trained():
                    targets[one.key] = one
        rows = transfer.measure(
            {source.key: self._open(source).predict},
            {name: self._open(one).predict for name, one in targets.items()},
            images,
            entries,
            eps,
            craft_on={source.key: craft_on},
            **options,
        )
        for name, one in targets.items():
            mine = [r for r in rows if r["target"] == name and r["source"] is not None]
            self._write(one, attack, source, mine)

    def _open(self, trainable):
        if trainable.fold != self._fold:
            # Models are large, and whoever meets another is of the same fold.
            self._opened, self._images, self._fold = {}, {}, trainable.fold
        if trainable.path not in self._opened:
            limits = {
                "batch_size": self.batch_size,
                "num_examples": self.num_examples,
                "bn_eval": self.evaluate.bn_eval,
                "craft_on": self.evaluate.craft_on,
            }
            # The order of the images is that of a seed: one for all models.
            changes = config.Config().merged(
                {"evaluate": limits, "train": {"seed": 0}}, "the command line"
            )
            opened = open_model(workdir=trainable.path, changes=changes)
            self._opened[trainable.path] = opened
        return self._opened[trainable.path]

    def _read(self, opened):
        key = json.dumps(opened.config["data"], sort_keys=True)
        if key not in self._images:
            self._images[key] = opened.read_test(self.data_dir)
        return self._images[key]

    def _path(self, target, attack, source):
        entry = self._entries.get(attack)
        what = {
            "attack": _in_full(entry.attack) if entry else "clean",
            "eps": self.table.eps[attack] if entry else None,
            "source": source.key if source is not None else None,
            "num_examples": self.num_examples,
            **self.statistics,
        }
        if _source(target).ordered:
            # The rows have more than those of other data.
            what["ordered"] = True
        if self.top5:
            what["top5"] = True
        text = json.dumps(what, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        name = entry.name if entry else "clean"
        return target.path / "measured" / f"{name}_{digest}.json"

    def _write(self, target, attack, source, rows):
        path = self._path(target, attack, source)
        write_json(path, {"source": source and source.key, "rows": rows})


def _in_full(attack):
    """The attack with all of its fields, but the norm where it is l-inf.

    Which was the only one once; what was measured then stays what it is.
    """
    fields = [
        f"{field.name}={value!r}"
        for field in dataclasses.fields(attack)
        if (field.name, value := getattr(attack, field.name)) != ("norm", "linf")
    ]
    return f"{type(attack).__qualname__}({', '.join(fields)})"


def _models(key):
    target, _, source = key
    return [target] if source is None else [target, source]


def _which(trainable):
    """A model in words: its name, its seed and, if it has one, its fold."""
    fold = f", {trainable.fold}" if trainable.fold else ""
    return f"{trainable.name}, seed {trainable.seed}{fold}"


def _source(trainable):
    """Its `data.Source`."""
    return trainable.experiment.dataset.source


def _images(trainable):
    """What tells the images that it takes from others; see `Dataset.describe`."""
    exp = trainable.experiment
    return exp.dataset.describe(exp.config["data"]["name"])


def _size(trainable):
    """Proportional to the operations of a pass: layers times places."""
    return _size_of(trainable, trainable.config["model"])


def _cost_of_training(trainable):
    """The same for all networks that are trained together."""
    networks = trainable.experiment.networks
    return sum(_size_of(trainable, network) for network in networks)


def _size_of(trainable, network):
    h, w, _ = trainable.experiment.dataset.image_shape
    return h * w * network.get("depth", 20)
