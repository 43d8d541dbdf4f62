"""Label leaking: images made with the true label may tell it to the model.

A model that was trained on images of a one-step attack with the true label learns to
recognise what the attack did, and so the label. It then does better on such images than
on clean ones, which says nothing about its robustness.

Source: Kurakin et al. 2017, section 4.2 and table 3.
"""

from tfadv import attacks
from tfadv.evaluation.whitebox import format_eps, guess, hits

# One-step attacks that use the true label unless told otherwise, step_both for half of
# the images.
WITH_LABEL = ("step_fgsm", "step_both", "fast_grad_l2", "fast_grad_linf", "r_fgsm")
# What to believe instead.
WITHOUT_LABEL = "step_ll"


def leaked(with_label, without_label):
    """How many labels the attack tells the model.

        sum_i [right on i made with its label] * [wrong on i made without it]

    Args:
        with_label, without_label: [n] bool, whether the model is right on the images
            of an attack that uses the true label, and of one that does not (such as
            `fgsm_pred` or `step_ll`).

    Returns:
        int.

    Raises:
        ValueError: not two lists of one length.

    Source: Kurakin et al. 2017, section 4.2.
    """
    if with_label.ndim != 1 or with_label.shape != without_label.shape:
        raise ValueError(
            "`with_label` and `without_label` must be two lists of one length, of the "
            f"same images; received the shapes {with_label.shape} and "
            f"{without_label.shape}"
        )
    return int((with_label & ~without_label).sum())


def measure(
    predict,
    images,
    with_label,
    without_label,
    eps,
    *,
    batch_size,
    seed=0,
    progress=True,
):
    """Counts leaked labels at every eps.

    Args:
        predict: x -> logits, in inference mode.
        images: `Images` as the model takes them.
        with_label: `suite.Entry` of an attack that uses the true label.
        without_label: `suite.Entry` of one that does not.
        eps: numbers, in the units of x.
        batch_size: int.
        seed: int, of random attacks.
        progress: whether to show a bar (on a terminal).

    Returns:
        list of dicts, one an eps: `eps`, `n`; the accuracies `clean`, `with_label` and
        `without_label`; the counts `leaked` and `gained`. The latter are the images
        that are wrong when clean and right after `with_label`.

    Source: Kurakin et al. 2017, section 4.2, but for `gained`.
    """
    guesses = {None: guess(predict, images)}

    def right(entry, sizes):
        found = hits(
            *(predict, guesses, images, entry, sizes),
            batch_size=batch_size,
            seed=seed,
            progress=progress,
        )
        return found[None][0][..., 0]

    (clean,) = right(None, [0.0])
    both = zip(eps, right(with_label, eps), right(without_label, eps), strict=True)
    return [
        {
            "eps": float(size),
            "n": len(images),
            "clean": float(clean.mean()),
            "with_label": float(informed.mean()),
            "without_label": float(blind.mean()),
            "leaked": leaked(informed, blind),
            "gained": leaked(informed, clean),
        }
        for size, informed, blind in both
    ]


def uses_label(label):
    """Whether the attack of a row is a one-step attack that uses the true label.

    Args:
        label: of the attack, as in `suite.Entry`.
    """
    name, _, arguments = label.partition("(")
    if "label=" in arguments:
        return name in attacks.ONE_STEP and "label=true" in arguments
    return name in WITH_LABEL and "loss=entropy" not in arguments


def verdicts(rows):
    """Sentences on every eps at which an attack with true labels helps the model.

    That is where its accuracy is above that of the clean images, with disjoint
    intervals. A few labels may leak without it: Goodfellow's model of MNIST leaks 79 of
    10,000 and does worse under attack all the same, so silence does not mean that
    nothing leaks; `measure` counts.

    Args:
        rows: of `evaluation.measure`, of one model.

    Returns:
        list of str; empty where no such attack helps, or nothing clean was measured.

    Source: Kurakin et al. 2017, section 4.2 and table 3.
    """
    cells = {(row["attack"], row["eps"]): row for row in rows}
    clean = cells.get(("clean", 0.0))
    if clean is None:
        return []
    found = []
    for eps in sorted({row["eps"] for row in rows}):
        helpful = [
            row
            for row in rows
            if row["eps"] == eps
            and uses_label(row["attack"])
            and row["ci95"][0] > clean["ci95"][1]
        ]
        if not helpful:
            continue
        most = max(helpful, key=lambda row: row["accuracy"])
        other = cells.get((WITHOUT_LABEL, eps))
        contrast = f"; {WITHOUT_LABEL} leaves {_percent(other)}" if other else ""
        found.append(
            f"At eps {format_eps(eps)} {most['attack']} leaves {_percent(most)}, more "
            f"than the {_percent(clean)} of clean images{contrast}: label leaking, "
            "the attack uses the true label and the model reads it off the image. Do "
            f"not believe the row {most['attack']}; use {WITHOUT_LABEL}."
        )
    return found


def _percent(row):
    return f"{100 * row['accuracy']:.1f} %"
