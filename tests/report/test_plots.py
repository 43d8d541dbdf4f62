import matplotlib.image
import numpy as np
import pytest

from tfadv.evaluation.whitebox import row
from tfadv.report import plots

DPI = 120
ROWS = [
    row("clean", 0.0, 98, 100),
    row("step_fgsm", 0.2, 40, 100),
    row("step_fgsm", 0.1, 60, 100),
    row("pgd(steps=2)", 0.1, 50, 100),
    row("random_sign", 0.1, 97, 100),
]


def read(path):
    """[height, width, 3] uint8 of a PNG."""
    return np.round(255 * matplotlib.image.imread(path)[..., :3]).astype(int)


def count(picture, color, tolerance=3):
    """Pixels of the colour (r, g, b) in 0..255."""
    return int((np.abs(picture - color).max(axis=-1) <= tolerance).sum())


def test_curves_draws_a_line_an_attack(tmp_path):
    path = tmp_path / "new" / "curves.png"
    plots.curves(ROWS, path, title="a title")
    picture = read(path)
    assert picture.shape == (4.4 * DPI, 6.4 * DPI, 3)
    # tab10's blue and orange for the attacks, 40 % grey for the control.
    for color in ((31, 119, 180), (255, 127, 14), (102, 102, 102)):
        assert count(picture, color) > 50, color


def test_curves_replaces_an_earlier_picture(tmp_path):
    path = tmp_path / "curves.png"
    plots.curves(ROWS[:2], path)
    before = read(path)
    plots.curves(ROWS, path)
    assert (read(path) != before).any()
    assert [p.name for p in tmp_path.iterdir()] == ["curves.png"]


# The difference is drawn as 0.5 + d / (2 max |d|). One pixel moves by `largest`, all
# others by `by`: half as far in grey (0.5 + 0.02 / 0.08 = 0.75), and in colour
# 0.5 + (-0.1, 0.02, 0) / 0.2 = (0, 0.6, 0.5).
@pytest.mark.parametrize(
    ("clean", "by", "largest", "expected"),
    [
        ([0.2], [0.02], [-0.04], [[51] * 3, [56] * 3, [191] * 3]),
        (
            [1.0, 0.0, 0.0],
            [-0.1, 0.02, 0.0],
            [-0.1, 0.0, 0.0],
            [[255, 0, 0], [230, 5, 0], [0, 153, 128]],
        ),
    ],
    ids=["grey", "colour"],
)
def test_examples_shows_clean_adversarial_and_difference(
    tmp_path, clean, by, largest, expected
):
    n = 3
    x = np.tile(np.array(clean, np.float32), (n, 8, 8, 1))
    moved = np.tile(np.array(by, np.float32), (n, 8, 8, 1))
    moved[0, 0, 0] = largest
    y = np.arange(n)
    path = tmp_path / "examples.png"
    plots.examples(x, x + moved, y, y, y[::-1], path, title="a title")
    picture = read(path)
    assert picture.shape == (4.3 * DPI, round((1.15 * n + 0.9) * DPI), 3)
    for color in expected:
        # Each cell is about an inch wide.
        assert count(picture, color, tolerance=1) > n * 80**2, color


def test_examples_of_an_attack_that_did_nothing(tmp_path):
    x = np.full((2, 8, 8, 1), 0.2, np.float32)
    y = np.zeros(2, np.int32)
    plots.examples(x, x, y, y, y, tmp_path / "examples.png")
    # No difference is mid-grey.
    assert count(read(tmp_path / "examples.png"), [128] * 3, 1) > 2 * 80**2


# --------------------------------------------------------------------- confusion matrix


# 20 images of class 0, none of class 1, 20 of class 2. In percent of a line: 75, 25, 0
# and 10, 20, 70; attacked 55, 35, 10 and 90, 5, 5.
COUNTS = (
    [[15, 5, 0], [0, 0, 0], [2, 4, 14]],
    [[11, 7, 2], [0, 0, 0], [18, 1, 1]],
)


def confused(clean=COUNTS[0], attacked=COUNTS[1], attack="pgd"):
    return [
        row(label, eps, np.trace(counts), np.sum(counts), np.array(counts))
        for label, eps, counts in (("clean", 0.0, clean), (attack, 0.1, attacked))
    ]


def test_confusion_has_a_line_a_true_class_and_a_column_a_prediction(tmp_path):
    path = tmp_path / "new" / "confusion.png"
    plots.confusion(confused(), path, title="a title")
    picture = read(path)
    right, above = center(picture, 75), center(picture, 25)
    assert above[0] == pytest.approx(right[0], abs=3)
    assert above[1] - right[1] > 60
    middle, last = center(picture, 20), center(picture, 70)
    assert last[0] == pytest.approx(middle[0], abs=3)
    assert middle[1] == pytest.approx(above[1], abs=3)
    assert last[1] - middle[1] == pytest.approx(middle[1] - right[1], abs=6)
    # The last line is two below the first.
    assert middle[0] - right[0] > 120
    # The other panel is to the right of it, on the same lines.
    attacked = center(picture, 35)
    assert attacked[0] == pytest.approx(right[0], abs=3)
    assert attacked[1] - last[1] > 60
    assert center(picture, 90)[0] == pytest.approx(middle[0], abs=3)


def test_confusion_outlines_right_answers(tmp_path):
    plots.confusion(confused(), tmp_path / "confusion.png")
    picture = read(tmp_path / "confusion.png")
    for percent, outlined in ((75, True), (70, True), (20, False), (25, False)):
        down, right = cell(picture, percent)
        height = int(np.median(down)) - 20
        inside = right[down == height]
        line = picture[height, inside.min() : inside.max()]
        assert bool((line > 250).all(axis=-1).any()) == outlined, percent


def test_confusion_leaves_a_class_without_images_empty(tmp_path):
    """A line of three cells in either panel, without numbers."""
    plots.confusion(confused(), tmp_path / "confusion.png")
    grey = count(read(tmp_path / "confusion.png"), [217] * 3, 1)
    full = [[15, 5, 0], [0, 1, 0], [2, 4, 14]]
    plots.confusion(confused(full, full), tmp_path / "full.png")
    picture = read(tmp_path / "full.png")
    assert count(picture, [217] * 3, 1) < grey / 100
    drawn = len(cell(picture, 25)[0])
    assert grey == pytest.approx(3 * drawn, rel=0.2)


@pytest.mark.parametrize("classes", [2, 8])
@pytest.mark.parametrize(
    "attack", ["pgd", "generator(generator=" + 9 * "/a_long_name" + "/generator.keras)"]
)
def test_confusion_clips_no_name_and_no_title(tmp_path, classes, attack):
    counts = np.full((classes, classes), 1234)
    path = tmp_path / "confusion.png"
    rows = confused(counts, counts, attack)
    plots.confusion(rows, path, title="satm / vgg16_face / adience_0, " + "steps " * 15)
    picture = read(path)
    picture[3:-3, 3:-3] = 255
    assert (picture == 255).all()


# ---------------------------------------------------------------------------- heat maps


def crossed(accuracies):
    """Transfer rows of 100 images: (attack, eps, source, target) -> percent."""
    return [
        {"source": source, "target": target, **row(attack, eps, percent, 100)}
        for (attack, eps, source, target), percent in accuracies.items()
    ]


def cell(picture, percent):
    """(rows, columns) of the pixels that have the colour of an accuracy."""
    color = np.round(255 * np.array(matplotlib.colormaps["cividis"](percent / 100)[:3]))
    found = np.nonzero(np.abs(picture - color).max(axis=-1) <= 2)
    assert len(found[0]) > 500, percent
    return found


def center(picture, percent):
    """(from above, from the left): the median, as the colour bar has a line of it."""
    return [np.median(places) for places in cell(picture, percent)]


def test_heat_map_has_a_line_a_target_and_a_column_a_source(tmp_path):
    path = tmp_path / "new" / "map.png"
    accuracies = {
        ("pgd", 0.1, "a", "c"): 20,
        ("pgd", 0.1, "a", "d"): 40,
        ("pgd", 0.1, "b", "c"): 60,
        ("pgd", 0.1, "b", "d"): 80,
    }
    plots.heat_map(crossed(accuracies), path, title="a title")
    picture = read(path)
    (ac, ad, bc, bd) = (center(picture, percent) for percent in accuracies.values())
    assert ac[0] == pytest.approx(bc[0], abs=3)
    assert ad[0] == pytest.approx(bd[0], abs=3)
    assert ac[1] == pytest.approx(ad[1], abs=3)
    assert bc[1] == pytest.approx(bd[1], abs=3)
    assert ad[0] - ac[0] > 30
    assert bc[1] - ac[1] > 30


def test_heat_map_has_attacks_across_and_eps_down(tmp_path):
    accuracies = {
        ("step_fgsm", 0.2, "a", "b"): 20,
        ("step_fgsm", 0.1, "a", "b"): 40,
        ("pgd(steps=40, restarts=2)", 0.2, "a", "b"): 60,
        ("pgd(steps=40, restarts=2)", 0.1, "a", "b"): 80,
    }
    plots.heat_map(crossed(accuracies), tmp_path / "map.png")
    picture = read(tmp_path / "map.png")
    first, second, third, fourth = (center(picture, p) for p in accuracies.values())
    assert second[0] - first[0] > 50
    assert third[1] - first[1] > 50
    assert [fourth[0], fourth[1]] == pytest.approx([second[0], third[1]], abs=3)


@pytest.mark.parametrize(("target", "outlined"), [("a", True), ("b", False)])
def test_heat_map_outlines_the_white_box(tmp_path, target, outlined):
    rows = crossed({("pgd", 0.1, "a", target): 75})
    plots.heat_map(rows, tmp_path / "map.png")
    picture = read(tmp_path / "map.png")
    # A line across the cell, above the number, from its first to its last pixel.
    down, right = cell(picture, 75)
    height = int(np.median(down)) - 20
    line = picture[height, right[down == height].min() : right[down == height].max()]
    assert bool((line > 250).all(axis=-1).any()) == outlined


def test_heat_map_leaves_what_was_not_measured_empty(tmp_path):
    accuracies = {("pgd", 0.1, "a", "b"): 20, ("pgd", 0.1, "b", "a"): 80}
    plots.heat_map(crossed(accuracies), tmp_path / "map.png")
    picture = read(tmp_path / "map.png")
    drawn = len(cell(picture, 20)[0])
    # Two cells of 85 % grey, whose size is that of the others with their numbers.
    assert count(picture, [217] * 3, 1) == pytest.approx(2 * drawn, rel=0.2)


@pytest.mark.parametrize(("sources", "targets"), [(1, 1), (2, 2), (7, 4), (7, 7)])
def test_heat_map_clips_no_name_and_no_title(tmp_path, sources, targets):
    names = [f"na2018_cifar10_pivot_cascade_{i}" for i in range(7)]
    rows = crossed(
        {
            **{("clean", 0.0, None, t): 90 for t in names[:targets]},
            **{
                (attack, 0.1, s, t): 50
                for attack in ("pgd(steps=40, restarts=2)", "step_ll")
                for s in names[:sources]
                for t in names[:targets]
            },
        }
    )
    path = tmp_path / "map.png"
    plots.heat_map(rows, path, title="cifar10, 10000 test images; " + "trained " * 9)
    picture = read(path)
    picture[3:-3, 3:-3] = 255
    assert (picture == 255).all()
