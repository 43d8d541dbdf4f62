"""How attacks on one trained model carry over to others: what `bin/transfer` does."""

from tfadv.errors import UsageError
from tfadv.evaluation import suite, whitebox
from tfadv.evaluation.transfer import measure
from tfadv.files import make_directory, write_json
from tfadv.report import plots, results, table
from tfadv.trained import check_same, open_models
from tfadv.workdir import distinct


def open_both(sources, targets=(), *, changes=()):
    """Opens the models that attacks are made for, and those that they are tried on.

    Args:
        sources, targets: workdirs of finished runs; without targets the sources are
            the targets as well. One model may be in both and is opened once.
        changes: see `trained.open_model`.

    Returns:
        (sources, targets): dicts from name to `Trained`; see `trained.open_models`.

    Raises:
        UsageError: no source, a path twice on one side, sources with different
            `craft_on`; see `trained.open_models`.
        RunError: see `trained.open_model`.
    """
    sources = distinct(sources)
    if not sources:
        raise UsageError("expected the workdir of at least one source")
    targets = distinct(targets) or sources
    # Where a model is in both, as the sources have it.
    written = targets | sources
    order = dict.fromkeys([*sources, *targets])
    models = open_models([written[path] for path in order], changes=changes)
    names = dict(zip(order, models, strict=True))
    sources, targets = (
        {names[path]: models[names[path]] for path in side}
        for side in (sources, targets)
    )
    check_same(sources, "craft_on", "the sources are not attacked", usual="logits")
    return sources, targets


def transfer(sources, targets, output, *, data_dir=None):
    """Measures each target on the images made for each source.

    Writes `transfer.json` and `transfer.png`. Which attacks at which eps, how many
    images, the batch size and the seed of random attacks are the first source's. The
    attack `generator` without a path is the generator of each source.

    Args:
        sources, targets: dicts from name to `Trained`, as `open_both` returns them.
        output: directory.
        data_dir: where TFDS finds prepared data.

    Returns:
        The content of `transfer.json`.

    Raises:
        RunError: the output cannot be written (known before anything is measured), or
            the data cannot be read.
    """
    output = make_directory(output)
    first = next(iter(sources.values()))
    images = first.read_test(data_dir)
    entries = suite.build(first.evaluate, where="[evaluate]")
    rows = measure(
        {name: model.predict for name, model in sources.items()},
        {name: model.predict for name, model in targets.items()},
        images,
        {name: suite.for_model(entries, model.path) for name, model in sources.items()},
        first.evaluate.eps,
        batch_size=first.evaluate.batch_size,
        seed=first.seed,
        ordered_classes=first.dataset.source.ordered_classes,
        top5=first.dataset.source.num_classes > whitebox.FEW_CLASSES,
        craft_on={name: model.craft_on for name, model in sources.items()},
    )
    craft_on = first.evaluate.craft_on
    found = {
        "rows": rows,
        "data": first.config["data"]["name"],
        "n": len(images),
        "attacks": [entry.label for entry in first.suite],
        "eps": list(first.evaluate.eps),
        "batch_size": first.evaluate.batch_size,
        **({"bn_eval": "batch"} if first.evaluate.bn_eval == "batch" else {}),
        **({"craft_on": craft_on} if craft_on != "logits" else {}),
        "seed": first.seed,
        "sources": list(sources),
        "targets": list(targets),
        "models": {
            name: _description(model) for name, model in {**sources, **targets}.items()
        },
        "versions": results.versions(),
    }
    write_json(output / "transfer.json", found)
    plots.heat_map(rows, output / "transfer.png", title=_title(found))
    return found


def _description(model):
    return {
        "workdir": str(model.path),
        # Of the training; `model.seed` may be another, of attacks.
        "seed": model.config["train"]["seed"],
        "steps": model.steps,
        "full_steps": model.full_steps,
        "config": model.config,
    }


def _title(found):
    steps = dict.fromkeys(map(_steps, found["models"].values()))
    about = f"{found['data']}, {found['n']} test images{table.how_text(found)}"
    return f"{about}; trained {' or '.join(steps)}"


def _steps(model):
    return table.steps_text(model["steps"], model["full_steps"])


def report_text(found):
    """The printed end: what each model is, the tables."""
    models = [
        f"{name}: {_steps(model)}, seed {model['seed']}, {model['workdir']}"
        for name, model in found["models"].items()
    ]
    data = f"{found['data']}{table.how_text(found)}"
    return "\n".join([data, *models, "", table.render_transfer(found["rows"])])
