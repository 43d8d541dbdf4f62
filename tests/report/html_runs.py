"""Directories as finished runs leave them, made of nothing but files."""

import io
import json

import numpy as np
import tensorflow as tf
from PIL import Image

from tfadv.evaluation.whitebox import row

ROWS = [
    row("clean", 0.0, 90, 100),
    row("step_fgsm", 0.1, 60, 100),
    row("step_fgsm", 0.2, 50, 100),
    row("pgd(steps=2)", 0.1, 55, 100),
    row("pgd(steps=2)", 0.2, 12, 100),
    row("random_sign", 0.1, 3, 100),
]
CONFIG = {
    "data": {"name": "digits", "crop": None},
    "model": {"name": "small_cnn"},
    "defense": {"name": "kurakin"},
    "train": {"steps": 200, "full_steps": 3000, "seed": 7},
    "evaluate": {"bn_eval": "moving"},
}


def picture():
    """The bytes of a PNG, 4 wide and 3 high."""
    buffer = io.BytesIO()
    Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4)).save(buffer, "PNG")
    return buffer.getvalue()


def results(rows=None, config=None, **changes):
    """The content of a `results.json`."""
    found = {
        "rows": ROWS if rows is None else rows,
        "config": CONFIG if config is None else config,
        "seed": 5,
        "steps": 200,
        "full_steps": 3000,
        "versions": {"tfadv": "0.1.0", "numpy": "9.8.7"},
    }
    return found | changes


def write_run(path, *, config=None, trained=True, found="default", examples=True):
    """A workdir; `found` is the content of its results.json, None for none."""
    path.mkdir(parents=True, exist_ok=True)
    config = CONFIG if config is None else config
    (path / "config.json").write_text(json.dumps(config))
    if trained:
        (path / "model.keras").write_bytes(b"not read")
    if found == "default":
        found = results(config=config)
    if found is not None:
        (path / "results.json").write_text(json.dumps(found))
        if examples:
            (path / "examples.png").write_bytes(picture())
    return path


def write_events(directory, points, suffix=""):
    """An event file of TensorBoard with {tag: {step: value}}."""
    writer = tf.summary.create_file_writer(str(directory), filename_suffix=suffix)
    with writer.as_default():
        for tag, values in points.items():
            for step, value in values.items():
                tf.summary.scalar(tag, value, step=step)
        tf.summary.image("watched/images/pgd", np.zeros([1, 2, 2, 1]), step=1)
        tf.summary.histogram("train/eps", [0.1, 0.2], step=1)
    writer.close()
