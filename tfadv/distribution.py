"""Which devices train: TensorFlow's own strategies, chosen by name."""

import contextlib
import functools
import hashlib
import json
import signal
import threading

import tensorflow as tf
from absl import logging

from tfadv import cluster as clusters
from tfadv.errors import RunError, Stopped, UsageError, lookup

# Seconds that workers wait for each other at the start.
ARRIVAL = 600


# One object a process: a second one breaks on CPUs.
@functools.cache
def _mirrored(num_logical_devices):
    if not num_logical_devices:
        return tf.distribute.MirroredStrategy()
    devices = [d.name.removeprefix("/device:") for d in _logical_cpus()]
    return tf.distribute.MirroredStrategy(devices[:num_logical_devices])


@functools.cache
def _multi_worker(cluster, seconds):
    logging.info("%s waits for the others", cluster.name(cluster.index))
    clusters.meet(cluster, seconds)
    try:
        with _alarm(seconds):
            return tf.distribute.MultiWorkerMirroredStrategy()
    except (tf.errors.OpError, RuntimeError) as error:
        text = str(error).strip().splitlines()[0]
        raise RunError(f"{cluster.name(cluster.index)} cannot start: {text}") from None


@contextlib.contextmanager
def _alarm(seconds):
    """SIGALRM ends the process where the block takes longer.

    For workers that have met and die before TensorFlow has connected them: nothing of
    Python runs while it waits.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 60))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


STRATEGIES = ("default", "mirrored", "multi_worker")


def strategy(name=None, num_logical_devices=0, arrival=ARRIVAL):
    """A `tf.distribute` strategy.

    | name           | trains on                                                    |
    |----------------|--------------------------------------------------------------|
    | `default`      | one device                                                   |
    | `mirrored`     | all GPUs of this machine                                     |
    | `multi_worker` | all GPUs, or the CPU, of every worker that TF_CONFIG names   |
    | None           | `mirrored` where several GPUs are visible, else `default`    |

    Args:
        name: see above, or a strategy, which is returned.
        num_logical_devices: splits the CPU into as many devices first, to try
            `mirrored` without GPUs; 0 leaves it whole.
        arrival: seconds that a worker waits for the others.

    Raises:
        UsageError: an unknown name; devices asked for without `mirrored` or after
            TensorFlow has started; a TF_CONFIG that is wrong, or names several workers
            where another strategy is asked for, or is missing for `multi_worker`.
        RunError: this worker's address cannot be listened on.
        WorkerLost: the others have not come in time.
    """
    if isinstance(name, tf.distribute.Strategy):
        return name
    if name is not None:
        lookup(dict.fromkeys(STRATEGIES), name, "strategy")
    if name == "multi_worker":
        cluster = named_cluster()
        if num_logical_devices:
            raise UsageError(
                "--num_logical_devices goes with --strategy=mirrored; under "
                "multi_worker TensorFlow takes a CPU as one device: start more workers "
                "in its place"
            )
        return _multi_worker(cluster, arrival)
    cluster = clusters.from_environment()
    if cluster is not None and cluster.workers > 1:
        given = "no --strategy" if name is None else f"--strategy={name}"
        raise UsageError(
            f"TF_CONFIG names {cluster.workers} workers and {given} trains on one: add "
            "--strategy=multi_worker, or unset TF_CONFIG"
        )
    if name is None:
        several = len(tf.config.list_physical_devices("GPU")) > 1
        free = not tf.distribute.has_strategy()
        chosen = num_logical_devices or (several and free)
        name = "mirrored" if chosen else "default"
    if name == "default":
        if num_logical_devices:
            raise UsageError(
                "--num_logical_devices goes with --strategy=mirrored; the strategy "
                "'default' uses one device"
            )
        return tf.distribute.get_strategy()
    if num_logical_devices:
        split_cpu(num_logical_devices)
    return _mirrored(num_logical_devices)


def named_cluster():
    """The `Cluster` of TF_CONFIG; a `UsageError` without one."""
    cluster = clusters.from_environment()
    if cluster is None:
        raise UsageError(
            "--strategy=multi_worker needs the environment variable TF_CONFIG, on "
            "each worker with its own task: "
            '{"cluster": {"worker": ["host0:12345", "host1:12345"]}, '
            '"task": {"type": "worker", "index": 0}}'
        )
    return cluster


def split_cpu(count):
    """Makes `count` logical devices of the CPU, before TensorFlow's first op."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * count
        )
    except RuntimeError as error:
        if len(_logical_cpus()) != count:
            raise UsageError(
                f"cannot split the CPU into {count} devices any more: {error}"
            ) from None


def _logical_cpus():
    return tf.config.list_logical_devices("CPU")


def chief(strategy):
    """Whether this process writes: always, but for the other workers of several."""
    return peers(strategy).cluster.chief


@functools.cache
def peers(strategy):
    """The `Peers` of a strategy, one object for each."""
    several = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
    cluster = clusters.from_environment() if several else None
    return Peers(strategy, cluster or clusters.ALONE)


class Peers:
    """What the workers of a strategy tell each other, beside gradients.

    All of them must call the same methods in the same order. With one worker nothing is
    sent.

    Args:
        strategy: `tf.distribute.Strategy`.
        cluster: `cluster.Cluster`.

    Attributes:
        verdict: `cluster.Verdict`, or None with one worker.
    """

    LENGTH = 4

    def __init__(self, strategy, cluster):
        self.strategy, self.cluster = strategy, cluster
        several = cluster.workers > 1
        self.verdict = clusters.Verdict(cluster) if several else None

        def on_replica(values):
            # On its device, which the collective asks for.
            values = tf.identity(values)
            context = tf.distribute.get_replica_context()
            return context.all_reduce(tf.distribute.ReduceOp.SUM, values)

        @tf.function(input_signature=[tf.TensorSpec([self.LENGTH], tf.int64)])
        def reduce(values):
            return strategy.run(on_replica, args=(values,))

        self._reduce = reduce

    @property
    def several(self):
        return self.cluster.workers > 1

    def total(self, *values):
        """Sums over the workers of at most four integers: a list."""
        if not self.several:
            return list(values)
        padded = [int(v) for v in values] + [0] * (self.LENGTH - len(values))
        sums = self._reduce(tf.constant(padded, tf.int64))
        first = self.strategy.experimental_local_results(sums)[0].numpy()
        replicas = self.strategy.num_replicas_in_sync // self.cluster.workers
        return [int(n) // replicas for n in first[: len(values)]]

    def from_chief(self, value):
        """The chief's integer."""
        return self.total(value if self.cluster.chief else 0)[0]

    def wait(self):
        """Until all have come here."""
        self.total(0)

    def chief_first(self, make):
        """`make()` on the chief and then on the others, who find what it has made."""
        found = make() if self.cluster.chief else None
        self.wait()
        return found if self.cluster.chief else make()

    def check_same(self, value, what):
        """Raises a `UsageError` where a JSON value is not the same on all workers."""
        digest = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest()
        own = [int.from_bytes(digest[i : i + 4], "big") for i in range(0, 16, 4)]
        if self.total(*own) != [number * self.cluster.workers for number in own]:
            raise UsageError(
                f"the workers were not started with the same {what}: give each the "
                "same command"
            )

    def told_step(self, step):
        """Notes the step to continue from, for messages about lost workers."""
        if self.verdict is not None:
            self.verdict.step = step

    @contextlib.contextmanager
    def watched(self, seconds=ARRIVAL):
        """In the block, a worker that is lost ends all others within seconds.

        Its process exits with `cluster.EXIT_LOST` and one line, whatever it waits for.
        """
        if not self.several:
            yield
            return
        self.verdict.step = 0  # Not that of a training before.
        watch = clusters.Watch(self.verdict)
        try:
            port = self.from_chief(watch.listen() if self.cluster.chief else 0)
            if self.cluster.chief:
                watch.accept(seconds)
            else:
                watch.join(port, seconds)
            yield
        except Stopped:
            watch.leave()  # All of them, at this step.
            raise
        except (
            tf.errors.UnavailableError,
            tf.errors.AbortedError,
            tf.errors.CancelledError,
            tf.errors.DeadlineExceededError,
            tf.errors.FailedPreconditionError,
        ) as error:
            # A collective may notice before the watch, which knows who it is and ends
            # the process.
            watch.settle()
            watch.close()
            raise clusters.broken(self.cluster, self.verdict.step, error) from None
        except (RunError, UsageError):
            watch.close(linger=2.0)  # It may be the same on all, as a loss that is NaN.
            raise
        except BaseException:
            watch.close()
            raise
        else:
            watch.leave()


def distribute(strategy, batches_from, start):
    """The batches of a training, each replica with its part.

    Replica r of R takes positions r m / R .. (r + 1) m / R - 1 of a batch of m,
    whatever the strategy. Of several workers each makes only the part of its replicas.

    Args:
        strategy: `tf.distribute.Strategy`.
        batches_from: (start) -> `tf.data.Dataset` of the batches from step `start` on,
            with several workers (start, part=(w, W)) -> that of part w of W of each.
        start: int, step.

    Returns:
        An iterable for `strategy.run`.
    """
    cluster = peers(strategy).cluster
    if cluster.workers == 1:
        return strategy.experimental_distribute_dataset(batches_from(start))
    replicas = strategy.num_replicas_in_sync // cluster.workers

    def own(_):
        data = batches_from(start, part=(cluster.index, cluster.workers))
        # Without an end: of one that ends the workers tell each other at every step.
        return for_replicas(data, replicas).repeat()

    return strategy.distribute_datasets_from_function(own)


def for_replicas(data, replicas):
    """Each batch of `data` as `replicas` batches, its first part first."""
    if replicas == 1:
        return data

    def parts(*batch):
        split = tf.nest.map_structure(
            lambda t: tf.reshape(t, [replicas, t.shape[0] // replicas, *t.shape[1:]]),
            batch,
        )
        return tf.data.Dataset.from_tensor_slices(split)

    return data.flat_map(parts)
