"""Accuracy of classifiers under attacks that were made for another: black box."""

import itertools

from absl import logging

from tfadv.evaluation.whitebox import confused, guess, hits, in_words, row


def measure(
    sources,
    targets,
    images,
    entries,
    eps,
    *,
    batch_size,
    seed=0,
    top_k=1,
    progress=True,
    ordered_classes=None,
    top5=False,
    craft_on=None,
):
    """Accuracy of every target on images that attacks made for every source.

    Each source is attacked once by each attack, whatever the number of targets. A
    target under its own name is attacked in the white box: its rows are those of
    `whitebox.measure` with the same batch size and seed.

    Args:
        sources, targets: dicts from name to predict, x -> logits in inference mode. A
            name stands for one model in both.
        images: `Images` as the models take them.
        entries: `suite.Entry`s, or a dict from the name of a source to its own.
        eps: numbers, in the units of x.
        batch_size: int.
        seed: int, of random attacks.
        top_k: int; an image counts as right where its class is among the `top_k`
            largest logits.
        progress: whether to show bars (on a terminal) and log each row.
        ordered_classes: as `whitebox.measure` takes it; `one_off` and `confusion` are
            of the largest logit, whatever `top_k`.
        top5: whether to tell what top-5 gives as well; of five classes or more.
        craft_on: dict from name of a source to what attacks see of it, x -> logits or
            `core.Judged`; those that are not there are as they are measured.

    Returns:
        list of rows: dicts as `whitebox.row` makes them, with `source` and `target`
        before. First a clean one for each target, whose source is None. The others
        have the `audit` of their images, as `whitebox.audited` makes it, and end in the
        fields `transfer_rate` and `kept` of `transfer_rate`, and with `top5` in
        `top5_transfer_rate` and `top5_kept`, where right means top-5. The error rate
        of Kurakin et al. 2017 (table 6) is 1 - `accuracy` or 1 - `top5`.

    Raises:
        ValueError: a name stands for two models.
    """
    for name in sources.keys() & targets.keys():
        if sources[name] is not targets[name]:
            raise ValueError(
                f"{name!r} names one model in `sources` and another in `targets`: give "
                "each model a name of its own"
            )
    guesses = {
        name: guess(predict, images, max(top_k, 5) if top5 else top_k)
        for name, predict in {**targets, **sources}.items()
    }
    settings = {"batch_size": batch_size, "seed": seed, "progress": progress}
    clean = {
        name: (right[0], guessed[0])
        for name, (right, guessed) in hits(
            None, guesses, images, None, [0.0], **settings
        )[0].items()
    }
    rows = []

    def add(source, target, label, size, right, guessed, **more):
        counted = row(
            *(label, size, right[:, top_k - 1].sum(), len(images)),
            confused(images, guessed, ordered_classes),
            right[:, 4].sum() if top5 else None,
        )
        rows.append({"source": source, "target": target, **counted, **more})
        if progress:
            way = f"{source} -> {target}" if source is not None else target
            logging.info("%s: %s", way, in_words(rows[-1]))

    for target in targets:
        add(None, target, "clean", 0.0, *clean[target])
    seen = {**sources, **(craft_on or {})}
    own = entries if isinstance(entries, dict) else dict.fromkeys(sources, entries)
    for source, entry in ((name, entry) for name in sources for entry in own[name]):
        watched = {name: guesses[name] for name in (source, *targets)}
        found, audits = hits(
            *(seen[source], watched, images, entry, eps),
            **settings,
            desc=f"{source}: ",
        )
        for target, (i, e) in itertools.product(targets, enumerate(eps)):
            right, guessed = (part[i] for part in found[target])
            rates = {"audit": audits[i]}
            for before, k in {"": top_k, **({"top5_": 5} if top5 else {})}.items():
                rate, kept = transfer_rate(
                    *(
                        one[:, k - 1]
                        for one in (clean[source][0], found[source][0][i], right)
                    )
                )
                rates |= {f"{before}transfer_rate": rate, f"{before}kept": kept}
            add(source, target, entry.label, e, right, guessed, **rates)
    return rows


def crosswise(rows):
    """Rows of `measure` by where they stand, for tables and pictures.

    Returns:
        (attacks, sizes, targets, sources): lists of what occurs in attacked rows, in
            their order.
        cells: dict from (attack, eps, target, source) to the row, the clean ones under
            ("clean", 0.0, target, None).
    """
    keys = ("attack", "eps", "target", "source")
    cells = {tuple(row[key] for key in keys): row for row in rows}
    attacked = [place for place in cells if place[-1] is not None]
    return [
        list(dict.fromkeys(values)) for values in zip(*attacked, strict=True)
    ], cells


def transfer_rate(source_clean, source_attacked, target_attacked):
    """How many of the images that fool the source fool the target as well.

    Kept are images that the source classifies correctly when clean and wrongly when
    attacked; the rate is the share of them that the target classifies wrongly when
    attacked. What the target makes of the clean image does not matter.

    Args:
        source_clean, source_attacked, target_attacked: [n] bool, whether the source
            is right on the clean image, and either is on the one made for the source.

    Returns:
        (rate, kept): a fraction, None where nothing is kept, and the number kept.

    Source: Kurakin et al. 2017, section 4.4 and table 4.
    """
    keep = source_clean & ~source_attacked
    kept = int(keep.sum())
    return (float((~target_attacked[keep]).mean()) if kept else None), kept
