"""What an evaluation costs, and what sharing, dropping and cheaper twins save of it."""

import keras
import numpy as np
import tensorflow as tf

from tfadv import attacks, data, folding, models, searching
from tfadv.benchmark.timing import (
    CLASSES,
    IMAGE_SHAPE,
    medians,
    random_batch,
)
from tfadv.data import Images
from tfadv.defenses import AdversarialTraining, Standard
from tfadv.evaluation import suite, whitebox

# Of Na et al. 2018, Table 2.
TABLE_ATTACKS = ("step_ll", "step_fgsm", "iter_ll", "iter_fgsm")
TABLE_EPS = tuple(pixels / 255 for pixels in (2, 4, 8, 16))
# Of the attacks on digits, whose strokes are wide and full of contrast.
EPS = 48 / 255


def table_block(count=128, rounds=3, make_model=models.resnet20):
    """Seconds of a table's 4 attacks x 4 eps: in one `measure`, cell by cell.

    In gradients, without the forward passes that count: 1 for all eps of a one-step
    attack in place of 4; of an iterated one 23 (16 on the path that all share, then
    0 + 1 + 2 + 4 of their own) in place of 37. Together 48 in place of 82, and with a
    forward pass as half of a gradient, of the 16 measurements and of the labels of
    iter_ll, 56.5 in place of 92: a ratio of 1.63. Whatever is more is in graphs that
    are traced once in place of four times.
    """
    images = _random_images(count)
    model = make_model(IMAGE_SHAPE, CLASSES)
    entries = _entries(TABLE_ATTACKS, max(TABLE_EPS))

    def predict(x):
        return model(x, training=False)

    def measured(some, sizes):
        return whitebox.measure(
            predict, images, some, sizes, batch_size=128, clean=False, progress=False
        )

    def together():
        return measured(entries, TABLE_EPS)

    def alone():
        return [
            measured([one], [size])[0]["accuracy"]
            for one in entries
            for size in TABLE_EPS
        ]

    return medians(
        {"4 attacks x 4 eps together": together, "... one by one": alone}, rounds
    )


def dropping(model, images, rounds=3, eps=EPS):
    """Seconds of six attacks at one eps with `drop_broken` and without.

    The first is PGD, after which little is left of a model that was not defended. In
    gradients they are, at `EPS`, 10 + 10 + 10 + 1 + 1 + 52 = 84 an image.

    Args:
        model: `keras.Model`, of the images.
        images: `Images`.
        rounds: int.
        eps: in the units of x.
    """
    names = ("pgd", "mi_fgsm", "ifgsm", "step_fgsm", "step_ll", "iter_fgsm")
    entries = _entries(names, eps)

    def predict(x):
        return model(x, training=False)

    def run(drop_broken):
        return lambda: whitebox.measure(
            predict,
            images,
            entries,
            [eps],
            batch_size=128,
            progress=False,
            drop_broken=drop_broken,
        )

    return medians({"all images": run(False), "drop_broken": run(True)}, rounds)


def twins(batch_size=128, rounds=5, steps=10, make_model=models.resnet20):
    """Seconds of PGD crafted on a network, on it folded and on it in bfloat16."""
    x, y = random_batch(batch_size)
    model = make_model(IMAGE_SHAPE, CLASSES)
    attack = attacks.PGD(eps=8 / 255, steps=steps, random_start=False)
    folded = folding.folded(model)
    seen = {
        "exact": lambda z: model(z, training=False),
        "folded": lambda z: folded(z, training=False),
        "bfloat16": searching.in_bfloat16(model),
    }
    runs = {name: tf.function(lambda p=p: attack(p, x, y)) for name, p in seen.items()}
    named = {
        f"PGD-{steps}, {name}": lambda run=run: run().numpy()
        for name, run in runs.items()
    }
    return medians(named, rounds)


def search_in_bfloat16(model, images, rounds=3, eps=EPS, steps=20):
    """Seconds and accuracies of PGD in float32, and of a search in bfloat16 before it.

    Args:
        model, images, rounds, eps: as in `dropping`.
        steps: of PGD without a random start.

    Returns:
        (seconds, accuracies): dicts with the same two names.
    """
    attack = attacks.PGD(eps=eps, steps=steps, random_start=False)
    entry = suite.Entry("pgd", "pgd", attack)
    twin = searching.in_bfloat16(model)
    both = searching.first_on(twin, [entry], "bfloat16")
    accuracies = {}

    def run(name, entries):
        def measured():
            rows = whitebox.measure(
                lambda x: model(x, training=False),
                images,
                entries,
                [eps],
                batch_size=128,
                progress=False,
                drop_broken=True,
            )
            accuracies[name] = {
                row["attack"]: row["accuracy"]
                for row in rows
                if row["attack"] != whitebox.WORST_CASE
            }

        return measured

    names = {"float32": [entry], "bfloat16, then float32": both}
    seconds = medians({name: run(name, some) for name, some in names.items()}, rounds)
    return seconds, accuracies


def report(rounds=3):
    """All measurements of this module.

    Returns:
        dict with the median seconds, the ratios and `accuracies`, by model, and `text`
        lines to print.
    """
    block, crafted = table_block(rounds=rounds), twins(rounds=rounds)
    together, alone = block.values()
    exact, folded, half = crafted.values()
    seconds = {**block, **crafted}
    ratios = {
        "16 cells of a table one by one / together": alone / together,
        "PGD-10 crafted folded / exact": folded / exact,
        "PGD-10 crafted in bfloat16 / exact": half / exact,
    }
    accuracies = {}
    for name, defended in (("undefended", False), ("defended", True)):
        model, images = trained(defended)
        dropped = dropping(model, images, rounds)
        searched, accuracies[name] = search_in_bfloat16(model, images, rounds)
        (every, some), (plain, twice) = dropped.values(), searched.values()
        for what, value in (dropped | searched).items():
            seconds[f"{name}: {what}"] = value
        ratios[f"{name}: all images / drop_broken"] = every / some
        ratios[f"{name}: float32 / bfloat16, then float32"] = plain / twice
    text = [f"{name:<46}{1000 * value:10.1f} ms" for name, value in seconds.items()]
    text += [f"{name:<46}{value:10.2f}" for name, value in ratios.items()]
    text += [
        f"{name + ', ' + how:<46}{attack}: {100 * accuracy:.1f} %"
        for name, found in accuracies.items()
        for how, rows in found.items()
        for attack, accuracy in rows.items()
    ]
    return {
        "median_seconds": seconds,
        "ratios": ratios,
        "accuracies": accuracies,
        "text": text,
    }


def trained(defended=False, steps=150, batch_size=64, size=28):
    """A small network and the images of the embedded digits, four times as large.

    Args:
        defended: whether to train on PGD images of `EPS` rather than on clean ones.
        steps, batch_size: of the training.
        size: of the sides of an image, which are cut: at most 32.

    Returns:
        (`keras.Model`, 256 `Images` of the test split).
    """
    splits = [_enlarged(data.get("digits").read(s), size) for s in ("train", "test")]
    network = models.small_cnn((size, size, 1), CLASSES, width=16)
    defense = Standard(network)
    if defended:
        attack = attacks.PGD(eps=EPS, steps=5)
        defense = AdversarialTraining(network, attack=attack, alpha=0.5)
    defense.compile(keras.optimizers.Adam(2e-3))
    random = np.random.default_rng(0)
    step = tf.function(lambda x, y: defense.train_step((x, y)))
    for _ in range(steps):
        some = splits[0].take(random.integers(0, len(splits[0]), batch_size))
        x, y = next(whitebox.batches(some, batch_size))
        step(x, y)
    return network, splits[1].take(slice(256))


def _enlarged(images, size):
    """Each pixel four by four, and the middle of that, size x size (32 at most)."""
    x = images.x.repeat(4, axis=1).repeat(4, axis=2)
    cut = max(0, (x.shape[1] - size) // 2)
    x = x[:, cut : cut + size, cut : cut + size]
    return Images(x=x, y=images.y)


def _entries(names, eps):
    return [suite.entry(name, [eps], "the benchmark") for name in names]


def _random_images(count):
    random = np.random.default_rng(0)
    return Images(
        x=random.integers(0, 256, (count, *IMAGE_SHAPE), np.uint8),
        y=random.integers(0, CLASSES, count, np.int32),
    )
