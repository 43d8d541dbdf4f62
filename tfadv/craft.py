"""Adversarial images on disk, as a TFDS data set of 8-bit images."""

import contextlib
import dataclasses
import io

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from tfadv.attacks import core
from tfadv.data import pipeline
from tfadv.evaluation import format_eps
from tfadv.evaluation.whitebox import batches
from tfadv.files import replacing

VERSION = "1.0.0"


def write(predict, images, entry, eps, output, *, name, split, batch_size, seed=0):
    """Attacks images and writes them as a TFDS directory.

    One example is `image` uint8 (PNG), `label`, `source_index` (its position in the
    source split) and `eps`; they are ordered by eps, then by index. Values are
    rounded to whole pixels: exact for attacks that move in whole pixels, such as
    `iter_fgsm` from 8-bit images.

    Args:
        predict: x -> logits.
        images: `Images` as the model takes them.
        entry: `suite.Entry`.
        eps: numbers, in the units of x.
        output: directory; `output/<name>/1.0.0` is replaced.
        name: of the data set, lower case with underscores.
        split: name of the split to write.
        batch_size: int.
        seed: int, of random attacks.

    Returns:
        Path of the written directory, for `tfds.builder_from_directory`.
    """
    import tensorflow_datasets as tfds

    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=images.x.shape[1:], dtype=np.uint8),
            "label": np.int64,
            "source_index": np.int64,
            "eps": np.float32,
        }
    )
    stream = tf.data.Dataset.from_generator(
        lambda: _examples(predict, images, entry, eps, batch_size, seed),
        output_signature={
            "image": tf.TensorSpec(images.x.shape[1:], tf.uint8),
            "label": tf.TensorSpec([], tf.int64),
            "source_index": tf.TensorSpec([], tf.int64),
            "eps": tf.TensorSpec([], tf.float32),
        },
    )
    target = output / name / VERSION
    # TFDS tells of its own preparation; the bar above tells of the attack.
    tfds.disable_progress_bar()
    with (
        replacing(target) as temporary,
        contextlib.redirect_stdout(io.StringIO()),
    ):
        made = tfds.dataset_builders.store_as_tfds_dataset(
            name=name,
            version=VERSION,
            data_dir=temporary.parent / "tfds",
            features=features,
            split_datasets={split: stream},
            disable_shuffling=True,
            description=f"{entry.label} at eps {', '.join(map(format_eps, eps))}",
        )
        made.data_path.rename(temporary)
    return target


def _examples(predict, images, entry, eps, batch_size, seed):
    # One graph for every eps, which is a tensor, and for a short last batch.
    @tf.function(reduce_retracing=True)
    def attack(x, y, eps, seed):
        return dataclasses.replace(entry.attack, eps=eps)(predict, x, y, seed=seed)

    with tqdm(total=len(images) * len(eps), desc=entry.label, disable=None) as bar:
        for size in eps:
            start = 0
            for number, (x, y) in enumerate(batches(images, batch_size)):
                x_adv = attack(
                    x, y, tf.constant(size, tf.float32), core.fold(seed, number)
                )
                pixels = pipeline.to_uint8(x_adv).numpy()
                for i in range(len(pixels)):
                    yield {
                        "image": pixels[i],
                        "label": int(y[i]),
                        "source_index": start + i,
                        "eps": size,
                    }
                start += len(pixels)
                bar.update(len(pixels))
