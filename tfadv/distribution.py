"""Which devices train: TensorFlow's own strategies, chosen by name."""

import functools

import tensorflow as tf

from tfadv.errors import UsageError, lookup


# One object a process: a second one breaks on CPUs.
@functools.cache
def _mirrored(num_logical_devices):
    if not num_logical_devices:
        return tf.distribute.MirroredStrategy()
    devices = [d.name.removeprefix("/device:") for d in _logical_cpus()]
    return tf.distribute.MirroredStrategy(devices[:num_logical_devices])


STRATEGIES = {
    "default": lambda _: tf.distribute.get_strategy(),
    "mirrored": _mirrored,
}


def strategy(name="default", num_logical_devices=0):
    """A `tf.distribute` strategy.

    Args:
        name: `"default"` (one device) or `"mirrored"` (all GPUs of this machine).
        num_logical_devices: splits the CPU into as many devices first, to try
            `mirrored` without GPUs; 0 leaves it whole.

    Raises:
        UsageError: an unknown name; devices asked for without `mirrored` or after
            TensorFlow has started.
    """
    make = lookup(STRATEGIES, name, "strategy")
    if num_logical_devices:
        if name == "default":
            raise UsageError(
                "--num_logical_devices goes with --strategy=mirrored; the strategy "
                "'default' uses one device"
            )
        split_cpu(num_logical_devices)
    return make(num_logical_devices)


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
