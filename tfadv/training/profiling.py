"""Where the time of a training step goes: a TensorBoard profile, and a few numbers."""

import contextlib
import statistics
import tempfile
import time

import keras
import tensorflow as tf
from absl import logging

from tfadv import distribution
from tfadv.files import write_json
from tfadv.training.checkpoints import Checkpoints

HOW = (
    "medians; `step`: of the training as it ran, input included, the profiler on; the "
    "others are parts of it, each compiled apart and timed alone on a real batch: "
    "`input`, a batch of the pipeline when nothing else runs (a mean); `crafting`, "
    "what makes the adversarial images (null where the defence makes none, or where "
    "its passes craft and learn at once); `forward_backward`, the rest of the step "
    "without the update, on images crafted before; `update`, the optimizers alone. "
    "Apart, they share no work and do not overlap, so they need not sum to the step."
)


class Profile(keras.callbacks.Callback):
    """Profiles `steps` steps after a warm-up, then times the parts of a step.

    The profile is TensorBoard's (`tensorboard --logdir=DIRECTORY`, the plugin
    `tensorboard-plugin-profile`). The parts are those of `HOW`; they are timed between
    two steps, on the state of then, which is put back, so a run ends in the same
    weights with and without it. Between the profiled steps every step waits for its
    result.

    Of several workers it shows the one that it runs on, and the parts are left out.

    It is to be the first of the callbacks, whose time then does not count.

    Args:
        steps: int, at least 1.
        batches_from: as `loop.train` takes it.
        directory: for the profile.
        path: JSON file for the numbers.
        warm_up: int, steps before; the first compiles.
        rounds: int, measurements of each part, after one that compiles it.

    Raises:
        ValueError: `steps` below 1.
    """

    def __init__(self, steps, *, batches_from, directory, path, warm_up=3, rounds=5):
        super().__init__()
        if steps < 1:
            raise ValueError(f"`steps` must be at least 1; received {steps}")
        self.steps = steps
        self.batches_from = batches_from
        self.directory, self.path = str(directory), path
        self.warm_up, self.rounds = warm_up, rounds
        self._running = False

    def on_train_begin(self, logs=None):
        if self._running:  # A training that diverged, and goes on from before.
            tf.profiler.experimental.stop(save=False)
            self._running = False
        self._count, self._seconds = 0, []

    def on_train_batch_begin(self, batch, logs=None):
        if self._count == self.warm_up:
            tf.profiler.experimental.start(self.directory)
            self._running = True
        self._begin = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self._count += 1
        if not self._running:
            return
        float(logs["loss"])  # Waits for the devices.
        self._seconds.append(time.perf_counter() - self._begin)
        if len(self._seconds) == self.steps:
            self._finish()

    def on_train_end(self, logs=None):
        if self._running:
            self._finish()
        elif not self._seconds:
            logging.warning(
                "no profile: the training took %d steps, of which the first %d only "
                "warm up",
                self._count,
                self.warm_up,
            )

    def _finish(self):
        self._running = False
        tf.profiler.experimental.stop()
        start = int(self.model.optimizer.iterations.numpy())
        seconds = {"step": statistics.median(self._seconds)}
        # The parts of several workers' step need them all, and this is one of them.
        if not distribution.peers(self.model.distribute_strategy).several:
            with _put_back(self.model):
                seconds |= parts(self.model, self.batches_from, start, self.rounds)
        found = {
            "seconds": seconds,
            "profiled_steps": len(self._seconds),
            "last_profiled_step": start,
            "how": HOW,
        }
        write_json(self.path, found)
        for line in text(found).splitlines():
            logging.info("%s", line)
        logging.info("profile: tensorboard --logdir=%s", self.directory)


def parts(defense, batches_from, start, rounds=5):
    """Median seconds of the parts of a step, see `HOW`; changes the defence's state.

    Args:
        defense: built and compiled, with its optimizers.
        batches_from: (start) -> `tf.data.Dataset` of global batches.
        start: int, the step whose batch is the first.
        rounds: int.

    Returns:
        dict: `input`, `crafting` (None where there is none to time), `forward_backward`
        and `update`.
    """
    strategy = defense.distribute_strategy
    batches = iter(
        strategy.experimental_distribute_dataset(batches_from(start).repeat())
    )
    batch = next(batches)

    def compiled(body):
        return tf.function(lambda *args: strategy.run(body, args=args))

    crafts = []

    def craft(data):
        made = defense.crafting(data)
        crafts.append(made is not None)
        return 0 if made is None else made

    def learn(data, made):
        gradients = []

        def only_gradients(tape, loss, variables=None, optimizer=None):
            del optimizer
            variables = variables or defense.trained_variables
            gradients.append(tape.gradient(loss, variables))

        replaced = {"descend": only_gradients}
        if any(crafts):
            replaced["craft"] = lambda *args, **kwargs: made
        with _methods(defense, replaced):
            defense.train_step(data)
        return [one for one in tf.nest.flatten(gradients) if one is not None]

    def update():
        for optimizer, variables in defense.moved:
            zeros = [tf.zeros_like(variable) for variable in variables]
            optimizer.apply_gradients(zip(zeros, variables, strict=True))
        return tf.convert_to_tensor(defense.optimizer.iterations)

    craft, learn, update = map(compiled, (craft, learn, update))
    made = craft(batch)
    return {
        "input": _mean_seconds(lambda: next(batches), 2 * rounds, 2 * rounds),
        "crafting": _median_seconds(lambda: craft(batch), rounds)
        if any(crafts)
        else None,
        "forward_backward": _median_seconds(lambda: learn(batch, made), rounds),
        "update": _median_seconds(update, rounds),
    }


def _mean_seconds(read, skipped, rounds):
    """Of what is prepared ahead, so that single calls say nothing."""
    for _ in range(skipped):
        read()
    begin = time.perf_counter()
    for _ in range(rounds):
        read()
    return (time.perf_counter() - begin) / rounds


def _median_seconds(run, rounds):
    """Of a compiled function, after a call that compiles it."""

    def timed():
        begin = time.perf_counter()
        # Returned whole, so that nothing is optimised away; the smallest is waited for.
        outputs = [
            one
            for each in tf.nest.flatten(run())
            for one in tf.nest.flatten(getattr(each, "values", each))
        ]
        min(outputs, key=lambda one: one.shape.num_elements() or 0).numpy()
        return time.perf_counter() - begin

    return statistics.median([timed() for _ in range(1 + rounds)][1:])


@contextlib.contextmanager
def _put_back(defense):
    """After the block the defence, its optimizers and metrics are as before."""
    with tempfile.TemporaryDirectory() as directory:
        kept = Checkpoints(directory, defense, keep=1)
        kept.save(0)
        try:
            yield
        finally:
            kept.restore()


@contextlib.contextmanager
def _methods(owner, replaced):
    """In the block `owner` has these methods in place of those of its class."""
    for name, method in replaced.items():
        object.__setattr__(owner, name, method)
    try:
        yield
    finally:
        for name in replaced:
            object.__delattr__(owner, name)


def text(found):
    """The numbers of a profile as lines to print."""
    lines = [f"a training step, median of {found['profiled_steps']}:"]
    for name, seconds in found["seconds"].items():
        value = "none" if seconds is None else f"{1000 * seconds:.1f} ms"
        lines.append(f"  {name.replace('_', ', '):<20}{value:>12}")
    lines.append("parts are timed apart and need not sum to the step")
    return "\n".join(lines)
