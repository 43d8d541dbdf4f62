import os
import subprocess
import sys
import types

import numpy as np
import pytest
import tensorflow as tf

from tests import workers
from tfadv import distribution
from tfadv.cluster import ALONE, Cluster
from tfadv.errors import UsageError


@pytest.fixture(autouse=True)
def _started():
    """TensorFlow runs, with the two logical CPUs of the tests."""
    assert len(tf.config.list_logical_devices("CPU")) == 2


@pytest.fixture
def made(monkeypatch):
    """Devices of every MirroredStrategy that is asked for; none is really made."""
    found = []
    monkeypatch.setattr(
        tf.distribute, "MirroredStrategy", lambda devices=None: found.append(devices)
    )
    return found


def test_default_is_the_strategy_in_scope(mirrored):
    assert distribution.strategy() is tf.distribute.get_strategy()
    assert distribution.strategy("default").num_replicas_in_sync == 1
    with mirrored.scope():
        assert distribution.strategy() is mirrored


def test_mirrored_takes_all_devices_or_the_logical_ones(made):
    distribution.strategy("mirrored")
    distribution.strategy("mirrored", 2)
    assert made == [None, ["CPU:0", "CPU:1"]]


def test_an_unknown_name():
    message = r"'mirored'.*'mirrored'.*default, mirrored, multi_worker"
    with pytest.raises(UsageError, match=message):
        distribution.strategy("mirored")


def test_devices_without_mirrored():
    with pytest.raises(UsageError, match="--num_logical_devices goes with --strategy"):
        distribution.strategy("default", 2)


def test_splitting_again_into_as_many_is_no_error():
    distribution.split_cpu(2)
    assert len(tf.config.list_logical_devices("CPU")) == 2


@pytest.mark.parametrize("count", [1, 3])
def test_splitting_otherwise_after_the_start(count, made):
    with pytest.raises(UsageError, match=f"into {count} devices any more"):
        distribution.strategy("mirrored", count)
    assert made == []


def test_a_fresh_process_trains_on_three_devices():
    code = """if True:
        import tensorflow as tf
        from tfadv import distribution
        strategy = distribution.strategy("mirrored", 3)
        number = strategy.run(
            lambda: tf.distribute.get_replica_context().replica_id_in_sync_group
        )
        print(strategy.num_replicas_in_sync, strategy.reduce("SUM", number, axis=None))
    """
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == "3"
    assert "3" in done.stdout.split(" ", 1)[1]  # 0 + 1 + 2


@pytest.mark.parametrize(("gpus", "chosen"), [(0, "default"), (1, "default"), (2, "m")])
def test_several_gpus_are_used_unless_told_otherwise(gpus, chosen, monkeypatch):
    real = tf.config.list_physical_devices
    monkeypatch.setattr(
        tf.config,
        "list_physical_devices",
        lambda kind=None: ["gpu"] * gpus if kind == "GPU" else real(kind),
    )
    monkeypatch.setattr(distribution, "_mirrored", lambda count: ("m", count))
    expected = tf.distribute.get_strategy() if chosen == "default" else ("m", 0)
    assert distribution.strategy() == expected
    assert distribution.strategy("default") is tf.distribute.get_strategy()
    # Logical devices are there to be used.
    assert distribution.strategy(None, 2) == ("m", 2)


def test_a_strategy_is_itself(mirrored, monkeypatch):
    """Whatever the environment says: a part of a training may run on one device."""
    monkeypatch.setenv("TF_CONFIG", workers.config(["a:1", "b:2"], 0))
    assert distribution.strategy(mirrored) is mirrored


# Several workers.


@pytest.mark.parametrize("name", [None, "default", "mirrored"])
def test_several_workers_need_the_strategy_for_them(name, monkeypatch, made):
    monkeypatch.setenv("TF_CONFIG", workers.config(["a:1", "b:2"], 0))
    given = "no --strategy" if name is None else f"--strategy={name}"
    with pytest.raises(UsageError, match=f"names 2 workers and {given} .* unset"):
        distribution.strategy(name)
    # One worker is no cluster.
    monkeypatch.setenv("TF_CONFIG", workers.config(["a:1"], 0))
    distribution.strategy(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "needs the environment variable TF_CONFIG"),
        ("{", "TF_CONFIG is not JSON"),
        ('{"cluster": {"worker": ["a:1"]}}', "TF_CONFIG: the table 'task'"),
    ],
)
def test_without_a_config_there_are_no_workers(text, message, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text is not None:
        monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UsageError, match=message):
        distribution.strategy("multi_worker")


def test_logical_devices_of_workers(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", workers.config(["a:1", "b:2"], 0))
    with pytest.raises(UsageError, match="start more workers in its place"):
        distribution.strategy("multi_worker", 2)


def test_a_strategy_of_one_process_has_no_peers(mirrored):
    for strategy in (tf.distribute.get_strategy(), mirrored):
        peers = distribution.peers(strategy)
        assert peers.cluster is ALONE
        assert distribution.chief(strategy)
        assert peers.total(3, True) == [3, True]
        assert peers.from_chief(7) == 7
        assert peers.chief_first(lambda: "made") == "made"
        peers.check_same({}, "configuration")
        with peers.watched():
            peers.wait()


class Summed(distribution.Peers):
    """Worker `index` of two, with a sum over the replicas that is given."""

    def __init__(self, index, sums, replicas=2):
        cluster = Cluster(addresses=("a:1", "b:2"), index=index)
        strategy = types.SimpleNamespace(
            num_replicas_in_sync=replicas,
            experimental_local_results=lambda value: (value,),
        )
        super().__init__(strategy, cluster)
        self.sent = []
        self._reduce = lambda values: self.sent.append(values.numpy()) or sums


def test_sums_are_over_workers_not_replicas():
    """Two GPUs on each worker say everything twice."""
    peers = Summed(0, tf.constant([6, 2, 0, 0], tf.int64), replicas=4)
    assert peers.total(2, True) == [3, 1]
    assert [sent.tolist() for sent in peers.sent] == [[2, 1, 0, 0]]


@pytest.mark.parametrize("index", [0, 1])
def test_what_the_chief_says_is_said_by_nobody_else(index):
    peers = Summed(index, tf.constant([5, 0, 0, 0], tf.int64))
    assert peers.from_chief(5) == 5
    assert peers.sent[0].tolist() == [5 * (index == 0), 0, 0, 0]


def test_other_settings_on_another_worker_are_refused():
    same = {"train": {"steps": 3, "seed": 0}}
    peers = Summed(1, tf.zeros([4], tf.int64))
    with pytest.raises(UsageError, match="same configuration: give each the same"):
        peers.check_same(same, "configuration")
    peers = Summed(1, 2 * tf.constant(peers.sent[0], tf.int64))
    # In whatever order the keys are.
    peers.check_same({"train": {"seed": 0, "steps": 3}}, "configuration")


def numbers(start, m=6):
    """Batches ((x, s), y): x 0 .. 5, 6 .. 11, .., six of s, half of x, and y = 10 x."""
    data = tf.data.Dataset.range(start, 4)

    def batch(step):
        x = step * m + tf.range(m, dtype=tf.int64)
        return (x, x // 2), 10 * x

    return data.map(batch)


def test_batches_are_split_into_parts_for_replicas():
    data = distribution.for_replicas(numbers(1), 3)
    found = list(data.as_numpy_iterator())
    assert len(found) == 9
    assert [x.tolist() for (x, _), _ in found[:3]] == [[6, 7], [8, 9], [10, 11]]
    assert [s.tolist() for (_, s), _ in found[:3]] == [[3, 3], [4, 4], [5, 5]]
    assert [y.tolist() for _, y in found[3:5]] == [[120, 130], [140, 150]]
    # Their sizes are known when a step is traced.
    assert [spec.shape for spec in tf.nest.flatten(data.element_spec)] == [2, 2, 2]
    assert distribution.for_replicas(data, 1) is data


def test_replicas_of_one_process_share_whole_batches(mirrored):
    split = distribution.distribute(mirrored, numbers, 2)
    (x, _), y = next(iter(split))
    assert [v.numpy().tolist() for v in x.values] == [[12, 13, 14], [15, 16, 17]]
    np.testing.assert_array_equal(y.values[1], [150, 160, 170])
