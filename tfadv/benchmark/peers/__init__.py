"""The same attacks by tfadv, by a bare loop and by other libraries, side by side.

Other libraries are no dependencies: who is importable is measured. An adapter is a
module of this package with `NAME`, `MODULE` (what is imported), `DISTRIBUTION` (what
pip calls it) and `crafters(model, *, eps, step_size, steps)`: a dict from `"PGD"` and
`"FGSM"` to a function (x [n, h, w, c], y [n]) -> x_adv, a tensor or an array.
"""

import importlib
import importlib.metadata
import importlib.util

import numpy as np

from tfadv import models
from tfadv.benchmark.timing import CLASSES, IMAGE_SHAPE, medians, random_batch

OWN = "own"
ADAPTERS = (OWN, "bare", "foolbox", "art", "cleverhans")
# Pixels are equal that are this close, and images the same with this share of them.
CLOSE, SHARE = 1e-5, 0.99


def compare(
    *,
    adapters=ADAPTERS,
    batch_size=128,
    eps=8 / 255,
    step_size=2 / 255,
    steps=10,
    rounds=5,
    make_model=models.resnet20,
):
    """Seconds of PGD without a random start and of FGSM, by everybody who is here.

    All attack the same network and the same random images, and are timed in turn.
    Nobody's first call counts, which may trace a graph. Times are from tensors to what
    a library returns; judging images beyond that is not in them.

    Args:
        adapters: names of modules of this package. The first one's images and times are
            what the others are compared with.
        batch_size, rounds: int.
        eps, step_size: in the units of x, l-inf.
        steps: int, of PGD.
        make_model: (image shape, classes) -> `keras.Model`.

    Returns:
        dict with what was asked for and `rows`, dicts with `library` and either
        `missing` or `failed`, in words; or `version`, `attack`, `seconds` (median),
        `ratio` to the first adapter's seconds, `equal` (share of the pixels within
        `CLOSE` of the first adapter's), `apart` (the largest distance) and `same`.

    Raises:
        RuntimeError: the first adapter is missing or fails.
    """
    model = make_model(IMAGE_SHAPE, CLASSES)
    batch = random_batch(batch_size)
    settings = {"eps": eps, "step_size": step_size, "steps": steps}
    found, rows, crafted = {}, [], {}
    for name in adapters:
        adapter = importlib.import_module(f"{__name__}.{name}")
        if importlib.util.find_spec(adapter.MODULE) is None:
            rows.append({"library": adapter.NAME, "missing": _how_to(adapter)})
            continue
        try:
            runs = adapter.crafters(model, **settings)
            images = {attack: np.asarray(run(*batch)) for attack, run in runs.items()}
        except Exception as error:  # Whatever it is, the others are measured.
            rows.append({"library": adapter.NAME, "failed": _why(error)})
            continue
        found[name], crafted[name] = (adapter, runs), images
    first = adapters[0]
    if first not in found:
        raise RuntimeError(
            f"the adapter {first!r}, with which the others are compared, did not run: "
            f"{rows[0].get('failed') or rows[0].get('missing')}"
        )
    for attack in crafted[first]:
        candidates = {
            name: lambda run=runs[attack]: np.asarray(run(*batch))
            for name, (_, runs) in found.items()
        }
        seconds = medians(candidates, rounds)
        for name, (adapter, _) in found.items():
            rows.append(
                {
                    "library": adapter.NAME,
                    "version": _version(adapter),
                    "attack": f"PGD-{steps}" if attack == "PGD" else attack,
                    "seconds": seconds[name],
                    "ratio": seconds[name] / seconds[first],
                    **agreement(crafted[name][attack], crafted[first][attack]),
                }
            )
    return {"batch_size": batch_size, **settings, "rounds": rounds, "rows": rows}


def agreement(images, reference):
    """Whether two libraries made the same images.

    Args:
        images, reference: [n, h, w, c] arrays.

    Returns:
        dict `equal`, `apart` and `same`, as in `compare`. Of another shape, or with
        values that are not finite, nothing is equal.
    """
    images = np.asarray(images, np.float64)
    if images.shape != reference.shape or not np.isfinite(images).all():
        return {"equal": 0.0, "apart": None, "same": False}
    distance = np.abs(images - reference)
    equal = float((distance <= CLOSE).mean())
    return {"equal": equal, "apart": float(distance.max()), "same": equal >= SHARE}


def text(found):
    """The result of `compare` as lines to print."""
    lines = [
        f"l-inf {found['eps'] * 255:g}/255, step {found['step_size'] * 255:g}/255, "
        f"{found['batch_size']} images, medians of {found['rounds']} rounds"
    ]
    for row in found["rows"]:
        if "attack" not in row:
            why = row.get("missing") or f"failed: {row['failed']}"
            lines.append(f"{row['library']:<32}{why}")
            continue
        name = f"{row['library']} {row['version']}".strip()
        lines.append(
            f"{row['attack']:<8}{name:<40}{1000 * row['seconds']:10.1f} ms"
            f"{row['ratio']:8.2f}  {_in_words(row)}"
        )
    return lines


def _in_words(row):
    if row["same"]:
        return "same images"
    apart = "" if row["apart"] is None else f", at most {row['apart']:.2g} apart"
    return f"OTHER images: {100 * row['equal']:.1f} % of the pixels equal{apart}"


def _how_to(adapter):
    return f"not installed (pip install {adapter.DISTRIBUTION})"


def _why(error):
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


def _version(adapter):
    try:
        return importlib.metadata.version(adapter.DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return ""
