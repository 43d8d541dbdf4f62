"""The classifier that withstood most so far, kept beside the newest checkpoints."""

import tensorflow as tf
from absl import logging

from tfadv.files import remove_leftovers, replacing


class Best:
    """Keeps the best of the classifiers that are measured while a training runs.

    The first of equals is kept. What it knows goes with the checkpoints (`state`), and
    a file stays until a checkpoint that knows a better one is written: a run that was
    killed anywhere ends with the same file as one that was not.

    Args:
        workdir: `Workdir`, whose `best` it fills.

    Attributes:
        state: `tf.train.Checkpoint` of accuracy, -1 before the first, and step.
    """

    def __init__(self, workdir):
        self.workdir = workdir
        self.accuracy = tf.Variable(-1.0, trainable=False)
        self.step = tf.Variable(0, trainable=False, dtype=tf.int64)
        self.state = tf.train.Checkpoint(accuracy=self.accuracy, step=self.step)

    def begin(self):
        """Begins where the checkpoint was written that was restored, if any."""
        remove_leftovers(self.workdir.best)
        known = int(self.step.numpy())
        if known and known not in self.workdir.best_steps():
            logging.warning(
                "%s is missing: the best is looked for anew from here on",
                self.workdir.best_file(known),
            )
            self.accuracy.assign(-1.0)
            self.step.assign(0)
        self.tidy()

    def consider(self, step, accuracy, network):
        """Keeps `network` if no earlier one was as accurate.

        Args:
            step: int, after how many steps.
            accuracy: scalar, under attack, on images that are not trained on.
            network: `keras.Model`, with the weights that would be saved.
        """
        if not accuracy > self.accuracy:
            return
        with replacing(self.workdir.best_file(step)) as temporary:
            network.save(temporary)
        self.accuracy.assign(accuracy)
        self.step.assign(step)

    def tidy(self):
        """Removes all but the best. To be called when a checkpoint is written."""
        for step in self.workdir.best_steps():
            if step != int(self.step.numpy()):
                self.workdir.best_file(step).unlink(missing_ok=True)
