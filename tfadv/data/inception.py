"""How the Inception networks see photographs: distorted to train on, else cut out."""

import dataclasses
from typing import ClassVar

import numpy as np
import tensorflow as tf

from tfadv.data.on_disk import ImagesOnDisk, resize

# Of the image in training: how much of it, and width by height.
AREA, ASPECT = (0.05, 1.0), (0.75, 1.33)
# The least that a crop must hold of the object, which here is the whole image.
COVERED = 0.1
BRIGHTNESS, HUE = 32 / 255, 0.2
# Of saturation and contrast: factors from 0.5 to 1.5.
FACTORS = 0.5
CENTRAL = 0.875


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inception:
    """The preprocessing of Inception networks, in place of `Augment`.

    Training: a box of 5 % to 100 % of the image and of 0.75 to 1.33 times its height
    in width, resized to size x size, half of them mirrored, then

        order 0: brightness, saturation, hue, contrast
        order 1: brightness, contrast, saturation, hue

    with b ~ U(-32/255, 32/255) added, the factors of saturation and contrast
    ~ U(0.5, 1.5) and the hue turned by U(-0.2, 0.2), at last clipped to [0, 1].
    Otherwise: the middle 87.5 % of both sides, resized to size x size.

    Both resizes are bilinear without smoothing before, with the centres of pixels at
    1/2, 3/2, ...; Inception's own code has the corners at whole numbers, which is up to
    half a pixel away. It takes one order in half of its threads and the other in the
    rest; here the seed decides for each image. Boxes around objects are not known, so
    the object is the whole image; as in that code a box holds a tenth of it at least,
    so that areas are in effect from 10 % on.

    Training images are float32. All others are rounded to whole pixel values, uint8, as
    those of every other data set: what is tested is an image that can be stored, and
    adversarial images of whole pixels are made of it. A value moves by half a pixel at
    most.

    Args:
        size: side of the square images that leave.

    Raises:
        ValueError: `size` below 1.

    Source: Szegedy et al. 2015; Kurakin et al. 2017, whose networks are trained so; the
    released code of Inception (image_processing.py).
    """

    size: int

    # Images may differ in size until they leave: each is distorted alone.
    by_image: ClassVar[bool] = True

    def __post_init__(self):
        if self.size < 1:
            raise ValueError(f"`size` must be at least 1; received {self.size}")

    def output_shape(self, image_shape):
        """(size, size, 3) of the images that leave.

        Raises:
            ValueError: the images have no colours.
        """
        if image_shape[2] != 3:
            raise ValueError(
                "`preprocess` 'inception' changes colours and needs images with 3 "
                f"channels; received {image_shape[2]}: leave it out"
            )
        return (self.size, self.size, 3)

    def center(self, x):
        """The middle of each image, as it is tested.

        Args:
            x: [n, h, w, 3] uint8 in memory, or `ImagesOnDisk`, of any sizes.

        Returns:
            [n, size, size, 3] uint8; of `ImagesOnDisk` the same, unread.

        Raises:
            ValueError: the images are no pixels or have no colours.
        """
        shape = self.output_shape(tuple(x.shape[1:]))
        if isinstance(x, ImagesOnDisk):
            return x.map(self.center_one, shape)
        found = np.empty((len(x), *shape), np.uint8)
        for start in range(0, len(x), 1000):
            part = slice(start, start + 1000)
            found[part] = self.center_one(x[part])
        return found

    def center_one(self, image):
        """The middle of one image, or of each of a batch; see `center`.

        Args:
            image: [..., h, w, 3] uint8.

        Returns:
            [..., size, size, 3] uint8.
        """
        middle = tf.image.central_crop(_pixels(image), CENTRAL)
        return resize(middle, (self.size, self.size))

    def random_one(self, image, seed):
        """A distorted image to train on.

        Args:
            image: [h, w, 3] uint8.
            seed: [2] integers; equal seeds give equal images.

        Returns:
            [size, size, 3] float32 in [0, 1].
        """
        image = _pixels(image)
        begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
            tf.shape(image),
            tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
            seed,
            min_object_covered=COVERED,
            aspect_ratio_range=ASPECT,
            area_range=AREA,
            max_attempts=100,
        )
        x = tf.image.resize(tf.slice(image, begin, extent), (self.size, self.size))
        x = tf.ensure_shape(x, (self.size, self.size, 3)) / 255
        # Of another seed than the box, with as many bits.
        seed = tf.random.experimental.stateless_fold_in(
            seed, tf.constant(1, tf.int64), alg="philox"
        )
        draws = tf.random.stateless_uniform([6], seed, -1.0, 1.0, alg="philox")
        mirrored, first, *changes = tf.unstack(draws)
        x = tf.where(mirrored < 0, x[:, ::-1], x)
        return distort_color(x, tf.cast(first < 0, tf.int32), *changes)


def distort_color(x, order, brightness, saturation, hue, contrast):
    """Other light and other colours; see `Inception`.

    Args:
        x: [h, w, 3] float32 in [0, 1].
        order: int32 scalar, 0 or 1.
        brightness, saturation, hue, contrast: scalars in [-1, 1], where 0 changes
            nothing and the ends are the strongest changes there are.

    Returns:
        [h, w, 3] float32 in [0, 1].
    """

    def saturated(x):
        return tf.image.adjust_saturation(x, 1 + FACTORS * saturation)

    def turned(x):
        return tf.image.adjust_hue(x, HUE * hue)

    def contrasted(x):
        return tf.image.adjust_contrast(x, 1 + FACTORS * contrast)

    x = x + BRIGHTNESS * brightness
    x = tf.cond(
        tf.equal(order, 0),
        lambda: contrasted(turned(saturated(x))),
        lambda: turned(saturated(contrasted(x))),
    )
    return tf.clip_by_value(x, 0.0, 1.0)


def _pixels(image):
    image = tf.convert_to_tensor(image)
    if image.dtype != tf.uint8:
        raise ValueError(
            "`preprocess` 'inception' takes images as pixels, uint8; received "
            f"{image.dtype.name}"
        )
    return image
