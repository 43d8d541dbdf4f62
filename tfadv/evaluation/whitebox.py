"""Accuracy of a classifier under attacks that know it."""

import math

import numpy as np
import tensorflow as tf
from absl import logging
from scipy import stats
from tqdm import tqdm

from tfadv.attacks import core, norms
from tfadv.data.pipeline import to_float
from tfadv.evaluation import leaking, suite
from tfadv.evaluation.confusion import confusion_matrix, one_off

# With more classes than this, rows tell top-5 accuracy.
FEW_CLASSES = 10
# The `attack` of rows that count what no attack breaks.
WORST_CASE = "worst case"
# How much longer than eps a perturbation may be: a share of eps, and what rounding adds
# to a pixel, an ulp of 1.
TOLERANCE, ULP = 1e-6, 2.0**-23


def measure(
    predict,
    images,
    entries,
    eps,
    *,
    batch_size,
    seed=0,
    progress=True,
    clean=True,
    ordered_classes=None,
    top5=False,
    craft_on=None,
    drop_broken=False,
    num_classes=None,
):
    """Accuracy on clean images and under every attack at every eps.

    Args:
        predict: x -> logits, in inference mode.
        images: `Images` as the model takes them.
        entries: `suite.Entry`s.
        eps: numbers, in the units of x.
        batch_size: int.
        seed: int, of random attacks.
        progress: whether to show a bar (on a terminal) or log each row.
        clean: whether the clean images are measured, too.
        ordered_classes: int, how many classes there are where they have an order, or
            None where they have none.
        top5: whether to tell top-5 accuracy, too; of five classes or more.
        craft_on: x -> what attacks see, as in `core.Judged`; None for what is measured.
        drop_broken: whether each attack is tried on those images only that are right
            when clean and after all attacks before it at this eps. They are gathered
            into full batches, so an attack costs what is left. Attacks that draw random
            numbers draw them for a batch and by its number; so an image meets other
            noise than without `drop_broken`, and its noise depends on how many images
            before it are left; `step_both` goes by the place in the batch. All else
            about an image is its own. Nothing is shared between sizes, because the
            images differ.
        num_classes: int, K, for accuracies of each class, or None to leave them out.

    Returns:
        list of rows, dicts as `row` makes them, clean first; with `one_off` and
        `confusion` where the classes have an order, and with `top5` if asked for. Those
        of one-step attacks that use the true label have `leaked` where one that does
        without it is among the attacks; see `leaking.add`. All attacked ones have
        `audit`, a dict as `audited` makes it.

        Of several attacks, noise not counted, and where clean images are measured,
        there is at the end a row `WORST_CASE` for each eps: the share of images that
        are right when clean and after every attack. Where all attacks are of the l2
        norm, that is their ball, and what is made for l-inf, such as noise, does not
        count.

        That row and the clean one have `per_class`, a list of [right, n] for class
        0 .. K - 1. The worst-case row holds nothing of `one_off` or `top5`.

        With `drop_broken` attacked rows have `of`, how many images were attacked, and
        their accuracy is the share of **all** images that are right after this attack
        and all before it. They have neither `one_off` nor `top5` nor `leaked`, and no
        `audit` where nothing was left to attack.

    Raises:
        ValueError: `drop_broken` without clean images.
    """
    if drop_broken and not clean:
        raise ValueError(
            "`drop_broken` starts from the images that are right when clean: `clean` "
            "must be true; received False"
        )
    guesses = {None: guess(predict, images, 5 if top5 else 1)}
    involved = leaking.involved([entry.label for entry in entries])
    counting = suite.in_ball(entries)
    rows, kept = [], {}
    # Which images nothing has broken yet, at every eps.
    standing = np.ones([len(eps), len(images)], bool)

    def look(entry, sizes, these=images):
        found, audits = hits(
            *(craft_on or predict, guesses, these, entry, sizes),
            batch_size=batch_size,
            seed=seed,
            progress=progress,
        )
        return *found[None], audits

    def add(one):
        rows.append(one)
        if progress:
            logging.info("%s", in_words(one))

    def at_every_size(entry):
        label = entry.label if entry else "clean"
        sizes = [0.0] if entry is None else eps
        right, guessed, audits = look(entry, sizes)
        for i, e in enumerate(sizes):
            one = row(
                label,
                e,
                right[i, :, 0].sum(),
                len(images),
                confused(images, guessed[i], ordered_classes),
                right[i, :, 4].sum() if top5 else None,
            )
            add(one | ({"audit": audits[i]} if entry else of_classes(right[i, :, 0])))
            if label in involved:
                kept[label, float(e)] = right[i, :, 0].copy()
        if entry is None or entry.label in counting:
            standing[:] &= right[..., 0]

    def of_classes(right):
        if num_classes is None:
            return {}
        return {"per_class": per_class(images.y, right, num_classes)}

    def in_turn(i, entry):
        """`entry` at eps[i], on what stands."""
        left = np.flatnonzero(standing[i])
        right, more = np.zeros(0, bool), {}
        if len(left):
            right, _, audits = look(entry, [eps[i]], images.take(left))
            right, more = right[0, :, 0], {"audit": audits[0]}
        count = right.sum()
        if entry.label in counting:
            standing[i, left] = right
        add(row(entry.label, eps[i], count, len(images)) | {"of": len(left)} | more)

    if clean:
        at_every_size(None)
    if drop_broken:
        for i in range(len(eps)):
            for entry in entries:
                in_turn(i, entry)
        # In the order of other results: attack by attack.
        order = [entry.label for entry in entries]
        rows[1:] = sorted(rows[1:], key=lambda one: order.index(one["attack"]))
    else:
        for entry in entries:
            at_every_size(entry)
        leaking.add(rows, kept)
    if clean and suite.several(entries):
        for e, right in zip(eps, standing, strict=True):
            add(row(WORST_CASE, e, right.sum(), len(images)) | of_classes(right))
    return rows


def per_class(labels, right, num_classes):
    """How many images of each class are right, of how many.

    Args:
        labels: [n] integers, the true classes.
        right: [n] bool.
        num_classes: K.

    Returns:
        list of K pairs [right, n] of int.
    """
    counts = (
        np.bincount(chosen, minlength=num_classes) for chosen in (labels[right], labels)
    )
    return [[int(a), int(b)] for a, b in zip(*counts, strict=True)]


def row(label, eps, correct, n, confusion=None, top5=None):
    """One measurement: accuracy with its 95 % Wilson interval.

    Args:
        label: of the attack.
        eps: number.
        correct, n: how many images are right, of how many.
        confusion: [C, C] counts, as `confusion_matrix` returns them, or None.
        top5: how many have their class among the five largest logits, or None.

    Returns:
        dict `attack`, `eps`, `accuracy`, `n`, `ci95`. With `confusion` also `one_off`,
        a fraction, and `confusion`, lists of int, whose line i is the true class i.
        With `top5` also `top5`, a fraction.
    """
    more = {}
    if confusion is not None:
        more = {"one_off": one_off(confusion), "confusion": confusion.tolist()}
    if top5 is not None:
        more["top5"] = int(top5) / int(n)
    return {
        "attack": label,
        "eps": float(eps),
        "accuracy": int(correct) / int(n),
        "n": int(n),
        "ci95": interval(correct, n),
        **more,
    }


def interval(correct, n):
    """[low, high], the 95 % Wilson interval of a share `correct` of `n`."""
    test = stats.binomtest(int(correct), int(n))
    return [float(bound) for bound in test.proportion_ci(0.95, "wilson")]


def confused(images, guessed, ordered_classes):
    """The confusion matrix of images by what is guessed, None for no ordered classes.

    Args:
        images: `Images`.
        guessed: [n] int.
        ordered_classes: as `measure` takes it.
    """
    if ordered_classes is None:
        return None
    return confusion_matrix(images.y, guessed, ordered_classes)


def batches(images, batch_size):
    """(x [n, h, w, c] float32, y [n]) in order; the last may be shorter."""
    for start in range(0, len(images), batch_size):
        part = images.take(slice(start, start + batch_size))
        yield to_float(tf.constant(part.x)), tf.constant(part.y)


def guess(predict, images, top_k=1):
    """A function x -> [n, top_k] int32: the classes of the `top_k` largest logits.

    The largest comes first, of equal ones that of the lower class, as in argmax.

    Args:
        predict: x -> logits, in inference mode.
        images: `Images`, whose shape x has.
        top_k: int, at most the number of classes.
    """

    @tf.function
    def largest(x):
        return tf.math.top_k(predict(x), top_k).indices

    return largest.get_concrete_function(_batch_spec(images)[0])


def hits(source, guesses, images, entry, eps, *, batch_size, seed, progress, desc=""):
    """How images are classified, and which correctly, after an attack on `source`.

    Args:
        source: x -> logits or `core.Judged`, what the attack sees.
        guesses: dict from anything to a `guess`.
        images, batch_size, seed, progress: as `measure` takes them.
        entry: `suite.Entry`, or None for the clean images.
        eps: numbers; one for the clean images.
        desc: text before the bar.

    Returns:
        (found, audits): dict from each key of `guesses` to (right, guessed): bool
        [len(eps), n, top_k], whether the true class is among the first 1 .. top_k
        guessed ones, and int32 [len(eps), n], the first of these; and a list of dicts
        as `audited` makes them, one for each eps, or None for the clean images.
    """

    @tf.function
    def craft(x, y, seed):
        crafted = core.sweep(entry.attack, source, x, y, eps, seed)
        return crafted, tf.stack([_extent(x_adv, x) for x_adv in crafted])

    if entry is not None:
        # One graph, for a short last batch as well.
        craft = craft.get_concrete_function(
            *_batch_spec(images), tf.TensorSpec([2], tf.int64)
        )
    shown = tqdm(
        batches(images, batch_size),
        desc=desc + (entry.label if entry else "clean"),
        total=math.ceil(len(images) / batch_size),
        leave=False,
        disable=None if progress else True,
    )
    found, extents = {key: [] for key in guesses}, []
    for number, (x, y) in enumerate(shown):
        crafted = [x]
        if entry is not None:
            crafted, extent = craft(x, y, core.fold(seed, number))
            extents.append(extent.numpy())
        for key, largest in guesses.items():
            found[key].append([largest(z).numpy() for z in crafted])
    top = {key: np.concatenate(parts, axis=1) for key, parts in found.items()}
    found = {
        key: (
            np.logical_or.accumulate(classes == images.y[:, None], axis=-1),
            classes[..., 0],
        )
        for key, classes in top.items()
    }
    if entry is None:
        return found, None
    norm, pixels = suite.norm_of(entry.attack), math.prod(images.x.shape[1:])
    by_size = np.moveaxis(extents, 1, 0)
    return found, [
        audited(extent, e, norm, pixels) for e, extent in zip(eps, by_size, strict=True)
    ]


def _extent(x_adv, x):
    """How far x_adv is from x, and what is in it, as `audited` takes it, [5]."""
    finite = tf.reduce_all(tf.math.is_finite(x_adv), axis=norms.AXES)
    z = tf.where(finite[:, None, None, None], x_adv, x)
    return tf.stack(
        [
            tf.reduce_max(tf.abs(z - x)),
            tf.reduce_max(norms.size(z - x, "l2")),
            tf.reduce_min(z),
            tf.reduce_max(z),
            tf.reduce_sum(tf.cast(tf.logical_not(finite), z.dtype)),
        ]
    )


def audited(extents, eps, norm, pixels):
    """Whether what an attack has made is what it may make.

    Args:
        extents: [batches, 5]: the largest l-inf and l2 distance from the clean image,
            the smallest and the largest pixel, and how many images hold a value that is
            not finite; in the others these count as their clean images.
        eps: number, the size that is allowed.
        norm: `"linf"` or `"l2"`, of which eps is the size.
        pixels: int, values of an image, whose rounding adds up in l2.

    Returns:
        dict `linf`, `l2`, `least`, `most`, `not_finite`, `norm`, and `within`, whether
        the distance in `norm` is at most eps, all pixels are in [0, 1] and all values
        are finite. A distance may be longer by `TOLERANCE` of eps and by rounding.
    """
    linf, l2, least, most, bad = np.asarray(extents, np.float64).T
    found = {
        "linf": float(linf.max()),
        "l2": float(l2.max()),
        "least": float(least.min()),
        "most": float(most.max()),
        "not_finite": int(bad.sum()),
        "norm": norm,
    }
    allowed = eps * (1 + TOLERANCE) + ULP * (1 if norm == "linf" else pixels**0.5)
    inside = found["least"] >= 0 and found["most"] <= 1 and not found["not_finite"]
    return found | {"within": found[norm] <= allowed and inside}


def _batch_spec(images):
    return (
        tf.TensorSpec((None, *images.x.shape[1:]), tf.float32),
        tf.TensorSpec([None], tf.int32),
    )


def in_words(row):
    """A row for the log: its attack, eps and accuracy; one-off, top-5 if known."""
    more = "".join(
        f", {name} {100 * row[key]:.1f} %"
        for key, name in (("one_off", "one-off"), ("top5", "top-5"))
        if key in row
    )
    accuracy = f"{100 * row['accuracy']:.2f} %"
    return f"{row['attack']}, eps {format_eps(row['eps'])}: {accuracy}{more}"


def format_eps(eps):
    """An eps as people write it: `8/255`, `0.4`, or `8/256` for long decimals."""
    decimals = f"{eps:g}"
    if decimals.startswith("0.") and len(decimals) == 3:
        return decimals
    for unit in (255, 256) if len(decimals) > 6 else (255,):
        whole = round(eps * unit)
        if whole and abs(eps * unit - whole) < 1e-3:
            return f"{whole}/{unit}"
    return decimals
