import matplotlib
import matplotlib.image
import numpy as np
import pytest

from tfadv.report import table_plots

BLUE, ORANGE, GREY = (31, 119, 180), (255, 127, 14), (102, 102, 102)


def line(label, x, y, half=None, *, control=False):
    low, high = ([v + s * half if half else None for v in y] for s in (-1, 1))
    return {
        **{"label": label, "control": control},
        **{"x": x, "y": y, "low": low, "high": high},
    }


def found(*panels, **changes):
    """A figure of panels side by side, each a list of lines."""
    return {
        "title": "a title",
        "x_label": "eps in pixels of 255",
        "y_label": "accuracy in %",
        "ordered": False,
        "band": "",
        "reference": None,
        "panels": [[{"title": "one\nof 40 steps", "lines": own} for own in panels]],
    } | changes


FGSM = line("fgsm", [0, 4], [90, 30], 5)
PGD = line("pgd", [0, 4], [90, 10])
NOISE = line("noise", [0, 4], [90, 80], control=True)
MORE = line("more noise", [0, 4], [90, 85], control=True)


@pytest.fixture
def drawn(monkeypatch):
    """A function (found) -> the figure that would be saved."""

    def draw_only(one):
        figures = []
        with monkeypatch.context() as patch:
            patch.setattr(
                table_plots.figures, "save", lambda f, path: figures.append(f)
            )
            table_plots.lines(one, "nowhere")
        return figures[0]

    return draw_only


def labels(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def looks(axes):
    return {
        one.get_label(): (
            matplotlib.colors.to_hex(one.get_color()),
            one.get_linestyle(),
            one.get_marker(),
        )
        for one in axes.lines
    }


def test_a_panel_has_its_lines_and_their_bands(drawn):
    figure = drawn(found([FGSM, PGD], band="band: of something"))
    (axes,) = figure.axes
    shown = {
        one.get_label(): (list(one.get_xdata()), list(one.get_ydata()))
        for one in axes.lines
    }
    assert shown == {"fgsm": ([0, 4], [90, 30]), "pgd": ([0, 4], [90, 10])}
    # Only the first has one: 90 +- 5 to 30 +- 5.
    (band,) = axes.collections
    ys = band.get_paths()[0].vertices[:, 1]
    assert (ys.min(), ys.max()) == (25, 95)
    assert axes.get_title() == "one\nof 40 steps"
    assert (axes.get_xlabel(), axes.get_ylabel()) == (
        *("eps in pixels of 255", "accuracy in %"),
    )
    assert labels(figure) == ["fgsm", "pgd"]
    assert figure.legends[0].get_title().get_text() == "band: of something"
    assert figure.get_suptitle() == "a title"


def test_lines_look_the_same_in_all_panels_and_are_all_named(drawn):
    """A label that the first panel lacks, and one that no panel has points for."""
    empty = line("not yet", [], [])
    figure = drawn(found([PGD], [FGSM, PGD, empty]))
    first, second = figure.axes
    assert looks(first)["pgd"] == looks(second)["pgd"]
    assert labels(figure) == ["pgd", "fgsm", "not yet"]
    assert first.get_ylim() == second.get_ylim()
    # Told apart by more than colours.
    colors, _, markers = zip(*looks(second).values(), strict=True)
    assert len({*colors}) == len({*markers}) == 3


def test_controls_are_grey_and_broken(drawn):
    figure = drawn(found([FGSM, NOISE, PGD, MORE]))
    seen = looks(figure.axes[0])
    assert seen["noise (control)"][:2] == ("#666666", "--")
    assert seen["more noise (control)"][:2] == ("#666666", ":")
    # They take no colour of the others.
    tab10 = [matplotlib.colors.to_hex(c) for c in matplotlib.colormaps["tab10"].colors]
    assert [seen["fgsm"][:2], seen["pgd"][:2]] == [(tab10[0], "-"), (tab10[1], "-")]


def test_what_has_an_order_gets_lighter(drawn):
    sizes = [line(f"eps {n}", [0, 1], [n, n]) for n in (2, 4, 8, 16)]
    seen = looks(drawn(found(sizes, ordered=True)).axes[0])
    light = [
        np.dot(matplotlib.colors.to_rgb(color), [0.2126, 0.7152, 0.0722])
        for color, *_ in seen.values()
    ]
    assert light == sorted(light) and light[-1] > light[0] + 0.3
    # White is 1.
    assert light[-1] < 0.75


def test_a_ratio_above_one_is_inside_and_one_is_dotted(drawn):
    figure = drawn(found([line("leaks", [1, 2], [100, 140])], reference=100))
    axes = figure.axes[0]
    assert axes.get_ylim()[1] > 140
    (dotted,) = [one for one in axes.lines if one.get_linestyle() == ":"]
    assert list(dotted.get_ydata()) == [100, 100]
    assert drawn(found([PGD])).axes[0].get_ylim() == (-2, 102)


def test_empty_places_of_the_grid_are_empty(drawn):
    panels = found([FGSM], [PGD])["panels"] + found([NOISE])["panels"]
    figure = drawn(found(panels=panels))
    assert len(figure.axes) == 3


def test_the_picture_is_a_file_that_is_replaced(tmp_path):
    path = tmp_path / "new" / "table.png"
    table_plots.lines(found([PGD]), path)
    table_plots.lines(found([FGSM, NOISE, PGD]), path)
    picture = np.round(255 * matplotlib.image.imread(path)[..., :3])
    for color in (BLUE, ORANGE, GREY):
        near = np.abs(picture - color).max(axis=-1) <= 3
        assert near.sum() > 50, color
    assert [p.name for p in path.parent.iterdir()] == ["table.png"]
