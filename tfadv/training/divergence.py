"""Losses and weights that are no numbers any more: noticed, never saved, stepped back.

A training has diverged where the loss of a step is NaN or infinite, or, when a
checkpoint is due, a weight or a number of an optimizer is. A loss that only grows very
large has not: no bound would be right for every defence.
"""

import itertools
import math

import keras
import tensorflow as tf
from absl import logging

from tfadv.errors import RunError
from tfadv.files import read_json, write_json
from tfadv.training.checkpoints import Checkpoints

MOST_REWINDS = 3


class Diverged(RunError):
    """A training has diverged.

    Args:
        step: int, the first step that shows it, counted from 1.
        what: what is no number there, in words.
    """

    def __init__(self, step, what):
        super().__init__(f"{what} at step {step}")
        self.step = step
        self.what = what


class Watch(keras.callbacks.Callback):
    """Raises `Diverged` for the first step whose loss is not finite.

    Losses are kept as the tensors they are and read together, every few steps and
    before a checkpoint, so that no step waits for a device. The loss of `logs` is the
    mean since the epoch began, which stays NaN or infinite once it is, so the first
    such mean is of the first such step. The message may come up to `every` steps late.

    Args:
        every: int, steps between looks.
    """

    def __init__(self, *, every=10):
        super().__init__()
        self.every = every
        self._seen = []
        self._finite = tf.function(_all_finite)

    def on_train_begin(self, logs=None):
        self._seen = []
        self._step = int(self.model.optimizer.iterations.numpy())
        if not self.weights_are_finite():
            raise RunError(
                f"the weights that step {self._step} left are not finite: they were "
                "saved by a version that did not look. Delete the newest checkpoints "
                "to go on from an older one, or all to train from the start."
            )

    def on_train_batch_end(self, batch, logs=None):
        self._step += 1
        self._seen.append((self._step, logs["loss"]))
        if len(self._seen) >= self.every:
            self.check_losses()

    def on_train_end(self, logs=None):
        self.check_losses()

    def check_losses(self):
        """Raises `Diverged` for a loss since the last look that is not finite."""
        seen, self._seen = self._seen, []
        for step, loss in seen:
            if not math.isfinite(loss):
                raise Diverged(step, f"the loss is {float(loss)}")

    def check(self, step):
        """`check_losses`, and the same for weights and optimizers after `step`."""
        self.check_losses()
        if not self.weights_are_finite():
            raise Diverged(step, "a weight, or a number of an optimizer, is not finite")

    def weights_are_finite(self):
        """Of all networks and optimizers of the defence."""
        found = list(self.model.weights)
        for optimizer, _ in self.model.moved:
            found += optimizer.variables
        values = [tf.convert_to_tensor(variable) for variable in found]
        return bool(self._finite([v for v in values if v.dtype.is_floating]))


def _all_finite(values):
    return tf.reduce_all([tf.reduce_all(tf.math.is_finite(value)) for value in values])


class FiniteCheckpoints(Checkpoints):
    """`Checkpoints` of which none holds a NaN: `save` looks first.

    Args:
        watch: `Watch` of the same training.
        directory, defense, states, keep: of `Checkpoints`.
    """

    def __init__(self, directory, defense, states=None, *, watch, **kwargs):
        super().__init__(directory, defense, states, **kwargs)
        self.defense = defense
        self.watch = watch

    def save_begin(self):
        """Saves the state as it was made, unless there is a checkpoint.

        Raises:
            RunError: it is not finite, as where the weights of a file are not.
        """
        if self.newest is not None:
            return
        self.watch.set_model(self.defense)
        if not self.watch.weights_are_finite():
            raise RunError(
                "the weights that the training would begin with are not finite: give "
                "others with --weights"
            )
        super().save(int(self.defense.optimizer.iterations.numpy()))

    def save(self, step):
        """As `Checkpoints.save`.

        Raises:
            Diverged: nothing is written.
        """
        self.watch.check(step)
        super().save(step)


class Rewinds:
    """Which batches a training has stepped over, kept in a file.

    Step t of a training takes batch t of an endless sequence. After a rewind from the
    step b, the b-th, to the checkpoint of step g, step t >= g takes batch t + (b - g):
    the batches since the checkpoint, with the one of step b, are not seen again.

    Args:
        path: JSON file, a list of dicts with `step` (b), `to` (g) and `what`.
        writes: whether this process writes it. Of several workers one does; all come
            to the same rewinds, because their losses and weights are the same.
    """

    def __init__(self, path, *, writes=True):
        self.path, self.writes = path, writes
        self.done = recorded(path)

    def add(self, diverged, to):
        """Notes a rewind to the checkpoint of step `to`."""
        entry = {"step": diverged.step, "to": to, "what": diverged.what}
        self.done = [*self.done, entry]
        if self.writes:
            write_json(self.path, self.done)

    def batches(self, start, stop):
        """Ranges [(first, last + 1)] of the sequence for the steps `start` .. `stop`.

        One range, but where a checkpoint older than a rewind is gone on from.
        """
        turns = [one["to"] for one in self.done if start < one["to"] < stop]
        ends = sorted({start, *turns, stop})
        pieces = list(itertools.pairwise(ends)) or [(start, stop)]
        return [(a + self._skipped(a), b + self._skipped(a)) for a, b in pieces]

    def _skipped(self, step):
        return sum(one["step"] - one["to"] for one in self.done if one["to"] <= step)


def recorded(path):
    """The rewinds of a run: the content of `Rewinds.path`, [] without the file."""
    return read_json(path, "the run's rewinds") if path.exists() else []


def guarded(train, *, on_nan, checkpoints, rewinds, where):
    """Runs a training to its end; where it diverges, does what `on_nan` says.

    With `"stop"` it ends there. The last checkpoint, which is a good one, stays. The
    same command would go on from it to the same step and end again, because a step is
    a function of its checkpoint, its batch and its seeds alone.

    With `"rewind"` it goes back to the last checkpoint, weights, optimizers, metrics
    and all, and steps over the batches since, up to and with that of the bad step. The
    noise of a step stays a function of (seed, step), so step t meets other images with
    the noise it would have had. Nothing else changes: no rate is lowered. It says so,
    and the run's file and results record it. After three rewinds, those of earlier
    calls counted, it stops as above. Where nothing is saved yet, the begin is, so that
    there is a step to go back to.

    Args:
        train: () -> result; restores the newest of `checkpoints` and goes on from it
            with `rewinds.batches`.
        on_nan: `"stop"` or `"rewind"`.
        checkpoints: `FiniteCheckpoints`.
        rewinds: `Rewinds`.
        where: the directory of the checkpoints, for messages.

    Returns:
        What `train` returns.

    Raises:
        RunError: it has diverged; says at which step, what is left and what to do.
    """
    if on_nan == "rewind":
        checkpoints.save_begin()
    while True:
        try:
            return train()
        except Diverged as found:
            good = checkpoints.newest
            if on_nan == "stop":
                raise RunError(_advice(found, good, where)) from None
            if len(rewinds.done) >= MOST_REWINDS:
                steps = ", ".join(str(one["step"]) for one in rewinds.done)
                raise RunError(
                    f"{_advice(found, good, where, again=False)} It went back "
                    f"{MOST_REWINDS} times before, from the steps {steps}."
                ) from None
            rewinds.add(found, good)
            logging.warning(
                "%s: going back to the checkpoint of step %d, and from there on with "
                "the batches that follow, %d steps further (rewind %d of at most %d); "
                "the learning rate is as before",
                found,
                good,
                found.step - good,
                len(rewinds.done),
                MOST_REWINDS,
            )


def _advice(found, good, where, again=True):
    kept = "There is no checkpoint yet."
    if good is not None:
        kept = f"The last good checkpoint, of step {good}, is kept in {where}."
    text = (
        f"the training has diverged: {found}. {kept} The same command would come to "
        "the same step again. In another --workdir, lower the learning rate (--set "
        "optimizer.learning_rate=..), bound the gradients (--set "
        "optimizer.global_clipnorm=..) or, of a run in bfloat16, use "
        "--precision=float32"
    )
    if again:
        text += "; or go on past these batches with --on_nan=rewind"
    return f"{text}."
