"""New figures, and saving them."""

from matplotlib.figure import Figure

from tfadv.files import replacing


def new(width, height):
    """An empty figure of so many inches; not pyplot's: no display, no global state."""
    return Figure(figsize=(width, height), layout="constrained")


def panels(rows, columns, *, width=3.1, height=2.5, below=1.3):
    """(figure, [rows, columns] axes) with shared axes, room for a legend below.

    Args:
        width, height: of a panel, in inches.
        below: height of all that is no panel.
    """
    figure = new(max(4.4, width * columns + 0.7), height * rows + below)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes in grid.ravel():
        axes.grid(alpha=0.3)
        axes.tick_params(labelsize=8)
    return figure, grid


def save(figure, path):
    """Writes a PNG file, replaced."""
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)
