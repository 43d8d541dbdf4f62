"""Files of tables: the models and attacks that make a published table, its numbers.

    title = "Na et al. 2018, Table 1: ..."
    attacks = ["step_ll", { as = "ifgsm30", name = "ifgsm", steps = 30, eps = [0.3] }]
    eps = ["16/255", "32/255"]          # of every attack that has none of its own

    [models.start]                      # trained once for all rows and tables
    config = "../na2018/mnist_standard.toml"
    steps = 938                         # the begin of its schedule only

    [models.kurakin]
    config = "../na2018/mnist_kurakin.toml"
    init = "start"                      # goes on from that model with the same seed
    stored = "source"                   # where it mixes in stored images: of that model
    sources = ["A"]                     # where it needs finished models: these
    seed = 1
    set = ["defense.k=32"]

    [[rows]]
    name = "Kurakin's"
    model = "kurakin"
    clean = 99.6                        # published, in percent; nan where it has none
    step_ll = [99.2, 96.7]              # one for each eps

`models_from = "models/na2018_cifar10.toml"` adds the models of another file, which
holds nothing but `[models.<name>]`.

Black-box attacks craft on other models: `sources = [...]` names these, for every
attack that has no list of its own. Such an attack has a single eps, and the lists of a
row are over its sources, with nan where nothing is to be measured. Both kinds stand
side by side where attacks say it for themselves; an empty list is the white box:

    attacks = [
        { as = "fgs", name = "step_fgsm" },
        { as = "fgs_from", name = "step_fgsm", sources = ["A2", "B2"] },
    ]

These columns are printed as "fgs 0.3", "fgs 0.3 from A2" and "fgs 0.3 from B2": of the
name of a black-box attack a `_from` at the end is left out.

A row with `seeds = 20` measures its model with the seeds 1 .. 20 and compares means;
`sd` then holds published deviations. A row may have a `note`, which is printed with the
table.

Nothing here imports TensorFlow.
"""

import dataclasses
import math
import pathlib

from tfadv import config
from tfadv.errors import UsageError, nearest

# Of a row; all its other keys are columns.
ROW_KEYS = ("name", "model", "seeds", "note", "sd")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """A model of a table: a configuration and what is changed in it.

    Args:
        config: file, relative to the table's.
        seed: of training.
        steps: only so many of the schedule, or None.
        init: name of the model it goes on from, with its own seed, or None.
        stored: name of the model whose stored images it is trained with, or None.
        sources: names of the models that it needs finished, for its [sources].
        set: changes `section.key=value`.
    """

    config: str
    seed: int = 0
    steps: int | None = None
    init: str | None = None
    stored: str | None = None
    sources: tuple[str, ...] = ()
    set: tuple[str, ...] = ()

    def __post_init__(self):
        for name, least in (("seed", 0), ("steps", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"`{name}` must be at least {least}; received {value}")

    @property
    def needs(self):
        """(key, name) of every model that must be trained before."""
        named = [("init", self.init), ("stored", self.stored)]
        named += [("sources", name) for name in self.sources]
        return [(key, name) for key, name in named if name is not None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One published number.

    Args:
        attack: the column's name, `"clean"` for none.
        eps: in the units of x, 0 for clean images.
        source: name of the model that crafts, or None for the row's own.
        published: percent, or None where the paper has no number.
        published_sd: its standard deviation over seeds, or None.
    """

    attack: str
    eps: float
    source: str | None
    published: float | None
    published_sd: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A line of a table.

    Args:
        name: unique in the table.
        model: name of the model that is measured.
        seeds: how many seeds are averaged, or None for the model's own seed.
        cells: list of `Cell`.
        note: text to print with it, or empty.
    """

    name: str
    model: str
    seeds: int | None
    cells: list
    note: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """What a file says.

    Args:
        name: the file's stem.
        title: line above the outcome.
        attacks: dict from column name to what `[evaluate] attacks` takes.
        eps: dict from column name to its sizes, in the units of x.
        models: dict from name to `Model`, `config` made a path.
        rows: list of `Row`.
    """

    name: str
    title: str
    attacks: dict
    eps: dict
    models: dict
    rows: list


@dataclasses.dataclass(frozen=True, kw_only=True)
class _File:
    """The keys of a file, as they are written."""

    title: str
    attacks: tuple[str | dict, ...]
    eps: tuple[float, ...]
    rows: tuple[dict, ...]
    sources: tuple[str, ...] = ()
    models_from: str | None = None
    models: dict | None = None

    def __post_init__(self):
        for name in ("attacks", "eps", "rows"):
            if not getattr(self, name):
                raise ValueError(f"`{name}` must hold at least one")
        for name in ("eps", "sources"):
            _check_distinct(getattr(self, name), f"`{name}`")


def find(name, root):
    """The file of the table `name` in `root`; what ends in `.toml` is a path itself.

    Raises:
        UsageError: there is no such table; lists them.
    """
    if name.endswith(".toml"):
        return pathlib.Path(name)
    root = pathlib.Path(root)
    path = root / f"{name}.toml"
    if path.is_file():
        return path
    known = sorted(p.stem for p in root.glob("*.toml"))
    raise UsageError(
        f"unknown table {name!r}{nearest(name, known)} Known: {', '.join(known)}."
    )


def read(path):
    """The `Table` in a file.

    Raises:
        UsageError: not TOML, an unknown key or name, a value of another type, lists of
            the wrong length, one name twice, models that need each other in a circle.
    """
    path = pathlib.Path(path)
    file = config.build(_File, config.read_toml(path), where=str(path))
    models = {}
    if file.models_from is not None:
        other = path.parent / file.models_from
        shared = config.read_toml(other)
        _check_keys(shared, ("models",), needed=("models",), where=str(other))
        models = _models(shared["models"], other)
    own = _models(file.models or {}, path)
    for name in own:
        if name in models:
            raise UsageError(f"{path} [models.{name}]: {file.models_from} has it too")
    models |= own
    for name, model in models.items():
        for key, needed in model.needs:
            _check_name(needed, models, f"{path} [models.{name}] {key}")
    for name in models:
        _check_circle(name, models, (), path)
    for source in file.sources:
        _check_name(source, models, f"{path} sources")
    attacks, eps, sources = _attacks(file, models, f"{path} attacks")
    columns = {"clean": [(0.0, None)]} | {
        column: [(e, source) for source in sources[column] or (None,) for e in sizes]
        for column, sizes in eps.items()
    }
    rows = [
        _row(row, columns, models, f"{path} [[rows]] {i + 1}")
        for i, row in enumerate(file.rows)
    ]
    _check_distinct([row.name for row in rows], f"{path}: the names of rows")
    return Table(
        name=path.stem,
        title=file.title,
        attacks=attacks,
        eps=eps,
        models=models,
        rows=rows,
    )


def _models(tables, path):
    found = {}
    for name, table in tables.items():
        where = f"{path} [models.{name}]"
        table = config.coerce(table, dict, where)
        model = config.build(Model, table, where=where)
        file = path.parent / model.config
        if not file.is_file():
            raise UsageError(f"{where}: no configuration file {file}")
        found[name] = dataclasses.replace(model, config=str(file))
    return found


def _attacks(file, models, where):
    """dicts from column to what `[evaluate] attacks` takes, its sizes, its sources."""
    found, eps, sources = {}, {}, {}
    for one in file.attacks:
        one = {"name": one} if isinstance(one, str) else dict(one)
        if "name" not in one:
            raise UsageError(f"{where}: {one!r} has no key 'name'")
        column = config.coerce(one.pop("as", one["name"]), str, where)
        if column in (*ROW_KEYS, "clean"):
            raise UsageError(f"{where}: no column can have the name {column!r}")
        if column in found:
            raise UsageError(
                f"{where}: two columns have the name {column!r}; give one of them "
                f'another, as in {{ as = "other", name = {one["name"]!r} }}'
            )
        here = f"{where} {column}"
        eps[column] = _own(one, "eps", file.eps, tuple[float, ...], here)
        sources[column] = _own(one, "sources", file.sources, tuple[str, ...], here)
        if not eps[column]:
            raise UsageError(f"{here}: `eps` must hold at least one; received 0")
        if sources[column] and len(eps[column]) > 1:
            raise UsageError(
                f"{here}: an attack with `sources` has one eps; received "
                f"{len(eps[column])}. Give it an `eps` of its own."
            )
        for source in sources[column]:
            _check_name(source, models, f"{here} sources")
        found[column] = one
    black_box = [name.removesuffix("_from") for name in found if sources[name]]
    _check_distinct(black_box, f"{where}: names of black-box columns without `_from`")
    return found, eps, sources


def _own(attack, key, shared, hint, where):
    """The list `key` of an attack, out of which it is taken, or else the file's."""
    found = config.coerce(attack.pop(key, shared), hint, f"{where} {key}")
    _check_distinct(found, f"{where}: `{key}`")
    return found


def _row(table, columns, models, where):
    known = (*ROW_KEYS, *columns)
    _check_keys(table, known, needed=("name", "model"), where=where)
    name, model, note = (
        config.coerce(table.get(key, ""), str, f"{where} {key}")
        for key in ("name", "model", "note")
    )
    _check_name(model, models, f"{where} model")
    seeds = config.coerce(table.get("seeds"), int | None, f"{where} seeds")
    if seeds is not None and seeds < 1:
        raise UsageError(f"{where}: `seeds` must be at least 1; received {seeds}")
    sd = config.coerce(table.get("sd", {}), dict, f"{where} sd")
    given = [column for column in columns if column in table]
    _check_keys(sd, given, needed=(), where=f"{where} sd")
    if sd and seeds is None:
        raise UsageError(f"{where}: `sd` is over seeds; say how many with `seeds`")
    cells = []
    for column in given:
        spots = columns[column]
        values = _numbers(table[column], len(spots), f"{where} {column}")
        deviations = _numbers(sd.get(column), len(spots), f"{where} sd {column}")
        for (eps, source), value, deviation in zip(
            spots, values, deviations, strict=True
        ):
            # An empty place of a printed black-box table is left empty.
            if value is not None or source is None:
                cells.append(
                    Cell(
                        attack=column,
                        eps=eps,
                        source=source,
                        published=value,
                        published_sd=deviation,
                    )
                )
    if not cells:
        raise UsageError(f"{where}: no number in any of {', '.join(columns)}")
    return Row(name=name, model=model, seeds=seeds, cells=cells, note=note)


def _numbers(value, count, where):
    """`count` percentages, None for nan, or all None where there is no value."""
    if value is None:
        return [None] * count
    values = value if isinstance(value, list) else [value]
    plain = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if len(values) != count or not plain:
        raise UsageError(f"{where}: expected {count} numbers; received {value!r}")
    if not all(math.isnan(v) or 0 <= v <= 100 for v in values):
        raise UsageError(f"{where}: expected percent, 0 to 100; received {value!r}")
    return [None if math.isnan(v) else float(v) for v in values]


def _check_keys(table, known, *, needed, where):
    for key in table:
        if key not in known:
            raise UsageError(
                f"{where}: unknown key {key!r}{nearest(key, known)} "
                f"Keys: {', '.join(known)}."
            )
    for key in needed:
        if key not in table:
            raise UsageError(f"{where}: missing key {key!r}")


def _check_name(name, models, where):
    if name is not None and name not in models:
        raise UsageError(
            f"{where}: unknown model {name!r}{nearest(name, models)} "
            f"Models: {', '.join(models)}."
        )


def _check_distinct(names, what):
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{what} must differ; {name!r} is there twice")


def _check_circle(name, models, way, path):
    """Follows what a model needs; `way` are those that led to it."""
    if name in way:
        circle = " -> ".join((*way[way.index(name) :], name))
        raise UsageError(f"{path}: models need each other in a circle: {circle}")
    for _, needed in models[name].needs:
        _check_circle(needed, models, (*way, name), path)
