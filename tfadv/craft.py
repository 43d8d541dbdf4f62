"""Adversarial images on disk: 8-bit, as a TFDS data set or a NumPy array."""

import contextlib
import time

import numpy as np
import tensorflow as tf
from absl import logging
from tqdm import tqdm

from tfadv.attacks import core
from tfadv.data import pipeline
from tfadv.errors import RunError
from tfadv.evaluation import format_eps
from tfadv.evaluation.whitebox import batches
from tfadv.files import remove_leftovers, replacing

VERSION = "1.0.0"
# A full disk is noticed when a file is closed.
FILE_EXAMPLES = 10_000


def write(
    predict,
    images,
    entry,
    eps,
    output,
    *,
    data,
    split,
    batch_size,
    crop=None,
    model=None,
    seed=0,
):
    """Attacks images and writes them as a TFDS directory that is read at random.

    One example is `image` uint8 (PNG), `label`, `source_index` (its position in the
    source split) and `eps`; they are ordered by index, then by eps. Values are rounded
    to whole pixels: exact for attacks that move in whole pixels, such as `iter_fgsm`
    from 8-bit images.

    A batch is attacked at all its sizes by `core.sweep` and written before the next
    one, so no more than a batch is in memory. What a reader must know to trust the
    images is in the data set's metadata: `data`, `split`, `crop`, `num_images`, `eps`,
    `attack` (its label), `attack_arguments`, `seed` and `model`.

    Args:
        predict: x -> logits.
        images: `Images` as the model takes them.
        entry: `suite.Entry`.
        eps: numbers, in the units of x; written in ascending order.
        output: directory; `output/<data>_<attack>/1.0.0` is replaced.
        data: name of the source data set.
        split: name of the source split and of the one to write.
        batch_size: int.
        crop: side of the centre crop that `images` are, for the metadata.
        model: what tells the attacked model from others, as JSON holds it, for the
            metadata.
        seed: int, of random attacks.

    Returns:
        Path of the written directory, for `tfds.builder_from_directory`, whose
        `as_data_source(split)` reads it, and for `data.adversarial.StoredImages`.

    Raises:
        RunError: it cannot be written.
    """
    name, eps = f"{data}_{entry.name}", sorted(set(map(float, eps)))
    target = output / name / VERSION
    metadata = {
        "data": data,
        "split": split,
        "crop": crop,
        "num_images": len(images),
        "eps": eps,
        "attack": entry.label,
        "attack_arguments": repr(entry.attack),
        "seed": seed,
        "model": model,
    }
    # What a killed write has left behind may be large.
    remove_leftovers(target.parent)
    with replacing(target) as temporary:
        temporary.mkdir()
        writer = _writer(
            temporary,
            name,
            images.x.shape[1:],
            metadata,
            f"{entry.label} at eps {', '.join(map(format_eps, eps))}",
        )
        writer.initialize_splits([split])
        attacked = _attacked(predict, images, entry, eps, batch_size, seed)
        for start, pixels in _shown(attacked, entry.label, len(images) * len(eps)):
            examples = [
                {
                    "image": pixels[i, j],
                    "label": images.y[start + i],
                    "source_index": images.source_index[start + i],
                    "eps": size,
                }
                for i in range(len(pixels))
                for j, size in enumerate(eps)
            ]
            with _as_run_error(target):
                writer.add_examples({split: examples})
        with _as_run_error(target):
            writer.close_all()
    return target


def write_array(predict, images, entry, path, *, batch_size, seed=0):
    """Attacks images and writes them as one `.npy` file, [n, h, w, c] uint8.

    For whole training sets that are read again in one piece. Values are rounded to
    whole pixels.

    Args:
        predict, images, batch_size, seed: see `write`.
        entry: `suite.Entry`, whose attack has its eps.
        path: the file, replaced.

    Raises:
        RunError: it cannot be written.
    """
    remove_leftovers(path.parent)
    x_adv = np.empty(images.x.shape, np.uint8)
    eps = [entry.attack.eps]
    attacked = _attacked(predict, images, entry, eps, batch_size, seed)
    for start, pixels in _shown(attacked, entry.label, len(images)):
        x_adv[start : start + len(pixels)] = pixels[:, 0]
    with replacing(path) as temporary:
        np.save(temporary, x_adv)


def _writer(directory, name, image_shape, metadata, description):
    """Of TFDS' two writers the one that streams: the other sorts all in memory."""
    import tensorflow_datasets as tfds

    info = tfds.core.DatasetInfo(
        builder=tfds.core.DatasetIdentity(
            name=name,
            version=tfds.core.Version(VERSION),
            data_dir=str(directory),
            module_name=__name__,
        ),
        description=description,
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=image_shape, dtype=np.uint8),
                "label": np.int64,
                "source_index": np.int64,
                "eps": np.float32,
            }
        ),
        metadata=tfds.core.MetadataDict(metadata),
        disable_shuffling=True,
    )
    return tfds.core.SequentialWriter(
        info, max_examples_per_shard=FILE_EXAMPLES, file_format="array_record"
    )


@contextlib.contextmanager
def _as_run_error(target):
    # What array_record raises where Python would raise an OSError.
    try:
        yield
    except RuntimeError as error:
        raise RunError(
            f"cannot write {target}: {error}. Nothing that was there has been changed."
        ) from error


def _attacked(predict, images, entry, eps, batch_size, seed):
    """(position of the first, pixels [n, len(eps), h, w, c] uint8) of every batch."""

    @tf.function
    def attack(x, y, seed):
        swept = core.sweep(entry.attack, predict, x, y, eps, seed)
        return tf.stack([pipeline.to_uint8(x_adv) for x_adv in swept], axis=1)

    # One graph, for a short last batch as well.
    attack = attack.get_concrete_function(
        tf.TensorSpec((None, *images.x.shape[1:]), tf.float32),
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([2], tf.int64),
    )
    for number, (x, y) in enumerate(batches(images, batch_size)):
        yield number * batch_size, attack(x, y, core.fold(seed, number)).numpy()


def _shown(attacked, label, total, every_seconds=20.0):
    """Passes batches on; a bar on a terminal, lines in a log, with the time left."""
    begin = last = time.monotonic()
    with tqdm(total=total, desc=label, disable=None) as bar:
        done = 0
        for start, pixels in attacked:
            yield start, pixels
            count = pixels.shape[0] * pixels.shape[1]
            done += count
            bar.update(count)
            now = time.monotonic()
            if bar.disable and now - last >= every_seconds:
                last = now
                left = (now - begin) / done * (total - done)
                logging.info(
                    "%s: %d of %d images, %.0f s left", label, done, total, left
                )
