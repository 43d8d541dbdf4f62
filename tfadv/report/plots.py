"""Pictures of a result: accuracy against eps, and examples."""

import matplotlib
import numpy as np

from tfadv import attacks
from tfadv.evaluation import format_eps
from tfadv.files import replacing


def _figure(width, height):
    from matplotlib.figure import Figure

    # Not pyplot: no display, no global state.
    return Figure(figsize=(width, height), layout="constrained")


def curves(rows, path, *, title=""):
    """Accuracy against eps, one line an attack, random noise dashed as a control.

    Args:
        rows: of `evaluation.measure`.
        path: PNG file, replaced.
        title: text above.
    """
    clean = next(row for row in rows if row["attack"] == "clean")
    labels = dict.fromkeys(row["attack"] for row in rows if row is not clean)
    figure = _figure(6.4, 4.4)
    axes = figure.subplots()
    for number, label in enumerate(labels):
        line = [clean] + sorted(
            (row for row in rows if row["attack"] == label), key=lambda r: r["eps"]
        )
        eps = [row["eps"] for row in line]
        noise = label.partition("(")[0] in attacks.NOISE
        color = "0.4" if noise else matplotlib.colormaps["tab10"](number % 10)
        axes.plot(
            eps,
            [100 * row["accuracy"] for row in line],
            label=f"{label} (control)" if noise else label,
            color=color,
            linestyle="--" if noise else "-",
            marker="o",
            markersize=3.5,
        )
        low, high = np.transpose([row["ci95"] for row in line]) * 100
        axes.fill_between(eps, low, high, color=color, alpha=0.15, linewidth=0)
    ticks = sorted({row["eps"] for row in rows})
    axes.set_xticks(ticks, [format_eps(eps) for eps in ticks])
    axes.set(xlabel="eps (of pixels in [0, 1])", ylabel="accuracy in %")
    axes.set_ylim(-2, 102)
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    _save(figure, path)


def examples(x, x_adv, y, predicted, predicted_adv, path, *, title=""):
    """Clean images, adversarial ones and their difference, with predicted labels.

    The difference is drawn around mid-grey, amplified so that its largest value just
    becomes white or black; the picture says by how much.

    Args:
        x, x_adv: [n, h, w, c] in [0, 1].
        y, predicted, predicted_adv: [n] labels: true, and predicted for both.
        path: PNG file, replaced.
        title: text above.
    """
    n = len(x)
    amplify = 0.5 / max(float(np.max(np.abs(x_adv - x))), 1e-3)
    difference = np.clip(0.5 + amplify * (x_adv - x), 0, 1)
    figure = _figure(1.15 * n + 0.9, 4.3)
    grid = figure.subplots(3, n, squeeze=False)
    names = ("clean", "adversarial", f"difference x {amplify:.3g}")
    texts = (
        [f"predicted {p}" for p in predicted],
        [f"predicted {p}" for p in predicted_adv],
        [f"true {t}" for t in y],
    )
    wrong = (predicted != y, predicted_adv != y, np.zeros(n, bool))
    for i, images in enumerate((x, x_adv, difference)):
        for j, axes in enumerate(grid[i]):
            axes.imshow(np.squeeze(images[j]), cmap="gray", vmin=0, vmax=1)
            axes.set_xticks([])
            axes.set_yticks([])
            color = "tab:red" if wrong[i][j] else "black"
            axes.set_xlabel(texts[i][j], fontsize=8, color=color)
        grid[i][0].set_ylabel(names[i], fontsize=9)
    figure.suptitle(title, fontsize=10)
    _save(figure, path)


def _save(figure, path):
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)
