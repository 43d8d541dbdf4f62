"""From a configuration to the objects it names, before any data is read."""

import dataclasses
import functools
import inspect
from collections.abc import Callable

from absl import logging

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
        networks: the tables of the models that are trained, `config["model"]` first.
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
    networks: list
    crafted: list
    keeps_classifier: bool
    suite: list
    make_model: Callable
    make_defense: Callable

    @property
    def shared_with_sources(self):
        """Sections that its [sources] must share with it."""
        takes_weights = self.keeps_classifier or len(self.networks) > 1
        return ("model", "data") if takes_weights else ("data",)

    def beside_source(self, i):
        """`config` to compare with source i: of several networks, the one it starts."""
        several = len(self.networks) > 1
        return self.config | {"model": self.networks[i if several else 0]}


# Keys that are younger than workdirs and tables of models, which stay what they are:
# a resolved configuration has them only where they differ from these defaults.
LATER = {
    ("data", "standardize"): False,
    ("data", "extra"): 0,
    ("data", "size"): None,
    ("data", "preprocess"): None,
    ("evaluate", "bn_eval"): "moving",
    ("evaluate", "craft_on"): "logits",
    ("evaluate", "drop_broken"): False,
    ("evaluate", "twin"): "none",
    ("train", "patience"): None,
    ("train", "precision"): "float32",
    ("train", "sync_bn"): False,
    ("train", "on_nan"): "stop",
    ("defense", "auxiliary_layer"): None,
    ("defense", "auxiliary_weight"): 0.4,
    ("defense", "auxiliary_width"): 1.0,
    ("defense", "auxiliary_activation"): "relu",
    ("defense", "craft_on"): "logits",
} | {
    (section, key): None
    for section in ("optimizer", "generator_optimizer")
    for key in (
        "decay_rate",
        "decay_steps",
        "ema_momentum",
        "clipnorm",
        "global_clipnorm",
    )
}
# The same of options of networks. Others have the key with a default of their own.
_RESNET = {"activation": "relu", "width": 1.0}
LATER_OPTIONS = {"resnet20": _RESNET, "resnet110": _RESNET, "resnet_cifar": _RESNET}


@dataclasses.dataclass(frozen=True)
class Network:
    """A model of a configuration, not made yet.

    Args:
        factory: its builder.
        arguments: dict for it.
        weights: file to load into it, or None.
        where: for messages.
        table: dict of all this, as `config.json` holds it.
    """

    factory: Callable
    arguments: dict
    weights: str | None
    where: str
    table: dict

    @classmethod
    def read(cls, table, where):
        """Of a table with `name`, arguments of the builder, and perhaps `weights`.

        Raises:
            UsageError: an unknown name or key, a value of another type.
        """
        table = dict(table)
        if "name" not in table:
            raise UsageError(f"{where}: missing key 'name'")
        weights = table.pop("weights", None)
        weights = config.coerce(weights, str | None, f"{where} weights")
        factory = models.get(table["name"])
        arguments = config.bind(factory, table, where=where)
        resolved = {"name": table["name"], **arguments}
        for key, default in LATER_OPTIONS.get(table["name"], {}).items():
            if resolved[key] == default:
                del resolved[key]
        resolved |= {"weights": weights} if weights else {}
        return cls(factory, arguments, weights, where, resolved)

    def make(self, shape, classes):
        """The model, with its weights where it has some.

        Raises:
            UsageError: an argument that cannot be; weights that are not there, are no
                such file or fit no layer.
        """
        made = _with_where(self.where, self.factory, shape, classes, **self.arguments)
        if self.weights:
            loaded = models.load_weights(made, self.weights)
            logging.info(
                "%d layers take weights of %s", len(loaded.taken), self.weights
            )
            if loaded.left:
                logging.info("without weights there: %s", ", ".join(loaded.left))
        return made


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
    for name in ("data", "optimizer", "defense", *optional):
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
    model = Network.read(tables.get("model", {}), where["model"])
    resolved["model"] = model.table
    partners = []
    if tables.get("partners"):
        others = config.build(
            config.Partners, tables["partners"], where=where["partners"]
        )
        partners = [
            Network.read(table, f"{where['partners']} models[{i}]")
            for i, table in enumerate(others.models)
        ]
        resolved["partners"] = {"models": [one.table for one in partners]}
    for one in (model, *partners):
        if dataset.standardize and one.arguments.get("standardize"):
            raise UsageError(
                f"{one.where}: `standardize` is on here and in [data]: turn it off in "
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
    given = ("attack", "generator", "partners", "sources", "seed", "name")
    defense_arguments = bound("defense", defense, given)
    parts = {
        "attack": attack,
        "generator": generator,
        "generator_optimizer": second,
        "partners": partners or None,
    }
    _check_parts(defense, parts, tables["defense"]["name"], where)
    networks = [model.table, *(one.table for one in partners)]
    _check_sources(
        defense, sources, crafted, networks, tables["defense"]["name"], where
    )
    _check_train(train, dataset, partners, where["train"])
    if bool(defense_arguments.get("stored")) != (stored is not None):
        raise UsageError(
            f"{where['defense']}: `stored` says how many adversarial images of a batch "
            "are read from the table [stored]: give both or neither"
        )
    resolved["train"] = dataclasses.asdict(train)
    resolved["evaluate"] = dataclasses.asdict(evaluate)
    for (section, key), default in LATER.items():
        table = resolved.get(section, {})
        if key in table and table[key] == default:
            del table[key]

    def make_model():
        made = model.make(dataset.image_shape, source.num_classes)
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
        if partners:
            shape, classes = dataset.image_shape, source.num_classes
            parts["partners"] = [one.make(shape, classes) for one in partners]
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
        if train.precision != "float32" and made.needs_float32:
            raise UsageError(
                f"{where['train']}: `precision` = {train.precision!r}, and the defence "
                f"{tables['defense']['name']!r} needs 'float32': {made.needs_float32}"
            )
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
        networks=networks,
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
    if "model" in found:
        # Where a network began does not matter to what it takes now, nor how fast it
        # forgets its statistics, which differs where schedules are cut to whole steps.
        apart = ("weights", "bn_momentum")
        model = found["model"].items()
        found["model"] = {key: v for key, v in model if key not in apart}
    return found


# What a defence says that lacks a section.
NEEDS = {
    "attack": "trains against an attack: add a table [attack] with its `name` and "
    "`eps`",
    "generator": "trains against a generator: add a table [generator] with its `name`",
    "generator_optimizer": "trains against a generator: add a table "
    "[generator_optimizer] with its `name`",
    "partners": "trains several networks: add a table [partners] with `models`, as in "
    'models = [{ name = "lenet" }]',
}


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
                f"{where['defense']}: the defence {name!r} {NEEDS[section]}"
            )


def of_partner(resolved, number):
    """The configuration in which partner `number` (1, 2, ..) is the first network.

    The others follow in their order, counted round, which leaves it the same whose
    images each network is trained on.

    Args:
        resolved: `Experiment.config`.
        number: int.
    """

    def first(values):
        values = list(values)
        return [*values[number:], *values[:number]]

    model, *others = first([resolved["model"], *resolved["partners"]["models"]])
    changed = {"model": model, "partners": {"models": others}}
    weights = resolved["defense"].get("domain_weights", ())
    if len(weights) > 1:
        changed["defense"] = resolved["defense"] | {
            "domain_weights": tuple(first(weights))
        }
    if "sources" in resolved:
        changed["sources"] = {
            key: tuple(first(value)) if value else value
            for key, value in resolved["sources"].items()
        }
    return resolved | changed


def _check_train(train, dataset, partners, where):
    """UsageError where the schedule asks for what this run cannot give."""
    if train.patience is not None and not dataset.holdout:
        raise UsageError(
            f"{where}: `patience` watches the loss on held-out images, and there are "
            "none: set data.holdout to how many"
        )
    if train.init_from is not None and partners:
        raise UsageError(
            f"{where}: `init_from` is one network, and [partners] has others: name "
            "what all of them start from in [sources]"
        )


def _check_sources(defense, sources, crafted, networks, name, where):
    """UsageError where [sources] are missing, of no use, too many or too few."""
    if len(networks) > 1 and sources is not None:
        named = len(sources.paths or sources.configs)
        if named != len(networks):
            raise UsageError(
                f"{where['sources']}: the {len(networks)} networks of [model] and "
                f"[partners] start from as many finished ones; received {named}"
            )
        return
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
    if dataset.crop is not None or dataset.standardize or dataset.preprocess:
        raise UsageError(
            f"{where}: copies are made of whole images as pixels, and `crop`, "
            "`standardize` or `preprocess` in [data] makes models take others: leave "
            "them out"
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
