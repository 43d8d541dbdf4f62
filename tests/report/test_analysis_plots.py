import matplotlib.image
import numpy as np
import pytest

from tfadv.evaluation.whitebox import row
from tfadv.report import analysis_plots

DPI = 120
BLUE, ORANGE, GREEN, RED, PURPLE = (
    (31, 119, 180),
    (255, 127, 14),
    (44, 160, 44),
    (214, 39, 40),
    (148, 103, 189),
)
MODEL = {"workdir": "runs/a", "steps": 20, "full_steps": 2000}


def read(path):
    """[height, width, 3] int of a PNG."""
    return np.round(255 * matplotlib.image.imread(path)[..., :3]).astype(int)


def where(picture, color, tolerance=3):
    """(rows, columns) of the pixels of the colour (r, g, b)."""
    return np.nonzero(np.abs(picture - color).max(axis=-1) <= tolerance)


def count(picture, color):
    return len(where(picture, color)[0])


@pytest.fixture
def drawn(monkeypatch):
    """A function (draw, found) -> the axes of the figure it would save."""

    def draw_only(draw, found):
        figures = []
        with monkeypatch.context() as patch:
            patch.setattr(
                analysis_plots.figures, "save", lambda f, path: figures.append(f)
            )
            draw(found, "nowhere")
        return figures[0].axes

    return draw_only


def lines(axes):
    """dict from label to ([x], [y]) of the lines in a panel that have one."""
    return {
        line.get_label(): (list(line.get_xdata()), list(line.get_ydata()))
        for line in axes.lines
        if not line.get_label().startswith("_")
    }


def bands(axes):
    """(lowest, highest) of each band in a panel, in the order of drawing."""
    ys = [c.get_paths()[0].vertices[:, 1] for c in axes.collections]
    return [(min(y), max(y)) for y in ys]


def logit_curves(models, true=10.0, false=-2.0):
    curve = {
        "true_mean": [true] * 3,
        "true_sd": [1.0] * 3,
        "false_mean": [false] * 3,
        "false_sd": [0.5] * 3,
    }
    return {
        "models": dict.fromkeys(models, MODEL),
        "eps_pixels": [-60.0, 0.0, 60.0],
        "curves": {name: {"step_ll": curve, "random_sign": curve} for name in models},
    }


@pytest.mark.parametrize("models", [["a"], ["a", "b", "a_" * 30]])
def test_logit_curves_has_a_row_a_direction_and_a_column_a_model(tmp_path, models):
    path = tmp_path / "new" / "curves.png"
    analysis_plots.logit_curves(logit_curves(models), path)
    picture = read(path)
    width = max(4.4, 3.1 * len(models) + 0.7)
    assert picture.shape == (round(6.3 * DPI), round(width * DPI), 3)
    for color in (BLUE, RED):
        # Level lines across most of the width, in panels above and below.
        rows, columns = where(picture[: round(5.4 * DPI)], color, 40)
        assert len(set(columns)) > 0.7 * width * DPI
        assert max(rows) - min(rows) > 2 * DPI
    # The true class is above, and nothing touches the border of the picture.
    assert min(where(picture, BLUE)[0]) < min(where(picture, RED)[0])
    for edge in (picture[0], picture[-1], picture[:, 0], picture[:, -1]):
        assert (edge == 255).all()


def test_logit_curves_draws_the_numbers_on_one_scale(drawn):
    found = logit_curves(["a", "b"])
    found["curves"]["b"] = logit_curves(["b"], true=5.0)["curves"]["b"]
    panels = drawn(analysis_plots.logit_curves, found)
    # Row by row: step_ll of a and b, random_sign of a and b.
    for axes, true in zip(panels, (10.0, 5.0, 10.0, 5.0), strict=True):
        assert lines(axes) == {
            "true class": ([-60, 0, 60], [true] * 3),
            "false classes": ([-60, 0, 60], [-2.0] * 3),
        }
        assert bands(axes) == [(true - 1, true + 1), (-2.5, -1.5)]
        assert axes.get_ylim() == panels[0].get_ylim()
        low, high = axes.get_ylim()
        assert low < -2.5 and high > 11
    assert [axes.get_title() for axes in panels] == [
        "a\n20 of 2000 steps",
        "b\n20 of 2000 steps",
        "",
        "",
    ]
    assert panels[2].get_ylabel() == "random_sign\nlogit"


def loss_surfaces(models, height=2.0):
    """Sums over 4 images of a loss that grows with t1 to `height` and not with t2."""
    t = [0.0, 0.2, 0.4]
    way = [(0.0, 0.0), (0.3, 0.0), (0.35, 0.05)]
    one = {
        "without_direction": 0,
        "loss": [[4 * height * t1 / 0.4] * 3 for t1 in t],
        "path": [{"t1": a, "t2": b, "loss": 4 * height * a / 0.4} for a, b in way],
    }
    return {
        "models": dict.fromkeys(models, MODEL),
        "num_examples": 4,
        "direction": "Iterative(eps=0.3, steps=30)",
        "t": t,
        "surfaces": dict.fromkeys(models, one),
    }


@pytest.mark.parametrize("models", [["a"], ["a", "b", "c", "d"]])
def test_loss_surface_has_a_column_a_model(tmp_path, models):
    path = tmp_path / "new" / "surface.png"
    analysis_plots.loss_surface(loss_surfaces(models), path)
    picture = read(path)
    assert picture.shape[0] == 7 * DPI
    # Reliefs above, maps below, a path in each, from the first column to the last. The
    # lowest tenth is the legend.
    rows, columns = where(picture[: round(0.9 * len(picture))], RED, 40)
    assert {0, 1} == set((2 * rows) // len(picture))
    if len(models) > 1:
        assert np.ptp(columns) > 0.7 * picture.shape[1]
    for edge in (picture[0], picture[-1], picture[:, 0], picture[:, -1]):
        assert (edge == 255).all()


def test_loss_surface_draws_means_on_one_scale(drawn):
    found = loss_surfaces(["a", "b"])
    found["surfaces"]["b"] = loss_surfaces(["b"], height=0.5)["surfaces"]["b"]
    panels = drawn(analysis_plots.loss_surface, found)
    reliefs = [axes for axes in panels if axes.name == "3d"]
    maps = [axes for axes in panels if axes.get_xlabel() == "t1 (attack)"]
    maps = [axes for axes in maps if axes not in reliefs]
    assert [axes.get_title() for axes in reliefs] == [
        "a\n20 of 2000 steps",
        "b\n20 of 2000 steps",
    ]
    for relief, height in zip(reliefs, (2.0, 0.5), strict=True):
        assert relief.get_zlim() == (0, 2)
        x, y, z = relief.lines[0].get_data_3d()
        np.testing.assert_allclose(x, [0, 0.3, 0.35])
        np.testing.assert_allclose(y, [0, 0, 0.05])
        np.testing.assert_allclose(z, np.multiply(x, height / 0.4))
    for flat in maps:
        assert list(lines(flat).values()) == [([0, 0.3, 0.35], [0, 0, 0.05])]
        assert flat.collections[0].get_clim() == (0, 2)


@pytest.mark.parametrize("value", [None, 0.0])
def test_a_surface_of_no_numbers_or_of_zeros_is_drawn(tmp_path, value):
    found = loss_surfaces(["a"])
    one = found["surfaces"]["a"]
    one["loss"] = [[value] * 3] * 3
    one["path"] = [dict.fromkeys(("t1", "t2", "loss"), value)] * 3
    analysis_plots.loss_surface(found, tmp_path / "surface.png")
    assert read(tmp_path / "surface.png").shape[0] == 7 * DPI


def test_a_surface_says_which_images_have_no_gradient(drawn):
    found = loss_surfaces(["a"])
    found["surfaces"]["a"]["without_direction"] = 3
    panels = drawn(analysis_plots.loss_surface, found)
    assert panels[0].get_title().endswith("\n3 of 4 images without a gradient")


def correlation(models, mean=0.5, sd=0.2):
    grid = [0.01, 0.1, 1.0, 10.0]
    pairs = ("clean, step_ll", "clean, step_fgsm", "clean, random_sign", "x, y")
    curves = {
        pair: {"mean": [round(mean - 0.1 * i, 9)] * 4, "sd": [sd] * 4, "n": [9] * 4}
        for i, pair in enumerate(pairs)
    }
    return {
        "models": dict.fromkeys(models, MODEL),
        "eps_pixels": grid,
        "curves": dict.fromkeys(models, curves),
    }


@pytest.mark.parametrize("models", [["a"], ["a", "b", "c"]])
def test_gradient_correlation_has_four_curves_a_panel(tmp_path, models):
    path = tmp_path / "new" / "correlation.png"
    analysis_plots.gradient_correlation(correlation(models), path)
    picture = read(path)
    width = max(4.4, 3.1 * len(models) + 0.7)
    assert picture.shape == (round(3.8 * DPI), round(width * DPI), 3)
    tops = []
    for color in (BLUE, RED, GREEN, PURPLE):
        rows, columns = where(picture[: round(2.6 * DPI)], color)
        assert len(set(columns)) > 0.7 * width * DPI
        tops.append(min(rows))
    assert tops == sorted(tops)


def test_gradient_correlation_draws_bands_of_half_a_deviation(drawn):
    (axes,) = drawn(analysis_plots.gradient_correlation, correlation(["a"], sd=0.6))
    grid = [0.01, 0.1, 1.0, 10.0]
    assert lines(axes) == {
        "(1) clean, step_ll": (grid, [0.5] * 4),
        "(2) clean, step_fgsm": (grid, [0.4] * 4),
        "(3) clean, random_sign": (grid, [0.3] * 4),
        "(4) x, y": (grid, [0.2] * 4),
    }
    expected = [(0.2, 0.8), (0.1, 0.7), (0.0, 0.6), (-0.1, 0.5)]
    np.testing.assert_allclose(bands(axes), expected, atol=1e-12)
    assert axes.get_xscale() == "log"
    assert axes.get_ylim() == (-0.2, 1.03)
    # The guide.
    assert list(axes.lines[0].get_xdata()) == [0.2, 0.2]


def test_gradient_correlation_makes_room_for_what_is_lower(drawn):
    found = correlation(["a", "b"], mean=-0.3)
    for axes in drawn(analysis_plots.gradient_correlation, found):
        assert axes.get_ylim()[0] == pytest.approx(-0.3 - 0.3 - 0.1)


def test_a_model_without_numbers_leaves_its_panel_empty(tmp_path):
    found = logit_curves(["a", "b"])
    nothing = {key: [None] * 3 for key in found["curves"]["b"]["step_ll"]}
    found["curves"]["b"] = dict.fromkeys(found["curves"]["b"], nothing)
    analysis_plots.logit_curves(found, tmp_path / "curves.png")
    picture = read(tmp_path / "curves.png")[: 5 * DPI]
    assert count(picture[:, : 3 * DPI], BLUE) > 300
    assert count(picture[:, 4 * DPI :], BLUE) == 0


def accuracy_curve(values, diverged=(), eps=(0.1, 0.2)):
    def run(value):
        right = 10 if value in diverged else 80
        rows = [row("clean", 0.0, right, 100)]
        rows += [row("step_ll", e, right // 2, 100) for e in eps]
        rows += [row("random_sign", e, right - 1, 100) for e in eps]
        return {"value": value, "at_chance": value in diverged, "rows": rows}

    return {
        "key": "defense.embedding_weight",
        "num_classes": 10,
        "attacks": ["step_ll", "random_sign"],
        "eps": list(eps),
        "runs": [run(value) for value in values],
    }


@pytest.mark.parametrize(
    ("eps", "size"), [((0.1,), (4.4, 3.8)), ((0.1, 0.2, 0.3, 0.4), (10, 6.3))]
)
def test_accuracy_curve_has_a_panel_an_eps(tmp_path, eps, size):
    path = tmp_path / "new" / "accuracy.png"
    analysis_plots.accuracy_curve(accuracy_curve([1e-3, 1e-2], eps=eps), path)
    picture = read(path)
    assert picture.shape == (round(size[1] * DPI), round(size[0] * DPI), 3)
    # step_ll blue, the control 50 % grey.
    assert count(picture, BLUE) > 300 * len(eps)
    assert count(picture, (128, 128, 128)) > 100 * len(eps)
    assert count(picture, ORANGE) == 0


def test_a_diverged_run_is_a_cross_and_no_part_of_the_line(tmp_path):
    values, path = [1e-3, 1e-2, 1e-1], tmp_path / "a.png"

    def blue_columns(diverged):
        analysis_plots.accuracy_curve(accuracy_curve(values, diverged, (0.1,)), path)
        return where(read(path)[: round(2.4 * DPI)], BLUE)[1]

    through, ends = blue_columns(()), blue_columns((1e-1,))
    length = max(through) - min(through)
    assert min(ends) == pytest.approx(min(through), abs=3)
    assert max(ends) - min(ends) == pytest.approx(length / 2, abs=6)
    assert len(blue_columns(tuple(values))) == 0


def test_runs_of_one_value_are_dots_around_their_mean(tmp_path):
    found = accuracy_curve([1e-3, 1e-3, 1e-1], eps=(0.1,))
    found["runs"][1]["rows"][1] = row("step_ll", 0.1, 60, 100)
    found["attacks"] = ["step_ll"]
    analysis_plots.accuracy_curve(found, tmp_path / "a.png")
    rows, columns = where(read(tmp_path / "a.png")[: round(2.4 * DPI)], BLUE)
    first = rows[columns < min(columns) + 4]
    # Dots at 40 and 60 %, the line begins between them.
    assert first.max() - first.min() > 25
    middle = rows[np.abs(columns - min(columns) - 15) < 2]
    assert first.min() + 8 < middle.min() and middle.max() < first.max() - 8


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([1e-3, 1.0], "log"),
        ([0.0, 1e-3, 1.0], "symlog"),
        ([-1.0, 1.0], "linear"),
        ([0, 0], "linear"),
    ],
)
def test_the_axis_of_values(values, scale):
    axes = analysis_plots.figures.new(3, 3).subplots()
    analysis_plots._scale(axes, values)
    assert axes.get_xscale() == scale
