"""Checkpoints that a run can be killed between, at any moment."""

import pathlib

import keras
import tensorflow as tf
from absl import logging

from tfadv.errors import RunError


class Checkpoints:
    """The newest checkpoints of a defence in a directory.

    Everything a step depends on is in one: weights and statistics of the classifier
    and of whatever else the defence owns, the optimizers with their step, the metrics
    of the current epoch, and the state of Keras' seed generators (dropout), which
    Keras itself leaves out. TensorFlow writes to temporary names and renames.

    Args:
        directory: where; created if missing.
        defense: a built and compiled `Defense`.
        states: dict from name to other `tf.train.Checkpoint`s that go with it.
        keep: how many stay on disk.
    """

    def __init__(self, directory, defense, states=None, *, keep=3):
        # What Keras would make at the first step must be there to be restored.
        with defense.distribute_strategy.scope():
            if not defense.optimizer.built:
                defense.optimizer.build(defense.trained_variables)
            for metric in defense.metrics:
                if not getattr(metric, "built", True):
                    labels = keras.KerasTensor((None,), "int32")
                    logits = keras.KerasTensor(defense.classifier.output_shape)
                    metric.build(labels, logits)
        seeds = [v.value for v in defense.variables if "seed_generator" in v.path]
        metrics = [v.value for v in defense.metrics_variables]
        checkpoint = tf.train.Checkpoint(
            defense=defense,
            optimizer=defense.optimizer,
            seeds=seeds,
            metrics=metrics,
            **(states or {}),
        )
        self._manager = tf.train.CheckpointManager(
            checkpoint, str(pathlib.Path(directory)), max_to_keep=keep
        )

    def save(self, step):
        """Writes the state after `step` steps.

        Raises:
            RunError: it cannot be written; the checkpoints before it are intact.
        """
        try:
            self._manager.save(checkpoint_number=step)
        except (tf.errors.OpError, OSError) as error:
            text = str(error).strip().splitlines()[0]
            raise RunError(
                f"cannot write the checkpoint of step {step} in "
                f"{self._manager.directory}: {text}. The earlier checkpoints are "
                "intact; make room and run the same command again."
            ) from None

    def restore(self):
        """Restores the newest checkpoint that can be read.

        Returns:
            Whether there was one.

        Raises:
            RunError: there are checkpoints but none of them can be read.
        """
        paths = self._manager.checkpoints[::-1]
        for path in paths:
            try:
                self._manager.checkpoint.restore(path).assert_consumed()
                return True
            except (tf.errors.OpError, AssertionError, ValueError, IndexError) as error:
                text = str(error).strip().splitlines()[0]
                logging.warning("checkpoint %s cannot be read: %s", path, text)
        if paths:
            raise RunError(
                f"none of the checkpoints in {self._manager.directory} can be read "
                f"({', '.join(pathlib.Path(p).name for p in paths)}). Delete that "
                "folder to train from the start."
            )
        return False


def start_from(defense, directory):
    """Sets classifier, optimizer and step to those of another run's newest checkpoint.

    Only what the two runs have in common is read: a defence's own variables begin as
    they were made.

    Args:
        defense: a built and compiled `Defense`.
        directory: of that run's checkpoints.

    Returns:
        int, the step that the other run had reached.

    Raises:
        RunError: there is no checkpoint, or it is damaged, or of another network.
    """
    path = tf.train.latest_checkpoint(str(directory))
    if path is None:
        raise RunError(f"no checkpoint to start from in {directory}")
    optimizer = defense.optimizer
    # A constant rate is a variable of the optimizer, but a setting of this run.
    rate = optimizer.learning_rate
    own = float(rate) if isinstance(rate, keras.Variable) else None
    common = tf.train.Checkpoint(
        defense=tf.train.Checkpoint(classifier=defense.classifier), optimizer=optimizer
    )
    try:
        common.restore(path).assert_existing_objects_matched().expect_partial()
    except (tf.errors.OpError, AssertionError, ValueError, IndexError) as error:
        text = str(error).strip().splitlines()[0]
        raise RunError(f"cannot start from the checkpoint {path}: {text}") from None
    if own is not None:
        rate.assign(own)
    return int(optimizer.iterations.numpy())
