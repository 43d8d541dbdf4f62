"""What is shown while a run lasts: a progress bar and TensorBoard."""

import contextlib
import functools
import math
import sys
import time

import keras
import tensorflow as tf
from absl import logging

from tfadv import optimizers
from tfadv.training import precision


class Progress(keras.callbacks.Callback):
    """A progress bar over all steps with the time left; plain lines in a log file.

    Args:
        steps: int, steps of the whole run.
        every_seconds: between lines where the output is not a terminal.
    """

    def __init__(self, steps, *, every_seconds=20.0):
        super().__init__()
        self.steps = steps
        self.every_seconds = every_seconds
        self._bar = None

    def on_train_begin(self, logs=None):
        self._first = int(self.model.optimizer.iterations.numpy())
        self._begin = self._last = time.monotonic()
        self._bar = None
        if self._first:
            logging.info("resuming at step %d of %d", self._first, self.steps)

    def on_train_batch_end(self, batch, logs=None):
        done = int(self.model.optimizer.iterations.numpy())
        now = time.monotonic()
        last = done == self.steps
        if not last and now - self._last < (0.2 if _terminal() else self.every_seconds):
            return
        self._last = now
        values = [(name, float(value)) for name, value in logs.items()]
        if _terminal():
            self._show_bar(done, values)
        else:
            left = (now - self._begin) / (done - self._first) * (self.steps - done)
            text = ", ".join(f"{name} {value:.4f}" for name, value in values)
            logging.info("step %d/%d, %s, %.0f s left", done, self.steps, text, left)

    def _show_bar(self, done, values):
        if self._bar is None:
            names = [name for name, _ in values]
            self._bar = keras.utils.Progbar(self.steps, stateful_metrics=names)
            self._bar.update(self._first)
        self._bar.update(done, values, finalize=done == self.steps)


def _terminal():
    return sys.stdout.isatty()


@contextlib.contextmanager
def _as_saved(defense):
    """In the block the networks are what will be saved: float32, averages of weights.

    Whoever traces a function in it must call it in it.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(precision.as_outside(defense))
        for optimizer, variables in defense.moved:
            stack.enter_context(optimizers.averaged(optimizer, variables))
        yield


class Summaries(keras.callbacks.Callback):
    """Training curves, sizes of perturbations and images, for TensorBoard.

    Written against the optimizer's step, so a resumed run continues its curves.

        train/loss, train/accuracy, ...   metrics since the epoch began
        train/learning_rate
        train/eps                         histogram of the eps law at this step
        <watched>/clean, <watched>/<attack>  accuracy on fixed images
        <watched>/images/<attack>         clean, adversarial, difference x 10

    Args:
        directory: where the event file goes.
        watched: (name, x [n, h, w, c] float32, y [n]), images that are not trained on.
        attacks: dict from name to the attacks to measure with.
        summary_every, validate_every: int, steps.
        seed: int, of the attack's noise.
        best: `Best`, which keeps the classifier that is most accurate under the first
            of `attacks`, or None.
    """

    def __init__(
        self,
        directory,
        *,
        watched,
        attacks,
        summary_every,
        validate_every,
        seed,
        best=None,
    ):
        super().__init__()
        self.directory = str(directory)
        self.name, self.x, self.y = watched
        self.attacks = attacks
        self.summary_every, self.validate_every = summary_every, validate_every
        self.seed = seed
        self.best = best
        self._writer = None

    def on_train_begin(self, logs=None):
        self.close()
        self._writer = tf.summary.create_file_writer(self.directory)
        if self.best is not None:
            self.best.begin()
        self._count = tf.function(self._count_correct)
        self._craft = {
            name: tf.function(functools.partial(self._attacked, attack))
            for name, attack in self.attacks.items()
        }

    def on_train_batch_end(self, batch, logs=None):
        step = int(self.model.optimizer.iterations.numpy())
        with self._writer.as_default(step):
            if step % self.summary_every == 0:
                for name, value in logs.items():
                    tf.summary.scalar(f"train/{name}", value)
                rate = tf.convert_to_tensor(self.model.optimizer.learning_rate)
                tf.summary.scalar("train/learning_rate", rate)
                self._eps_histogram()
            if step % self.validate_every == 0:
                with _as_saved(self.model):
                    found = self._validate()
                    if self.best is not None:
                        self.best.consider(step, found[0], self.model.classifier)

    def on_train_end(self, logs=None):
        self.close()

    def close(self):
        """Writes what is not written yet; also where a training has failed."""
        if self._writer is not None:
            self._writer.close()

    def _eps_histogram(self):
        if hasattr(self.model, "draw_eps"):
            eps = self.model.draw_eps(256, replica=0)
            tf.summary.histogram("train/eps", tf.reshape(eps, [-1]))

    def _attacked(self, attack, x, y):
        return attack(self.model.logits, x, y, seed=self.seed)

    def _count_correct(self, x, y):
        predicted = tf.argmax(self.model.logits(x), axis=-1, output_type=tf.int32)
        return tf.math.count_nonzero(predicted == y, dtype=tf.float32)

    def _validate(self):
        """Accuracy under each of the attacks: a list of scalars."""
        n, found = len(self.y), []
        tf.summary.scalar(f"{self.name}/clean", self._count(self.x, self.y) / n)
        for name, craft in self._craft.items():
            x_adv = craft(self.x, self.y)
            found.append(self._count(x_adv, self.y) / n)
            tf.summary.scalar(f"{self.name}/{name}", found[-1])
            x, x_adv = self.x[:8], x_adv[:8]
            difference = tf.clip_by_value(0.5 + 10 * (x_adv - x), 0, 1)
            rows = tf.concat([x, x_adv, difference], axis=1)
            tf.summary.image(f"{self.name}/images/{name}", rows, max_outputs=8)
        return found


class EarlyStopping(keras.callbacks.Callback):
    """Stops where the defence's `validation_loss` has not fallen for a while.

    Keras' own would forget what it saw when a run is resumed; this one's `state` goes
    with the checkpoints. The weights stay those of the last step.

    Args:
        x: [n, h, w, c] images that are not trained on, nor tested on.
        y: [n] labels.
        patience: measurements in a row without a lower loss.
        every: int, steps between measurements.

    Attributes:
        state: `tf.train.Checkpoint`.
    """

    def __init__(self, x, y, *, patience, every):
        super().__init__()
        self.x, self.y = x, y
        self.patience, self.every = patience, every
        self.best = tf.Variable(math.inf, trainable=False)
        self.waited = tf.Variable(0, trainable=False)
        self.state = tf.train.Checkpoint(best=self.best, waited=self.waited)

    def on_train_begin(self, logs=None):
        self._loss = tf.function(self.model.validation_loss)
        self._stop_if_due()

    def on_train_batch_end(self, batch, logs=None):
        step = int(self.model.optimizer.iterations.numpy())
        if step % self.every:
            return
        with _as_saved(self.model):
            loss = self._loss(self.x, self.y)
        if loss < self.best:
            self.best.assign(loss)
            self.waited.assign(0)
        else:
            self.waited.assign_add(1)
            self._stop_if_due()

    def _stop_if_due(self):
        if self.waited >= self.patience:
            self.model.stop_training = True
            logging.info(
                "the loss on held-out images, at best %.4f, has not fallen for %d "
                "measurements: the training ends here",
                float(self.best),
                self.patience,
            )
