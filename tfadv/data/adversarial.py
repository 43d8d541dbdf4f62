"""Adversarial images made beforehand (`tfadv.craft`), read from disk at random."""

import io
import pathlib

import numpy as np
import tensorflow as tf
from PIL import Image

from tfadv.data.records import Records, first_line
from tfadv.errors import RunError, UsageError

# How many examples are looked at to trust the rest.
SAMPLES = 32


def draw_pixels(max_pixels, n, seed):
    """min(floor(s), E - 1) + 1 with s = min(|N(0, E / 2)|, E): whole pixels 1 .. E.

    The law of the sizes of stored images in cascade training (Na et al. 2018, section
    3.3; the rounding is that of the authors' code): the clipped law, rounded up.

    Args:
        max_pixels: E, int.
        n: int or int32 scalar.
        seed: [2] integers.

    Returns:
        [n] int32.
    """
    normal = tf.random.stateless_normal([n], seed, alg="philox")
    size = tf.minimum(max_pixels / 2 * tf.abs(normal), max_pixels)
    return tf.cast(tf.minimum(tf.floor(size), max_pixels - 1), tf.int32) + 1


class StoredImages:
    """x_adv of the first `num_images` images of a split at eps = 1 .. E pixels of 255.

    Only what is asked for is read, so the memory does not grow with the set. Opening
    reads the metadata, the length of every file and a few examples.

    Args:
        path: the directory that `craft.write` returned.
        data: name of the data set that they must be made of.
        split: of that data set.
        image_shape: (h, w, c) that they must have.

    Attributes:
        metadata: dict, what `craft.write` noted.
        num_images: int.
        max_pixels: E, int.

    Raises:
        UsageError: there is nothing at `path`; it holds images of another data set,
            split or shape, or of other sizes than 1 .. E pixels.
        RunError: it is damaged, incomplete or not written by `craft.write`.
    """

    def __init__(self, path, *, data, split, image_shape):
        self.path = pathlib.Path(path)
        self.image_shape = tuple(image_shape)
        info = self._read_info()
        self._expect("data set", self.metadata["data"], data)
        self._expect("split", self.metadata["split"], split)
        self._expect("shape", tuple(info.features["image"].shape), self.image_shape)
        self.num_images = self.metadata["num_images"]
        self.max_pixels = len(self.metadata["eps"])
        whole = np.arange(1, self.max_pixels + 1) / 255
        if not np.allclose(self.metadata["eps"], whole, rtol=0, atol=1e-6):
            raise UsageError(
                f"stored images in {self.path}: their eps must be all whole pixels "
                f"1/255, 2/255, .. up to the largest; received "
                f"{[round(255 * eps, 3) for eps in self.metadata['eps']]} / 255"
            )
        self._open_files(info.splits[split])
        for position in _spread(self.num_images * self.max_pixels):
            self._example(position)

    def read(self, index, pixels):
        """Stored images; a NumPy function, for `tf.numpy_function` in a graph.

        Args:
            index: [s] integers, positions in the source split.
            pixels: [s] integers in 1 .. E, the size of each perturbation.

        Returns:
            [s, h, w, c] uint8.

        Raises:
            ValueError: an index or a size that is not stored.
            RunError: an image is damaged.
        """
        images = np.empty((len(index), *self.image_shape), np.uint8)
        for i, position in enumerate(self._positions(index, pixels)):
            images[i], _ = self._example(position)
        return images

    def check(self, images, augment):
        """Looks at a few whether they were made of `images`.

        Their labels must agree, and no pixel differ by more than eps from that of the
        centre crop.

        Args:
            images: `Images` of the source split, all or some, uncropped.
            augment: `Augment`.

        Raises:
            RunError: they were not, or not of all.
        """
        last = int(images.source_index.max())
        if last >= self.num_images:
            raise RunError(
                f"stored images in {self.path} are made of the first {self.num_images} "
                f"images; image {last} is needed too. Make them of the whole split."
            )
        few = images.take(_spread(len(images)))
        clean = np.asarray(augment.center(few.x)).astype(int)
        self._expect("shape", self.image_shape, clean.shape[1:])
        pixels = 1 + np.arange(len(few)) % self.max_pixels
        positions = self._positions(few.source_index, pixels)
        for i, position in enumerate(positions):
            image, label = self._example(position)
            moved = np.abs(image - clean[i]).max()
            if label != few.y[i] or moved > pixels[i]:
                raise RunError(
                    f"stored images in {self.path} are not made of these images: "
                    f"image {few.source_index[i]} at eps {pixels[i]}/255 has label "
                    f"{label} and differs by {moved}/255 from the clean one, whose "
                    f"label is {few.y[i]}. Make them anew."
                )

    def _read_info(self):
        if not self.path.is_dir():
            raise UsageError(
                f"no stored images at {self.path}: expected a directory that "
                "bin/attack wrote"
            )
        import tensorflow_datasets as tfds

        try:
            info = tfds.builder_from_directory(self.path).info
            self.metadata = dict(info.metadata or {})
        except Exception as error:  # As many kinds as files that may be damaged.
            raise self._damaged(error) from None
        missing = {"data", "split", "num_images", "eps"} - set(self.metadata)
        if missing or self.metadata["split"] not in info.splits:
            raise self._damaged("its metadata are missing")
        return info

    def _expect(self, what, found, expected):
        if found != expected:
            raise UsageError(
                f"stored images in {self.path} have {what} {found!r}; expected "
                f"{expected!r}. Make them with bin/attack of the data that is trained "
                "on."
            )

    def _open_files(self, split):
        expected = self.num_images * self.max_pixels
        if sum(split.shard_lengths) != expected:
            raise self._damaged(f"{sum(split.shard_lengths)} of {expected} examples")
        try:
            self._records = Records(split.filepaths, split.shard_lengths)
        except Exception as error:
            raise self._damaged(error) from None

    def _positions(self, index, pixels):
        index, pixels = np.asarray(index, int), np.asarray(pixels, int)
        for name, values, least, most in (
            ("index", index, 0, self.num_images - 1),
            ("pixels", pixels, 1, self.max_pixels),
        ):
            if values.size and not least <= values.min() <= values.max() <= most:
                raise ValueError(
                    f"`{name}` must be from {least} to {most}; received "
                    f"{values.min()} to {values.max()}"
                )
        return index * self.max_pixels + pixels - 1

    def _example(self, position):
        """(image [h, w, c], label) of the example at `position`, if it says so too."""
        index, pixels = divmod(int(position), self.max_pixels)
        pixels += 1
        try:
            example = tf.train.Example.FromString(self._records.read(position))
            feature = example.features.feature
            found = (
                feature["source_index"].int64_list.value[0],
                round(255 * feature["eps"].float_list.value[0]),
            )
            label = feature["label"].int64_list.value[0]
            png = feature["image"].bytes_list.value[0]
            image = np.asarray(Image.open(io.BytesIO(png))).reshape(self.image_shape)
        except RunError:
            raise
        except Exception as error:
            raise self._damaged(error) from None
        if found != (index, pixels):
            raise self._damaged(
                f"example {position} is image {found[0]} at eps {found[1]}/255, "
                f"expected image {index} at eps {pixels}/255"
            )
        return image, label

    def _damaged(self, error):
        return RunError(
            f"stored images in {self.path} are damaged or incomplete: "
            f"{first_line(error)}. Make them again with bin/attack."
        )


def _spread(n):
    """At most `SAMPLES` of 0 .. n - 1, the first and the last among them."""
    return np.unique(np.linspace(0, n - 1, SAMPLES).astype(int))
