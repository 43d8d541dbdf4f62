import os
import subprocess
import sys

import pytest
import tensorflow as tf

from tfadv import distribution
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
    with pytest.raises(UsageError, match=r"'mirored'.*'mirrored'.*default, mirrored"):
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
