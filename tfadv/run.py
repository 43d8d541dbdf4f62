"""What the binaries do: train, evaluate, craft, export. Usable from Python as well."""

import dataclasses
import json
import pathlib

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from tfadv import attacks, craft, distribution, experiment, predictor
from tfadv.attacks import core
from tfadv.data import pipeline
from tfadv.evaluation import format_eps, measure, suite
from tfadv.export import export
from tfadv.files import read_json, replacing, write_json
from tfadv.report import plots, results, table
from tfadv.trained import open_model
from tfadv.training import Checkpoints, Progress, Summaries
from tfadv.training import train as run_loop
from tfadv.workdir import Workdir


def train(tables, path, *, data_dir=None, strategy="default", num_logical_devices=0):
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

    # Measured on the file that users load, by the way that they take.
    saved = open_model(workdir=workdir.path, saved_model=None)
    return evaluate(saved, workdir.path, data_dir=data_dir)


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
    return json.loads(json.dumps(value))


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
            attacks=_watched_attacks(exp),
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


def _watched_attacks(exp):
    """The attack that is trained on, and PGD, which shows when only that one fails."""
    eps = max(exp.evaluate.eps) if exp.attack is None else exp.attack.eps
    found = {"pgd": attacks.PGD(eps=eps)}
    return found if exp.attack is None else found | {exp.attack_name: exp.attack}


def evaluate(trained, output, *, data_dir=None):
    """Measures a model and writes `results.json`, `curves.png` and `examples.png`.

    Args:
        trained: `trained.Trained`.
        output: directory.
        data_dir: where TFDS finds prepared data.

    Returns:
        The content of `results.json`.
    """
    output = pathlib.Path(output)
    images = trained.dataset.read_test(data_dir)
    images = images.take(slice(trained.evaluate.num_examples))
    rows = measure(
        trained.predict,
        images,
        trained.suite,
        trained.evaluate.eps,
        batch_size=trained.evaluate.batch_size,
        seed=trained.seed,
    )
    steps = _steps_text(trained.steps, trained.full_steps)
    title = f"{trained.name}, {steps}, seed {trained.seed}"
    plots.curves(rows, output / "curves.png", title=title)
    _draw_examples(trained, images, output / "examples.png", title)
    found = results.compose(
        rows,
        config=_as_json(trained.config),
        seed=trained.seed,
        steps=trained.steps,
        full_steps=trained.full_steps,
    )
    write_json(output / "results.json", found)
    return found


def _draw_examples(trained, images, path, title):
    suite, predict = trained.suite, trained.predict
    entry = next((e for e in suite[::-1] if e.name in attacks.ITERATIVE), suite[0])
    few = images.take(slice(8))
    x, y = pipeline.to_float(few.x), tf.constant(few.y)
    x_adv = entry.attack(predict, x, y, seed=core.fold(trained.seed, 0))
    plots.examples(
        x.numpy(),
        x_adv.numpy(),
        few.y,
        np.argmax(predict(x), axis=1),
        np.argmax(predict(x_adv), axis=1),
        path,
        title=f"{title}; {entry.label}, eps {format_eps(entry.attack.eps)}",
    )


def export_file(workdir, keras_file, output):
    """Exports a trained classifier to a SavedModel; see `export.export`.

    Args:
        workdir: of a finished run, or None.
        keras_file: a `.keras` file with one image input, or None.
        output: directory, replaced.
    """
    path = Workdir(workdir).trained_model() if workdir else pathlib.Path(keras_file)
    export(predictor.load_keras(path), output)


def craft_images(trained, attack, output, *, split, data_dir=None):
    """Writes adversarial images of a split as a TFDS directory; see `craft.write`.

    Args:
        trained: `trained.Trained`; its `evaluate` says the eps, how many and the batch.
        attack: name of the attack, or a table with `name` and arguments.
        output: directory.
        split: `"train"` or `"test"`; centre-cropped as the model takes them.
        data_dir: where TFDS finds prepared data.

    Returns:
        Path of the data set's directory.
    """
    evaluate = dataclasses.replace(trained.evaluate, attacks=(attack,))
    entry = suite.build(evaluate, where="--attack")[0]
    dataset = trained.dataset
    read = dataset.read_test if split == "test" else dataset.read_all_train
    images = read(data_dir).take(slice(evaluate.num_examples))
    return craft.write(
        trained.predict,
        images,
        entry,
        evaluate.eps,
        pathlib.Path(output),
        name=f"{trained.config['data']['name']}_{entry.name}",
        split=split,
        batch_size=evaluate.batch_size,
        seed=trained.seed,
    )


def report_text(found):
    """The printed end of a run: what it was, the table, what to believe."""
    steps = _steps_text(found["steps"], found["full_steps"])
    return f"{steps}, seed {found['seed']}\n\n{table.render(found['rows'])}"


def _steps_text(steps, full_steps):
    if steps is None:
        return "unknown steps"
    return f"{steps} of {full_steps} steps" if full_steps != steps else f"{steps} steps"
