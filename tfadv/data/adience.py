"""Adience: faces in eight groups of age, read from a local directory, image by image.

`DIR/adience` must hold what the Open University of Israel gives to those who register,
unpacked: `fold_0_data.txt` .. `fold_4_data.txt`, and of `aligned.tar.gz` the images
`aligned/<user_id>/landmark_aligned_face.<face_id>.<original_image>`. Nothing is ever
fetched, and nothing is written there.
"""

import collections
import dataclasses
import functools
import pathlib
import re

import numpy as np
from absl import logging

from tfadv.data import files
from tfadv.data.source import Images, Source
from tfadv.errors import RunError

# As the fold files write them; the paper calls the third 8-13 and the last 60-.
AGE_GROUPS = (
    *("(0, 2)", "(4, 6)", "(8, 12)", "(15, 20)"),
    *("(25, 32)", "(38, 43)", "(48, 53)", "(60, 100)"),
)
FOLDS = 5
# Rows of the published fold files, and those of them that have one of the eight labels.
ROWS = (4496, 3745, 3953, 3459, 3834)
LABELLED_ROWS = (4316, 3101, 3339, 2975, 3693)
# To which aligned faces of 816 x 816 pixels are reduced (Levi & Hassner 2015).
IMAGE_SHAPE = (256, 256, 3)
COLUMNS = ["user_id", "original_image", "face_id", "age"]
ADVICE = (
    "Adience comes from the Open University of Israel "
    "(http://www.openu.ac.il/home/hassner/Adience/data.html), which asks for "
    "registration; tfadv downloads nothing. Put fold_0_data.txt .. fold_4_data.txt and "
    "the unpacked aligned.tar.gz (a folder `aligned`) into DIR/adience and give "
    "--data_dir=DIR."
)


@dataclasses.dataclass(frozen=True)
class Face:
    """A row of a fold file, as far as it is used.

    Args:
        user: whose album; a person's images are in one fold.
        image: file, relative to `aligned/`.
        age: text of the label.
    """

    user: str
    image: str
    age: str


def label_of(age, merge_labels=False):
    """0 .. 7, the group of a label of the fold files, or None if it has none.

    Args:
        age: text, as in `"(25, 32)"`, `"35"` or `"None"`.
        merge_labels: whether a label beside the eight gets a group as well: the one
            that holds its number (of a range like `"(25, 23)"`, the first) or is
            nearest to it, and of two at the same distance the older one. Else it has
            none, as in the lists of Levi & Hassner 2015.
    """
    if age in AGE_GROUPS:
        return AGE_GROUPS.index(age)
    number = re.match(r"\(?(\d+)\b", age)
    if not merge_labels or number is None:
        return None
    number = int(number[1])

    def distance(group):
        low, high = map(int, re.findall(r"\d+", AGE_GROUPS[group]))
        return max(low - number, number - high, 0)

    return min(reversed(range(len(AGE_GROUPS))), key=distance)


def read_fold(path):
    """The `Face`s of a fold file in its order.

    Raises:
        RunError: it is not there, or is no fold file.
    """
    path = pathlib.Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise RunError(f"Adience: there is no {path}. {ADVICE}") from None
    except (OSError, ValueError) as error:
        raise RunError(f"Adience: {path} cannot be read: {error}. {ADVICE}") from None
    if not lines or lines[0].split("\t")[:4] != COLUMNS:
        raise RunError(
            f"Adience: {path} is no fold file: its first line must begin with "
            f"{', '.join(COLUMNS)}, separated by tabs. {ADVICE}"
        )
    faces = []
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        fields = [field.strip() for field in line.split("\t")]
        if len(fields) < len(COLUMNS):
            raise RunError(
                f"Adience: {path} is damaged: line {number} has {len(fields)} of at "
                f"least {len(COLUMNS)} columns. {ADVICE}"
            )
        user, original, face, age = fields[:4]
        image = f"{user}/landmark_aligned_face.{face}.{original}"
        faces.append(Face(user, image, age))
    return faces


def read(fold, split, data_dir, *, merge_labels=False):
    """One split of the protocol of five folds, in the order of the fold files.

    `test` is the fold, `train` the four others. Faces without a group are dropped and
    counted by label, images that are missing or damaged are left out, counted and
    named; both in the log.

    Args:
        fold: 0 .. 4.
        split: `"train"` or `"test"`.
        data_dir: directory that holds `adience`.
        merge_labels: see `label_of`.

    Returns:
        `Images` with `ImageFiles` of 256 x 256 x 3.

    Raises:
        RunError: the directory, a fold file or the images are not there; more than
            1 % of the images (and more than two) are missing or damaged.

    Source: Eidinger, Enbar & Hassner 2014; Liao 2018, section 4.
    """
    directory = _directory(data_dir)
    folds = [read_fold(directory / f"fold_{i}_data.txt") for i in range(FOLDS)]
    what = f"{_name(fold, merge_labels)} {split}"
    _look_for_people_in_both(folds, fold, what)
    chosen = [fold] if split == "test" else [i for i in range(FOLDS) if i != fold]
    faces, labels, dropped = [], [], collections.Counter()
    for face in (face for i in chosen for face in folds[i]):
        label = label_of(face.age, merge_labels)
        if label is None:
            dropped[face.age or "empty"] += 1
        else:
            faces.append(face)
            labels.append(label)
    if not faces:
        raise RunError(f"Adience: no face of {what} has a group of age. {ADVICE}")
    people = len({face.user for face in faces})
    logging.info("%s: %d faces of %d people", what, len(faces), people)
    if dropped:
        each = ", ".join(f"{count} {age}" for age, count in dropped.most_common())
        logging.info("%s: %d without a group dropped: %s", what, dropped.total(), each)
    paths = [str(directory / "aligned" / face.image) for face in faces]
    good = files.readable(paths, what=what, advice=ADVICE)
    x = files.ImageFiles(paths, IMAGE_SHAPE)
    return Images(x=x[good], y=np.array(labels, np.int32)[good])


def _directory(data_dir):
    if data_dir is None:
        raise RunError(f"Adience: --data_dir does not say where it is. {ADVICE}")
    directory = pathlib.Path(data_dir) / "adience"
    for path in (directory, directory / "aligned"):
        if not path.is_dir():
            raise RunError(f"Adience: there is no directory {path}. {ADVICE}")
    return directory


def _look_for_people_in_both(folds, fold, what):
    """A warning where the folds share people: accuracy then says less."""
    test = {face.user for face in folds[fold]}
    rest = {face.user for i in range(FOLDS) if i != fold for face in folds[i]}
    both = sorted(test & rest)
    if both:
        logging.warning(
            "%s: %d people are in the training and in the test split (%s): these are "
            "not the published folds, and accuracy is too high",
            *(what, len(both), ", ".join(both[:3])),
        )


def _name(fold, merge_labels):
    return f"adience_merged_{fold}" if merge_labels else f"adience_{fold}"


def _source(fold, merge_labels):
    # With merged labels at most every row counts.
    rows = ROWS if merge_labels else LABELLED_ROWS
    return Source(
        image_shape=IMAGE_SHAPE,
        num_classes=len(AGE_GROUPS),
        sizes={"train": sum(rows) - rows[fold], "test": rows[fold]},
        read=functools.partial(read, fold, merge_labels=merge_labels),
        licence="Eidinger et al. 2014, Adience, from Flickr under Creative Commons",
        on_disk=True,
        ordered=True,
    )


# adience_0 .. adience_4; adience_merged_0 .. keep the faces with other labels, too. A
# name of its own, so that nothing takes the one for the other.
ADIENCE = {
    _name(fold, merge_labels): _source(fold, merge_labels)
    for merge_labels in (False, True)
    for fold in range(FOLDS)
}
