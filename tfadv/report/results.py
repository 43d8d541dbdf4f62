"""The `results.json` of a run."""

import platform

import keras
import numpy as np
import tensorflow as tf

import tfadv


def versions():
    """What produced a result."""
    return {
        "tfadv": tfadv.__version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def compose(rows, *, config, seed, steps, full_steps=None):
    """The content of `results.json`.

    Args:
        rows: of `evaluation.measure`.
        config: dict, the resolved configuration, or what is known of a foreign model.
        seed: int.
        steps: int, optimizer steps that were taken, or None if unknown.
        full_steps: int, steps of the whole schedule where the run was shortened.
    """
    return {
        "rows": rows,
        "config": config,
        "seed": seed,
        "steps": steps,
        "full_steps": full_steps if full_steps is not None else steps,
        "versions": versions(),
    }
