"""Charts as SVG: text stays text, colours are those of the page's style sheet."""

import itertools
import math

from tfadv.report.html.markup import join, tag

# In units of the SVG; a phone shows one unit as a little less than one pixel.
WIDTH, HEIGHT = 420, 280
RIGHT, TOP, BOTTOM = 16, 14, 48
LETTER = 8.0
COLORS = 8
MARKERS = ("circle", "square", "triangle", "diamond", "cross")


def lines(found, *, title, x_label, y_label, x_ticks=None, y_range=None):
    """A figure: its caption, lines with bands, and a legend below.

    Args:
        found: list of dicts `label`, `x`, `y`, and optionally `low`, `high` (lists, or
            None where there is no band) and `control`, whether to draw it grey and
            broken. A line of more than 40 points has no markers.
        title: of the figure.
        x_label, y_label: text.
        x_ticks: list of (x, text); those without room stay without text. None for
            round numbers.
        y_range: (least, most), or None for what the lines take.

    Returns:
        `Markup`, empty where no line has a point.
    """
    found = [_clean(line) for line in found]
    found = [line for line in found if line["x"]]
    if not found:
        return join()
    xs = [x for line in found for x in line["x"]]
    ys = [y for line in found for k in ("y", "low", "high") for y in line[k] or ()]
    x_ticks = x_ticks or [(x, number(x)) for x in round_ticks(min(xs), max(xs), 5)]
    y_ticks = round_ticks(*(y_range or (min(ys), max(ys))), 5, around=True)
    left = LETTER * max(len(number(y)) for y in y_ticks) + 12
    to_x = _scale(*_ends(xs + [x for x, _ in x_ticks]), left + 4, WIDTH - RIGHT - 4)
    to_y = _scale(*_ends(list(y_range or ys) + y_ticks), HEIGHT - BOTTOM, TOP)
    looks = [_look(number, i) for i, number in enumerate(_numbers(found))]
    looking = list(zip(found, looks, strict=True))
    drawing = tag(
        "svg",
        tag("title", title),
        tag("desc", _in_words(found, x_label, y_label)),
        _grid(x_ticks, y_ticks, to_x, to_y, x_label, left),
        [_band(line, look, to_x, to_y) for line, look in looking],
        [_line(line, look, to_x, to_y) for line, look in looking],
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        class_="chart",
    )
    legend = [
        tag("li", _swatch(look), line["label"], " (control)" * line["control"])
        for line, look in looking
    ]
    return tag(
        "figure",
        tag("figcaption", tag("strong", title), tag("span", y_label)),
        drawing,
        tag("ul", legend, class_="legend"),
    )


def round_ticks(low, high, count, *, around=False):
    """About `count` round numbers within [low, high], or `around` it."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * k for k in (1, 2, 5, 10) if unit * k >= 0.999 * rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    if around:
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    # Rounded, for 3 * 0.1 is not 0.3.
    return [float(f"{k * step:.10g}") for k in range(first, last + 1)]


def number(value):
    """`20,000`, `0.05`."""
    return f"{value:,.10g}"


def _clean(line):
    """A line with all keys and without points that are no numbers."""
    low, high = line.get("low"), line.get("high")
    if low is None or any(v is None for v in (*low, *high)):
        low = high = None
    keep = [
        i
        for i, point in enumerate(zip(line["x"], line["y"], strict=True))
        if all(v is not None and math.isfinite(v) for v in point)
    ]

    def pick(values):
        return values and [values[i] for i in keep]

    return {
        "label": str(line["label"]),
        "control": bool(line.get("control")),
        "x": pick(list(line["x"])),
        "y": pick(list(line["y"])),
        "low": pick(low and list(low)),
        "high": pick(high and list(high)),
    }


def _ends(values):
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _scale(low, high, start, stop):
    return lambda v: start + (v - low) / (high - low) * (stop - start)


def _numbers(found):
    """Of each line its number among those that are no controls; None for these."""
    counter = itertools.count()
    return [None if line["control"] else next(counter) for line in found]


def _look(number, place):
    """(class, marker) of a line; None is a control's number."""
    if number is None:
        return "control", MARKERS[place % len(MARKERS)]
    broken = " broken" * (number // COLORS % 2)
    return f"c{number % COLORS}{broken}", MARKERS[number % len(MARKERS)]


def _grid(x_ticks, y_ticks, to_x, to_y, x_label, left):
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for y in y_ticks:
        at = f"{to_y(y):.1f}"
        parts.append(tag("line", x1=left, x2=right, y1=at, y2=at, class_="grid"))
        label = {"x": left - 7, "y": f"{to_y(y) + 4.5:.1f}", "text_anchor": "end"}
        parts.append(tag("text", number(y), **label))
    taken = -math.inf
    for x, text in sorted(x_ticks):
        at, half = to_x(x), LETTER * len(text) / 2
        end = {"x1": f"{at:.1f}", "x2": f"{at:.1f}", "y1": bottom, "y2": bottom + 5}
        parts.append(tag("line", **end, class_="axis"))
        # A label stays inside the picture, and off the last one.
        middle = min(max(at, half), WIDTH - half)
        if middle - half > taken + 4:
            taken = middle + half
            place = {"x": f"{middle:.1f}", "y": bottom + 20, "text_anchor": "middle"}
            parts.append(tag("text", text, **place))
    parts.append(tag("line", x1=left, x2=right, y1=bottom, y2=bottom, class_="axis"))
    middle = {"x": (left + right) / 2, "y": HEIGHT - 6, "text_anchor": "middle"}
    return [*parts, tag("text", x_label, **middle, class_="name")]


def _points(xs, ys, to_x, to_y):
    return [f"{to_x(x):.1f},{to_y(y):.1f}" for x, y in zip(xs, ys, strict=True)]


def _band(line, look, to_x, to_y):
    if not line["low"]:
        return None
    there = _points(line["x"], line["high"], to_x, to_y)
    back = _points(line["x"], line["low"], to_x, to_y)[::-1]
    return tag("polygon", points=" ".join(there + back), class_=f"band {look[0]}")


def _line(line, look, to_x, to_y):
    name, marker = look
    points = _points(line["x"], line["y"], to_x, to_y)
    parts = [tag("polyline", points=" ".join(points), class_=f"line {name}")]
    if len(points) <= 40:
        for x, y in zip(line["x"], line["y"], strict=True):
            parts.append(_marker(marker, to_x(x), to_y(y), name))
    return parts


def _marker(kind, x, y, name):
    name = f"dot {name}"
    if kind == "circle":
        return tag("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=3.6, class_=name)
    ways = {
        "square": "m-3.3,-3.3h6.6v6.6h-6.6z",
        "triangle": "m0,-4.4l4.2,7.4h-8.4z",
        "diamond": "m0,-4.8l4.4,4.8l-4.4,4.8l-4.4,-4.8z",
        "cross": "m-3.4,-1.2h2.2v-2.2h2.4v2.2h2.2v2.4h-2.2v2.2h-2.4v-2.2h-2.2z",
    }
    return tag("path", d=f"M{x:.1f},{y:.1f}{ways[kind]}", class_=name)


def _swatch(look):
    name, marker = look
    return tag(
        "svg",
        tag("line", x1=0, x2=28, y1=8, y2=8, class_=f"line {name}"),
        _marker(marker, 14, 8, name),
        viewBox="0 0 28 16",
        class_="swatch",
        aria_hidden="true",
    )


def _in_words(found, x_label, y_label):
    """For those who cannot see it: where every line begins and ends."""
    texts = [
        f"{line['label']}: {line['y'][0]:.4g} at {line['x'][0]:.4g}, "
        f"{line['y'][-1]:.4g} at {line['x'][-1]:.4g}"
        for line in found
    ]
    return f"{y_label}, against {x_label}. {'; '.join(texts)}."
