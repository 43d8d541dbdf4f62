"""What the binaries do: train, evaluate, craft, export. Usable from Python as well."""

import pathlib

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from tfadv import attacks, distribution, experiment, predictor
from tfadv.attacks import core
from tfadv.data import pipeline
from tfadv.evaluation import format_eps, measure
from tfadv.export import export
from tfadv.files import read_json, replacing, write_json
from tfadv.report import plots, results, table
from tfadv.training import Checkpoints, Progress, Summaries
from tfadv.training import train as run_loop
from tfadv.workdir import Workdir


def train(
    tables, path, *, data_dir=None, strategy="default", num_logical_devices=0
):
    """Trains, saves, exports and evaluates; continues where an earlier call stopped.

    Args:
        tables: `config.Config`.
        path: the workdir.
        data_dir: where TFDS finds prepared data.
        strategy, num_logical_devices: see `distribution.strategy`.

    Returns:
        The content of `results.json`.

    Raises:
        UsageError, RunError: see `errors`.
        errors.Stopped: a signal came; call again to continue.
    """
    strategy = distribution.strategy(strategy, num_logical_devices)
    replicas = strategy.num_replicas_in_sync
    exp = experiment.build(tables, replicas=replicas)
    with strategy.scope():
        # Initial weights and the seeds of dropout layers.
        keras.utils.set_random_seed(exp.train.seed)
        defense = exp.make_defense(exp.make_model())
        defense.build((None, *exp.dataset.image_shape))
        defense.optimizer.build(defense.classifier.trainable_variables)
    workdir = Workdir(path)
    workdir.claim(exp.config)
    done = _finished(workdir, exp)
    if done is not None:
        return done

    _train_loop(exp, defense, workdir, data_dir)
    with replacing(workdir.model) as temporary:
        defense.classifier.save(temporary)
    export(defense.classifier, workdir.saved_model)

    # Measured on the file that users load, in a graph of its own.
    predict = predictor.load(workdir.model)
    return evaluate_experiment(exp, predict, workdir.path, data_dir=data_dir)


def _finished(workdir, exp):
    """The results of this very configuration, where the run has ended before."""
    if not workdir.results.exists():
        return None
    done = read_json(workdir.results, "the workdir's results")
    same = done.get("config") == _as_json(exp.config)
    if same:
        logging.info("%s is complete; nothing to do", workdir.path)
    return done if same else None


def _as_json(value):
    """`value` as it comes back from a JSON file: tuples are lists."""
    if isinstance(value, dict):
        return {key: _as_json(item) for key, item in value.items()}
    return [_as_json(v) for v in value] if isinstance(value, list | tuple) else value


def _train_loop(exp, defense, workdir, data_dir):
    images = exp.dataset.read_train(data_dir)
    watched = exp.dataset.read_watched(exp.train.validation_examples, data_dir)
    callbacks = [
        Progress(exp.train.steps),
        Summaries(
            workdir.tensorboard,
            watched=(
                exp.dataset.watched_name,
                pipeline.to_float(watched.x),
                tf.constant(watched.y),
            ),
            attack=exp.attack,
            attack_name=exp.attack_name,
            summary_every=exp.train.summary_every,
            validate_every=exp.train.validate_every,
            seed=exp.train.seed,
        ),
    ]

    def batches_from(start):
        return pipeline.batches(
            images,
            batch_size=exp.train.batch_size,
            seed=exp.train.seed,
            start=start,
            stop=exp.train.steps,
            augment=exp.dataset.augment,
        )

    run_loop(
        defense,
        batches_from,
        steps=exp.train.steps,
        steps_per_epoch=max(1, len(images) // exp.train.batch_size),
        checkpoints=Checkpoints(
            workdir.checkpoints, defense, keep=exp.train.keep_checkpoints
        ),
        checkpoint_every=exp.train.checkpoint_every,
        callbacks=callbacks,
    )


def evaluate_experiment(exp, predict, output, *, data_dir=None):
    """Evaluates as the configuration's `[evaluate]` says and writes the report.

    Args:
        exp: `Experiment`.
        predict: x -> logits.
        output: directory for `results.json`, `curves.png`, `examples.png`.
        data_dir: where TFDS finds prepared data.

    Returns:
        The content of `results.json`.
    """
    images = exp.dataset.read_test(data_dir)
    rows = write_report(
        predict,
        images,
        exp.suite,
        exp.evaluate,
        output,
        seed=exp.train.seed,
        title=_title(exp),
    )
    found = results.compose(
        rows,
        config=_as_json(exp.config),
        seed=exp.train.seed,
        steps=exp.train.steps,
        full_steps=exp.train.full_steps,
    )
    write_json(pathlib.Path(output) / "results.json", found)
    return found


def _title(exp):
    names = [exp.config[s]["name"] for s in ("defense", "model", "data")]
    return f"{' / '.join(names)}, {exp.train.steps} steps, seed {exp.train.seed}"


def write_report(predict, images, suite, evaluate, output, *, seed, title):
    """Measures, draws `curves.png` and `examples.png`, and returns the rows.

    Args:
        predict: x -> logits.
        images: `Images` as the model takes them; the first `num_examples` are used.
        suite: `suite.Entry`s.
        evaluate: `config.Evaluate`.
        output: directory.
        seed: int.
        title: above the pictures.
    """
    output = pathlib.Path(output)
    images = images.take(slice(evaluate.num_examples))
    rows = measure(
        predict,
        images,
        suite,
        evaluate.eps,
        batch_size=evaluate.batch_size,
        seed=seed,
    )
    plots.curves(rows, output / "curves.png", title=title)
    _draw_examples(predict, images, suite, seed, output / "examples.png", title)
    return rows


def _draw_examples(predict, images, suite, seed, path, title):
    entry = next((e for e in suite[::-1] if e.name in attacks.ITERATIVE), suite[0])
    few = images.take(slice(8))
    x, y = pipeline.to_float(few.x), tf.constant(few.y)
    x_adv = entry.attack(predict, x, y, seed=core.fold(seed, 0))
    plots.examples(
        x.numpy(),
        x_adv.numpy(),
        few.y,
        np.argmax(predict(x), axis=1),
        np.argmax(predict(x_adv), axis=1),
        path,
        title=f"{title}; {entry.label}, eps {format_eps(entry.attack.eps)}",
    )


def report_text(found):
    """The printed end of a run: what it was, the table, what to believe."""
    steps = "unknown steps" if found["steps"] is None else f"{found['steps']} steps"
    if found["full_steps"] != found["steps"]:
        steps += f" of the {found['full_steps']} of the full schedule"
    return f"{steps}, seed {found['seed']}\n\n{table.render(found['rows'])}"
