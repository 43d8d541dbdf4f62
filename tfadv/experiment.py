"""From a configuration to the objects it names, before any data is read."""

import dataclasses
import functools
import inspect
from collections.abc import Callable

from tfadv import attacks, config, data, defenses, models, optimizers, predictor
from tfadv.errors import UsageError
from tfadv.evaluation import suite


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A checked configuration.

    Args:
        config: dict of tables with every default filled in, as JSON holds it; but
            those of `LATER`, which are there only where they say something else.
        dataset: `data.Dataset`.
        train: `config.Train`.
        evaluate: `config.Evaluate`.
        attack: the defence's attack, or None.
        attack_name: its name, or None.
        stored: `config.Stored`, or None.
        sources: `config.Sources`, or None.
        crafted: `suite.Entry`s that make copies of the training set.
        keeps_classifier: see `defenses.Defense`.
        suite: the attacks of the evaluation, `suite.Entry`s.
        make_model: () -> the classifier.
        make_defense: (classifier) -> the compiled defence.
    """

    config: dict
    dataset: data.Dataset
    train: config.Train
    evaluate: config.Evaluate
    attack: object
    attack_name: str | None
    stored: config.Stored | None
    sources: config.Sources | None
    crafted: list
    keeps_classifier: bool
    suite: list
    make_model: Callable
    make_defense: Callable

    @property
    def shared_with_sources(self):
        """Sections that its [sources] must share with it."""
        return ("model", "data") if self.keeps_classifier else ("data",)


# Keys that are younger than workdirs and tables of models, which stay what they are:
# a resolved configuration has them only where they differ from these defaults.
LATER = {
    ("data", "standardize"): False,
    ("data", "extra"): 0,
    ("evaluate", "bn_eval"): "moving",
}


def build(tables, *, replicas=1):
    """Checks a configuration and builds what it names.

    Args:
        tables: `config.Config`, or the dict of a workdir's `config.json`.
        replicas: int, devices that share a batch.

    Returns:
        An `Experiment`. Models and defences are made later, in the strategy's scope.

    Raises:
        UsageError: with the table and the file it comes from.
    """
    tables = tables if isinstance(tables, config.Config) else config.Config(tables)
    where = {name: f"{tables.origin(name)} [{name}]" for name in config.SECTIONS}
    optional = ("attack", "generator", "generator_optimizer")
    for name in ("data", "model", "optimizer", "defense", *optional):
        needed = name not in optional or tables.get(name)
        if needed and "name" not in tables.get(name, {}):
            raise UsageError(f"{where[name]}: missing key 'name'")

    train = config.build(config.Train, tables.get("train", {}), where=where["train"])
    evaluate = config.build(
        config.Evaluate, tables.get("evaluate", {}), where=where["evaluate"]
    )
    source = data.get(tables["data"]["name"])
    dataset = config.build(
        data.Dataset, tables["data"], where=where["data"], source=source
    )
    _check_sizes(dataset, train, evaluate, where)

    resolved = {}

    def bound(section, factory, given=()):
        table = tables[section]
        arguments = config.bind(factory, table, where=where[section], given=given)
        resolved[section] = {"name": table["name"], **arguments}
        return arguments

    bound("data", data.Dataset, ("source",))
    model = models.get(tables["model"]["name"])
    model_arguments = bound("model", model)
    if dataset.standardize and model_arguments.get("standardize"):
        raise UsageError(
            f"{where['model']}: `standardize` is on here and in [data]: turn it off in "
            "one of them"
        )
    optimizer = optimizers.get(tables["optimizer"]["name"])
    optimizer_arguments = bound("optimizer", optimizer)
    config.build(optimizer, tables["optimizer"], where=where["optimizer"])

    attack, attack_name = None, None
    if tables.get("attack"):
        attack_name = tables["attack"].get("name")
        factory = attacks.get(attack_name)
        bound("attack", factory)
        attack = config.build(factory, tables["attack"], where=where["attack"])

    stored = None
    if tables.get("stored"):
        stored = config.build(config.Stored, tables["stored"], where=where["stored"])
        attacks.get(stored.attack)
        if dataset.extra:
            raise UsageError(
                f"{where['stored']}: stored images are made of the training split "
                "alone, and `extra` in [data] adds others: set it to 0"
            )
        if dataset.standardize:
            raise UsageError(
                f"{where['stored']}: stored images are pixels, and `standardize` in "
                "[data] makes models take others: use a network that does it itself"
            )
        resolved["stored"] = dataclasses.asdict(stored)

    sources, crafted = None, []
    if tables.get("sources"):
        sources = config.build(
            config.Sources, tables["sources"], where=where["sources"]
        )
        resolved["sources"] = dataclasses.asdict(sources)
    if tables.get("crafted"):
        copies = config.build(config.Crafted, tables["crafted"], where=where["crafted"])
        crafted = _crafted(copies, dataset, where["crafted"])
        resolved["crafted"] = dataclasses.asdict(copies)

    generator, generator_arguments = None, {}
    if tables.get("generator"):
        generator = models.get_generator(tables["generator"].get("name"))
        generator_arguments = bound("generator", generator)
    second, second_arguments = None, {}
    if tables.get("generator_optimizer"):
        second = optimizers.get(tables["generator_optimizer"].get("name"))
        second_arguments = bound("generator_optimizer", second)
        where_second = where["generator_optimizer"]
        config.build(second, tables["generator_optimizer"], where=where_second)

    defense = defenses.get(tables["defense"]["name"])
    given = ("attack", "generator", "sources", "seed", "name")
    defense_arguments = bound("defense", defense, given)
    parts = {
        "attack": attack,
        "generator": generator,
        "generator_optimizer": second,
    }
    _check_parts(defense, parts, tables["defense"]["name"], where)
    _check_sources(defense, sources, crafted, tables["defense"]["name"], where)
    if bool(defense_arguments.get("stored")) != (stored is not None):
        raise UsageError(
            f"{where['defense']}: `stored` says how many adversarial images of a batch "
            "are read from the table [stored]: give both or neither"
        )
    resolved["train"] = dataclasses.asdict(train)
    resolved["evaluate"] = dataclasses.asdict(evaluate)
    for (section, key), default in LATER.items():
        if resolved[section][key] == default:
            del resolved[section][key]

    def make_model():
        shape, classes = dataset.image_shape, source.num_classes
        made = _with_where(where["model"], model, shape, classes, **model_arguments)
        if evaluate.bn_eval == "batch":
            predictor.check_training_mode(made, where["model"])
        return made

    def make_defense(classifier):
        parts, optimizer_of_parts = {"attack": attack}, {}
        if generator is not None:
            shape, classes = dataset.image_shape, source.num_classes
            network = _with_where(
                where["generator"], generator, shape, classes, **generator_arguments
            )
            parts = {"generator": network}
        if second is not None:
            optimizer_of_parts = {"generator_optimizer": second(**second_arguments)}
        made = _with_where(
            where["defense"],
            defense,
            classifier,
            seed=train.seed,
            **parts,
            **defense_arguments,
        )
        _with_where(where["defense"], made.check_batch, train.batch_size, replicas)
        made.compile(optimizer(**optimizer_arguments), **optimizer_of_parts)
        return made

    return Experiment(
        config=resolved,
        dataset=dataset,
        train=train,
        evaluate=evaluate,
        attack=attack,
        attack_name=attack_name,
        stored=stored,
        sources=sources,
        crafted=crafted,
        keeps_classifier=defense.keeps_classifier,
        suite=suite.build(evaluate, where=where["evaluate"]),
        make_model=make_model,
        make_defense=make_defense,
    )


# Sections that a run must share with one that it goes on from.
SHARED = ("model", "data", "optimizer")


def shared_with_origin(resolved, sections=SHARED):
    """What must be equal where a run goes on from another, or takes images made for it.

    Args:
        resolved: dict of tables, of `Experiment.config` or of a workdir.
        sections: some of `SHARED`.
    """
    found = {section: resolved.get(section, {}) for section in sections}
    for section, keys in (("data", data.SHAPING), ("optimizer", ("name",))):
        if section in found:
            found[section] = {key: found[section].get(key) for key in keys}
    return found


def _check_parts(defense, given, name, where):
    """UsageError where a defence lacks what it trains against, or has what it cannot.

    Args:
        defense: its class.
        given: dict from section to what the configuration names there, or None.
        name, where: for messages.
    """
    takes = dict(inspect.signature(defense).parameters)
    if "generator_optimizer" in inspect.signature(defense.compile).parameters:
        takes["generator_optimizer"] = takes["generator"]
    for section, part in given.items():
        if part is not None and section not in takes:
            raise UsageError(
                f"{where[section]}: the defence {name!r} has no use for it: leave "
                f"[{section}] out"
            )
        if (
            part is None
            and section in takes
            and takes[section].default is takes[section].empty
        ):
            raise UsageError(
                f"{where['defense']}: the defence {name!r} trains against "
                f"{'an attack' if section == 'attack' else 'a generator'}: add a table "
                f"[{section}] with its `name`"
                f"{' and `eps`' if section == 'attack' else ''}"
            )


def _check_sources(defense, sources, crafted, name, where):
    """UsageError where [sources] are missing, of no use, or too many."""
    attacks_them = "sources" in inspect.signature(defense).parameters
    users = {
        f"the defence {name!r}": attacks_them or defense.keeps_classifier,
        "[crafted]": bool(crafted),
    }
    in_use = [user for user, needs in users.items() if needs]
    if in_use and sources is None:
        raise UsageError(
            f"{where['defense']}: {in_use[0]} needs finished models: add a table "
            "[sources] with `paths` (workdirs) or `configs` (to be trained first)"
        )
    if sources is not None and not in_use:
        raise UsageError(
            f"{where['sources']}: neither the defence {name!r} nor a table [crafted] "
            "has a use for it: leave [sources] out"
        )
    named = sources and len(sources.paths or sources.configs)
    if defense.keeps_classifier and named != 1:
        raise UsageError(
            f"{where['sources']}: the defence {name!r} is about one finished model; "
            f"received {named}"
        )


def _crafted(copies, dataset, where):
    """The `suite.Entry`s of a `config.Crafted`."""
    entries = [suite.entry(one, (copies.eps,), where) for one in copies.attacks]
    if dataset.crop is not None or dataset.standardize:
        raise UsageError(
            f"{where}: copies are made of whole images as pixels, and `crop` or "
            "`standardize` in [data] makes models take others: leave them out"
        )
    if dataset.source.on_disk:
        raise UsageError(
            f"{where}: copies are kept in memory beside the training set, and that of "
            "[data] is too large and stays on disk: leave [crafted] out"
        )
    if any(isinstance(e.attack, attacks.Generator) for e in entries):
        raise UsageError(f"{where} attacks: 'generator' is not made for a source")
    return entries


def _check_sizes(dataset, train, evaluate, where):
    sizes = dataset.source.sizes
    if train.batch_size > dataset.train_size:
        raise UsageError(
            f"{where['train']}: `batch_size` must be at most the {dataset.train_size} "
            f"training images; received {train.batch_size}"
        )
    check_evaluation_sizes(evaluate, sizes["test"], "test", where["evaluate"])


def check_evaluation_sizes(evaluate, available, split, where):
    """UsageError where `evaluate` asks for more images than there are."""
    for name in ("num_examples", "batch_size"):
        value = getattr(evaluate, name)
        if value is not None and value > available:
            raise UsageError(
                f"{where}: `{name}` must be at most the {available} {split} images; "
                f"received {value}"
            )


def _with_where(where, function, *args, **kwargs):
    try:
        return functools.partial(function, *args, **kwargs)()
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from error
