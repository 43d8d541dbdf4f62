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
