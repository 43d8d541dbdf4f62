"""Pictures of tables: lines in panels, as `reproduction.curves` finds them."""

import math
import textwrap

import matplotlib
import numpy as np
from matplotlib.lines import Line2D

from tfadv.report import figure as figures

# Beside the colours, so that lines are told apart without them.
MARKERS = "os^Dv*P<X>p"
BROKEN = ("--", ":", "-.")


def lines(found, path):
    """Panels that share their axes; lines of one label look the same in all.

    Lines that have an order take colours from dark to light, others those of other
    pictures; controls are grey and broken.

    Args:
        found: dict with `title`, `x_label`, `y_label`; `ordered`, whether the labels of
            the lines have an order; `band`, what the bands around lines are, or empty;
            `reference`, a y that gets a dotted line, or None; `panels`, lists of panels
            side by side. A panel is a dict with `title` and `lines`, a line one with
            `label`, `control` and the lists `x`, `y`, `low` and `high`, the last two
            with None where there is no band. A line without points is only named.
        path: PNG file, replaced.
    """
    panels = [panel for side_by_side in found["panels"] for panel in side_by_side]
    every = {line["label"]: line["control"] for p in panels for line in p["lines"]}
    controls = [label for label, control in every.items() if control]
    looks = _looks(list(every), controls, found["ordered"])
    rows, columns = len(found["panels"]), len(found["panels"][0])
    ncols = min(4, len(looks))
    figure, grid = figures.panels(
        *(rows, columns),
        width=3.1 if columns > 1 else 5.7,
        height=2.5 if rows > 1 else 3.4,
        below=1.0 + 0.2 * math.ceil(len(looks) / ncols),
    )
    top = 100.0
    for axes, side_by_side in zip(grid, found["panels"], strict=True):
        for one, panel in zip(axes, side_by_side, strict=False):
            for line in panel["lines"]:
                _draw(one, line, looks[line["label"]])
                top = max([top, *line["y"]])
            if found["reference"] is not None:
                one.axhline(found["reference"], color="0.6", linestyle=":")
            titles = panel["title"].splitlines()
            width = 42 if columns > 1 else 60
            one.set_title(
                "\n".join(textwrap.fill(text, width) for text in titles), fontsize=9
            )
            one.set_xlabel(found["x_label"], fontsize=9)
            one.tick_params(labelbottom=True)
        for one in axes[len(side_by_side) :]:
            one.remove()
        axes[0].set_ylabel(found["y_label"], fontsize=9)
    grid[0, 0].set_ylim(-2, 1.02 * top)
    figure.legend(
        handles=[Line2D([], [], **look) for look in looks.values()],
        loc="outside lower center",
        ncols=ncols,
        fontsize=8,
        title=found["band"] or None,
        title_fontsize=8,
    )
    letters = int(figure.get_figwidth() * 11)
    figure.suptitle(textwrap.fill(found["title"], letters), fontsize=10)
    figures.save(figure, path)


def _looks(labels, controls, ordered):
    """How the lines of each label are drawn."""
    plain = [label for label in labels if label not in controls]
    if ordered:
        # Not up to yellow, which is hard to see on white.
        colors = matplotlib.colormaps["viridis"](np.linspace(0, 0.8, len(plain)))
    else:
        colors = [matplotlib.colormaps["tab10"](i % 10) for i in range(len(plain))]
    looks = {}
    for i, label in enumerate(labels):
        broken = label in controls
        looks[label] = {
            "label": f"{label} (control)" if broken else label,
            "color": "0.4" if broken else colors[plain.index(label)],
            "linestyle": BROKEN[controls.index(label) % 3] if broken else "-",
            "marker": MARKERS[i % len(MARKERS)],
            "markersize": 4.5,
        }
    return looks


def _draw(axes, line, look):
    axes.plot(line["x"], line["y"], **look)
    low, high = (np.array(line[key], np.float64) for key in ("low", "high"))
    if np.isfinite(low).any():
        axes.fill_between(
            line["x"], low, high, color=look["color"], alpha=0.15, linewidth=0
        )
