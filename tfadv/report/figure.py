"""New figures, and saving them."""

from matplotlib.figure import Figure

from tfadv.files import replacing


def new(width, height):
    """An empty figure of so many inches; not pyplot's: no display, no global state."""
    return Figure(figsize=(width, height), layout="constrained")


def save(figure, path):
    """Writes a PNG file, replaced."""
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)
