"""What the figure of a table shows: lines through its cells."""

from tfadv.evaluation import format_eps
from tfadv.report.table import steps_text
from tfadv.reproduction import outcome, tables


def of(made):
    """The figure of a table, as far as the table is measured.

    Args:
        made: of `outcome.compose`, of a table with a figure.

    Returns:
        dict, what `report.table_plots.lines` draws.
    """
    figure = made["figure"]
    metric = figure["metric"]
    cells = [c for c in made["cells"] if c.get("metric", "accuracy") == metric]
    by_number = figure["x"] == "at"
    return {
        "title": outcome.heading(made),
        "x_label": figure["label"] if by_number else "eps in pixels of 255",
        "y_label": f"{tables.in_words(metric)} in %",
        "ordered": by_number,
        "band": _band(cells),
        "reference": 100 if metric in tables.RATIO else None,
        "panels": (_against_numbers if by_number else _against_eps)(cells, figure),
    }


def _against_eps(cells, figure):
    """Panels of a row each, up to three side by side."""
    panels = []
    for name in _distinct(cell["row"] for cell in cells):
        own = [cell for cell in cells if cell["row"] == name]
        clean = [(0.0, cell) for cell in own if cell["attack"] in tables.CLEAN]
        lines = []
        for column in _columns(own):
            points = [(255 * c["eps"], c) for c in own if _column(c) == column]
            line = _line(clean + points, _text(*column, figure))
            lines.append(line | {"control": column[0] in figure["controls"]})
        panels.append({"title": f"{name}\n{_steps(own)}", "lines": lines})
    return [panels[i : i + 3] for i in range(0, len(panels), 3)]


def _against_numbers(cells, figure):
    """Panels of a column each, below each other, for all groups side by side."""
    groups = _distinct(figure["group"][cell["row"]] for cell in cells)
    grid = []
    for column in _columns(cells):
        grid.append([])
        for group in groups:
            own = [
                cell
                for cell in cells
                if _column(cell) == column and figure["group"][cell["row"]] == group
            ]
            lines = []
            for eps in sorted({cell["eps"] for cell in own}):
                points = [(figure["at"][c["row"]], c) for c in own if c["eps"] == eps]
                line = _line(points, f"eps {format_eps(eps)}")
                lines.append(line | {"control": False})
            about = f"{_text(*column, figure)}, {_steps(own)}" if own else "no rows"
            title = f"{group}\n{about}" if group else about
            grid[-1].append({"title": title, "lines": lines})
    return grid


def _distinct(values):
    return list(dict.fromkeys(values))


def _column(cell):
    return cell["attack"], cell["source"]


def _columns(cells):
    """All (attack, source) of attacked cells."""
    return _distinct(_column(c) for c in cells if c["attack"] not in tables.CLEAN)


def _text(attack, source, figure):
    """A column without what it counts, which the axis says."""
    name = tables.heading(attack, figure["metric"], black_box=bool(source))
    if figure["metric"] != "accuracy":
        name = name.removeprefix(f"{tables.in_words(figure['metric'])} ")
    return f"{name} from {source}" if source else name


def _steps(cells):
    """How long the models of these cells were trained, or are to be."""
    texts = _distinct(steps_text(cell["steps"], cell["steps_of"]) for cell in cells)
    return texts[0] if len(texts) == 1 else "different steps"


def _line(points, label):
    """A line through what is measured of (x, cell)s."""
    found = [(x, cell) for x, cell in points if cell["measured"] is not None]
    found.sort(key=lambda point: point[0])
    bounds = [_bounds(cell) for _, cell in found]
    return {
        "label": label,
        "x": [x for x, _ in found],
        "y": [cell["measured"] for _, cell in found],
        "low": [low for low, _ in bounds],
        "high": [high for _, high in bounds],
    }


def _bounds(cell):
    if cell["ci95"] is not None:
        return cell["ci95"]
    sd = cell.get("measured_sd")
    return [None, None] if sd is None else [cell["measured"] + k * sd for k in (-1, 1)]


def _band(cells):
    """What the bands around lines are, or empty where there are none."""
    if any(cell["ci95"] is not None for cell in cells):
        return "band: 95 % Wilson interval"
    for several, key in (("seeds", "seed"), ("folds", "folds")):
        if any(isinstance(c.get(key), list) and c.get("measured_sd") for c in cells):
            return f"band: one standard deviation over {several} to each side"
    return ""
