import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from tests.evaluation import groups, nearest
from tfadv import config
from tfadv.attacks import core
from tfadv.data import Images
from tfadv.evaluation import format_eps, measure, suite, whitebox

# With w = (3, -4), m = 3 a - 4 b pixels decide the class, and an FGSM step of e pixels
# moves m by 7 e towards the other side.
#   m =  60, y = 1: right; wrong from e = 9 on
#   m = 100, y = 1: right; wrong from e = 15 on
#   m = -20, y = 0: right; wrong from e = 3 on
#   m = -180, y = 0: right up to e = 25
#   m = -60, y = 1: wrong from the start
PIXELS = [(100, 60), (100, 50), (100, 80), (100, 120), (100, 90)]
FIVE = Images(
    x=np.array(PIXELS, np.uint8).reshape(-1, 1, 2, 1),
    y=np.array([1, 1, 0, 0, 1], np.int32),
)


def entries(*names, eps=(0.1,)):
    return suite.build(config.Evaluate(attacks=names, eps=eps), where="here")


def cells(rows):
    return [(r["attack"], r["eps"], r["accuracy"], r["n"]) for r in rows]


# Batches of 2 leave a last one of 1, batches of 3 one of 2.
@pytest.mark.parametrize("batch_size", [1, 2, 3, 5])
def test_accuracy_counts_every_image_once(linear, batch_size):
    predict, _ = linear
    eps = (2 / 255, 10 / 255, 20 / 255)
    fgsm = entries("step_fgsm", eps=eps)[:1]
    rows = measure(predict, FIVE, fgsm, eps, batch_size=batch_size)
    assert cells(rows) == [
        ("clean", 0.0, 4 / 5, 5),
        ("step_fgsm", eps[0], 4 / 5, 5),
        ("step_fgsm", eps[1], 2 / 5, 5),
        ("step_fgsm", eps[2], 1 / 5, 5),
    ]


def test_attacks_may_see_something_else_than_what_is_measured(linear):
    """A head that says -z and weighs twice: they make all margins larger."""
    predict, _ = linear
    eps = (10 / 255,)

    def judged(x):
        return core.Judged(predict(x), -predict(x), auxiliary_weight=2.0)

    fgsm = entries("step_fgsm", eps=eps)[:1]
    for craft_on, right in ((None, 2), (predict, 2), (judged, 5)):
        rows = measure(predict, FIVE, fgsm, eps, batch_size=2, craft_on=craft_on)
        # Of the clean ones m = -60, y = 1 is wrong; it becomes 10.
        assert cells(rows) == [
            ("clean", 0.0, 4 / 5, 5),
            ("step_fgsm", eps[0], right / 5, 5),
        ]


def test_clean_images_may_be_left_out(linear):
    predict, _ = linear
    eps = (10 / 255,)
    fgsm = entries("step_fgsm", eps=eps)[:1]
    rows = measure(predict, FIVE, fgsm, eps, batch_size=2, clean=False)
    assert cells(rows) == [("step_fgsm", eps[0], 2 / 5, 5)]


def test_noise_control_is_measured_beside_the_attacks(linear):
    predict, _ = linear
    # Noise of 2 pixels moves m by at most 14, so no sign of any m changes.
    rows = measure(predict, FIVE, entries("step_fgsm"), (2 / 255,), batch_size=4)
    assert cells(rows)[-1] == ("random_sign", 2 / 255, 4 / 5, 5)


def close_calls(n):
    """n images with m = 4, y = 1: noise of 10 pixels (m +- 30 +- 40) breaks half."""
    x = np.tile(np.array([100, 74], np.uint8).reshape(1, 1, 2, 1), (n, 1, 1, 1))
    return Images(x=x, y=np.ones(n, np.int32))


def test_the_seed_alone_decides_random_attacks(linear):
    predict, _ = linear

    def rows(seed):
        return measure(
            predict,
            close_calls(90),
            entries("random_sign"),
            (10 / 255,),
            batch_size=40,
            seed=seed,
        )

    assert rows(3) == rows(3)
    assert len({rows(seed)[1]["accuracy"] for seed in range(4)}) > 1


def test_every_batch_draws_noise_of_its_own(linear):
    predict, _ = linear
    _, noise = measure(
        predict,
        close_calls(40),
        entries("random_sign"),
        (10 / 255,),
        batch_size=1,
    )
    # One draw for all would break all or none. Of 40 halves: 20 +- 4.5 * sqrt(10).
    assert 6 <= 40 * noise["accuracy"] <= 34


@pytest.mark.parametrize(
    "name", ["step_fgsm", "step_rnd", "iter_fgsm", "iter_ll", "pgd", "random_normal"]
)
def test_every_row_is_the_attack_at_its_eps(name):
    # A smooth classifier of 5 classes that labels the clean images itself.
    rng = np.random.default_rng(1)
    v, w = (rng.normal(size=s).astype(np.float32) for s in ((16, 7), (7, 5)))

    def predict(x):
        return tf.tanh(tf.reshape(x, [-1, 16]) @ v) @ w

    x = rng.integers(0, 256, (50, 4, 4, 1), np.uint8)
    y = tf.argmax(predict(x / np.float32(255)), axis=1, output_type=tf.int32).numpy()
    images, eps = Images(x=x, y=y), (20 / 255, 50 / 255, 4 / 255)
    attack = entries(name, eps=eps)[0]

    def right(size):
        at_size, count = dataclasses.replace(attack.attack, eps=size), 0
        for number, (x, y) in enumerate(whitebox.batches(images, 20)):
            x_adv = at_size(predict, x, y, seed=core.fold(7, number))
            count += np.sum(np.argmax(predict(x_adv), axis=1) == y.numpy())
        return count

    rows = measure(predict, images, [attack], eps, batch_size=20, seed=7)
    expected = [(name, size, right(size) / 50, 50) for size in eps]
    assert cells(rows) == [("clean", 0.0, 1.0, 50), *expected]
    # Not the same at every size, or the test would show nothing.
    assert len({accuracy for _, _, accuracy, _ in expected}) > 1


# Batches of 2 leave a last one of 1, batches of 3 one of 2.
@pytest.mark.parametrize("batch_size", [2, 3, 5])
def test_what_is_nearly_right_counts_where_classes_have_an_order(batch_size):
    rows = measure(
        groups.UP,
        groups.IMAGES,
        [groups.ATTACK],
        (0.0, groups.EPS),
        batch_size=batch_size,
        ordered_classes=4,
    )
    expected = [groups.CLEAN_UP, groups.CLEAN_UP, groups.ATTACKED_UP]
    assert [groups.told(row) for row in rows] == expected
    keys = ["attack", "eps", "accuracy", "n", "ci95", "one_off", "confusion"]
    assert [list(row) for row in rows] == [keys, *[[*keys, "audit"]] * 2]
    assert json.loads(json.dumps(rows)) == rows
    # Without an order the rest is the same.
    plain = measure(
        groups.UP, groups.IMAGES, [groups.ATTACK], (0.0, groups.EPS), batch_size=2
    )
    ordered = ("one_off", "confusion")
    assert plain == [{k: v for k, v in row.items() if k not in ordered} for row in rows]


@pytest.mark.parametrize("batch_size", [2, 3, 7])
@pytest.mark.parametrize(
    ("predict", "expected"),
    [
        (nearest.UP, [nearest.CLEAN_UP, nearest.ATTACKED_UP]),
        (nearest.DOWN, [nearest.CLEAN_DOWN, nearest.ATTACKED_DOWN]),
    ],
)
def test_top5_counts_classes_among_the_five_largest(predict, expected, batch_size):
    measured = (predict, nearest.IMAGES, [nearest.ATTACK], (nearest.EPS,))
    rows = measure(*measured, batch_size=batch_size, top5=True)
    found = [(7 * row["accuracy"], 7 * row["top5"]) for row in rows]
    assert found == [pytest.approx(pair) for pair in expected]
    assert list(rows[0]) == ["attack", "eps", "accuracy", "n", "ci95", "top5"]
    assert json.loads(json.dumps(rows)) == rows
    # Unless it is asked for, the rest is the same.
    plain = measure(*measured, batch_size=batch_size)
    assert plain == [{k: v for k, v in r.items() if k != "top5"} for r in rows]


def test_a_class_that_no_image_has_keeps_its_line():
    """Of eight groups four occur; a neighbour is one all the same."""
    (row,) = measure(groups.UP, groups.IMAGES, [], (), batch_size=5, ordered_classes=8)
    right, near, confusion = groups.CLEAN_UP
    padded = [[*line, 0, 0, 0, 0] for line in confusion] + [[0] * 8] * 4
    assert groups.told(row) == (right, near, padded)


def test_a_guess_that_is_no_class_is_an_error():
    with pytest.raises(ValueError, match="`predictions` must be from 0 to 2; received"):
        measure(
            groups.UP,
            groups.IMAGES.take(groups.IMAGES.y < 3),
            [],
            (),
            batch_size=5,
            ordered_classes=3,
        )


def test_of_equal_logits_the_lower_classes_come_first():
    images = Images(x=np.zeros((2, 1, 1, 1), np.uint8), y=np.zeros(2, np.int32))
    logits = tf.constant([[1.0, 3.0, 3.0, 2.0], [5.0, 5.0, 5.0, 5.0]])
    for top_k in (1, 2, 4):
        found = whitebox.guess(lambda x: logits, images, top_k)(tf.zeros([2, 1, 1, 1]))
        expected = np.array([[1, 2, 3, 0], [0, 1, 2, 3]])[:, :top_k]
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("confusion", "text"),
    [
        (None, "pgd, eps 8/255: 42.86 %"),
        # 3 of 7 are right, 3 + 2 of 7 right or beside.
        ([[1, 2, 1], [0, 2, 0], [1, 0, 0]], "pgd, eps 8/255: 42.86 %, one-off 71.4 %"),
    ],
)
def test_a_row_in_words(confusion, text):
    counts = None if confusion is None else np.array(confusion)
    row = whitebox.row("pgd", 8 / 255, 3, 7, counts)
    assert whitebox.in_words(row) == text
    assert row.get("confusion") == confusion


def test_a_row_with_top5_in_words():
    confusion = np.array([[1, 2, 1], [0, 2, 0], [1, 0, 0]])
    row = whitebox.row("pgd", 8 / 255, 3, 7, confusion, top5=6)
    assert row["top5"] == 6 / 7
    assert whitebox.in_words(row).endswith(": 42.86 %, one-off 71.4 %, top-5 85.7 %")


@pytest.mark.parametrize(
    ("correct", "n"), [(0, 7), (7, 7), (1, 1), (3, 10), (137, 450), (10_000, 10_000)]
)
def test_row_holds_the_wilson_interval(correct, n):
    z, p = 1.959964, correct / n
    center = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    row = whitebox.row("pgd", 0.1, correct, n)
    assert row == {
        "attack": "pgd",
        "eps": 0.1,
        "accuracy": p,
        "n": n,
        "ci95": pytest.approx([center - half, center + half], abs=1e-6),
    }


@pytest.mark.parametrize(
    ("eps", "text"),
    [
        (8 / 255, "8/255"),
        (1 / 255, "1/255"),
        (1.0, "255/255"),
        (0.0, "0"),
        (0.3, "0.3"),  # 76.5 pixels
        (0.4, "0.4"),  # 102 pixels, which nobody writes
        (8 / 256, "8/256"),
        (16 / 256, "0.0625"),  # short enough
        (0.5 / 255, "0.00196078"),
    ],
)
def test_format_eps(eps, text):
    assert format_eps(eps) == text


# ------------------------------------------------------------- what withstands all


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shift:
    """Moves all pixels by eps up or down."""

    eps: float
    up: bool
    norm: str = "linf"

    def __call__(self, predict, x, y, seed=None):
        return x + self.eps * (1.0 if self.up else -1.0)


UPWARDS, DOWNWARDS = (
    suite.Entry(label, label, Shift(eps=0.1, up=label == "up"))
    for label in ("up", "down")
)


def band(x):
    """Class 1 for pixels from 100 to 150, else class 0."""
    pixel = 255.0 * tf.reshape(x, [-1, 1])
    inside = 25.0 - tf.abs(pixel - 125.0)
    return tf.concat([-inside, inside], axis=1)


# | pixel | y | clean | 10 up | 10 down | 30 up | 30 down |
# |-------|---|-------|-------|---------|-------|---------|
# | 105   | 1 | right | right | wrong   | right | wrong   |
# | 125   | 1 | right | right | right   | wrong | wrong   |
# | 145   | 1 | right | wrong | right   | wrong | right   |
# | 95    | 1 | wrong | right | wrong   | right | wrong   |
# | 80    | 0 | right | right | right   | wrong | right   |
# | 40    | 0 | right | right | right   | right | right   |
SIX = Images(
    x=np.array([105, 125, 145, 95, 80, 40], np.uint8).reshape(6, 1, 1, 1),
    y=np.array([1, 1, 1, 1, 0, 0], np.int32),
)
SIZES = (10 / 255, 30 / 255)


@pytest.mark.parametrize("batch_size", [2, 4, 6])
def test_the_worst_case_is_of_each_image(batch_size):
    rows = measure(
        band,
        SIX,
        [UPWARDS, DOWNWARDS],
        SIZES,
        batch_size=batch_size,
        num_classes=3,
        progress=False,
    )
    assert [(r["attack"], r["eps"], round(6 * r["accuracy"])) for r in rows] == [
        ("clean", 0.0, 5),
        *(("up", SIZES[0], 5), ("up", SIZES[1], 3)),
        *(("down", SIZES[0], 4), ("down", SIZES[1], 3)),
        # 125, 80 and 40; 40 alone.
        *(("worst case", SIZES[0], 3), ("worst case", SIZES[1], 1)),
    ]
    assert rows[5]["ci95"] == whitebox.interval(3, 6)
    classes = [row.get("per_class") for row in rows]
    assert classes[0] == [[2, 2], [3, 4], [0, 0]]
    assert classes[1:5] == [None] * 4
    assert classes[5:] == [[[2, 2], [1, 4], [0, 0]], [[1, 2], [0, 4], [0, 0]]]
    assert json.loads(json.dumps(rows)) == rows


def test_the_worst_case_is_that_of_several_attacks_on_clean_images():
    noise = suite.entry("random_sign", SIZES, "h")
    given = (band, SIX, [UPWARDS, noise], SIZES)
    rows = measure(*given, batch_size=6, progress=False)
    assert {row["attack"] for row in rows} == {"clean", "up", "random_sign"}
    rows = measure(
        *(band, SIX, [UPWARDS, DOWNWARDS], SIZES),
        batch_size=6,
        clean=False,
        progress=False,
    )
    assert {row["attack"] for row in rows} == {"up", "down"}


def test_of_l2_attacks_noise_in_l_inf_is_no_part_of_the_worst_case():
    """What goes by the name of noise breaks 105, and no attack in l2 does."""
    both = [
        dataclasses.replace(one, attack=dataclasses.replace(one.attack, norm="l2"))
        for one in (UPWARDS, UPWARDS)
    ]
    both[1] = dataclasses.replace(both[1], label="again")
    down = suite.Entry("noise", "random_sign", Shift(eps=0.1, up=False))
    options = {"batch_size": 6, "progress": False}
    rows = measure(band, SIX, [*both, down], SIZES[:1], **options)
    # 105, 125, 80 and 40 withstand what moves them up.
    assert [round(6 * row["accuracy"]) for row in rows] == [5, 5, 5, 4, 4]
    rows = measure(band, SIX, [*both, down], SIZES[:1], **options, drop_broken=True)
    assert [round(6 * row["accuracy"]) for row in rows] == [5, 4, 4, 3, 4]
    # In l-inf it is: a ball that holds the other.
    rows = measure(band, SIX, [UPWARDS, both[1], down], SIZES[:1], **options)
    assert round(6 * rows[-1]["accuracy"]) == 3


@pytest.mark.parametrize("batch_size", [2, 3, 6])
def test_broken_images_are_dropped(batch_size):
    found = []

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Noting(Shift):
        def __call__(self, predict, x, y, seed=None):
            def note(x):
                found.append(np.round(255 * x[:, 0, 0, 0]).astype(int).tolist())
                return np.int32(0)

            with tf.control_dependencies([tf.numpy_function(note, [x], tf.int32)]):
                return super().__call__(predict, x, y, seed)

    entries = [
        suite.Entry(label, label, Noting(eps=0.1, up=label == "up"))
        for label in ("up", "down")
    ]
    rows = measure(
        band,
        SIX,
        entries,
        SIZES,
        batch_size=batch_size,
        num_classes=2,
        drop_broken=True,
        progress=False,
    )
    assert [
        (r["attack"], r["eps"], round(6 * r["accuracy"]), r["n"], r.get("of"))
        for r in rows
    ] == [
        ("clean", 0.0, 5, 6, None),
        *(("up", SIZES[0], 4, 6, 5), ("up", SIZES[1], 2, 6, 5)),
        *(("down", SIZES[0], 3, 6, 4), ("down", SIZES[1], 1, 6, 2)),
        *(("worst case", SIZES[0], 3, 6, None), ("worst case", SIZES[1], 1, 6, None)),
    ]
    # What was tried, in full batches.
    tried = [
        *([105, 125, 145, 80, 40], [105, 125, 80, 40]),
        *([105, 125, 145, 80, 40], [105, 40]),
    ]
    expected = [
        part[i : i + batch_size]
        for part in tried
        for i in range(0, len(part), batch_size)
    ]
    assert found == expected
    # The same images withstand all as without dropping any.
    whole = measure(
        *(band, SIX, [UPWARDS, DOWNWARDS], SIZES),
        batch_size=batch_size,
        num_classes=2,
        progress=False,
    )
    assert rows[-2:] == whole[-2:] and rows[0] == whole[0]


def test_nothing_is_tried_where_nothing_is_left():
    wrong = Images(x=SIX.x, y=1 - SIX.y)
    rows = measure(
        *(band, wrong.take(slice(3)), [UPWARDS, DOWNWARDS], SIZES),
        batch_size=2,
        drop_broken=True,
        progress=False,
    )
    assert {row["accuracy"] for row in rows} == {0.0}
    assert [row.get("of") for row in rows] == [None, 0, 0, 0, 0, None, None]
    assert not any("audit" in row for row in rows)


def test_broken_images_can_only_be_dropped_from_the_clean_ones():
    with pytest.raises(ValueError, match="`clean` must be true; received False"):
        measure(
            *(band, SIX, [UPWARDS], SIZES), batch_size=2, clean=False, drop_broken=True
        )


# ------------------------------------------------------------------ what attacks made


@dataclasses.dataclass(frozen=True, kw_only=True)
class Made:
    """Adds the same whatever eps is; what is no number where a pixel is 80."""

    eps: float
    plus: float
    norm: str = "linf"

    def __call__(self, predict, x, y, seed=None):
        spoilt = tf.abs(255.0 * x - 80.0) < 0.5
        return tf.where(spoilt, float("nan"), x + self.plus)


def audit(plus, x=SIX, eps=0.25, **options):
    entry = suite.Entry("made", "made", Made(eps=0.5, plus=plus, **options))
    rows = measure(band, x, [entry], [eps], batch_size=4, progress=False)
    return rows[-1]["audit"]


def test_what_an_attack_made_is_measured():
    found = audit(0.25)
    assert found == {
        "linf": pytest.approx(0.25),
        "l2": pytest.approx(0.25),
        # The spoilt image counts as the clean one.
        "least": pytest.approx(80 / 255),
        "most": pytest.approx(145 / 255 + 0.25),
        "not_finite": 1,
        "norm": "linf",
        "within": False,
    }
    five = SIX.take(SIX.x[:, 0, 0, 0] != 80)
    assert audit(0.25, five)["within"]
    assert audit(-0.1, five) == {
        "linf": pytest.approx(0.1),
        "l2": pytest.approx(0.1),
        "least": pytest.approx(40 / 255 - 0.1),
        "most": pytest.approx(145 / 255 - 0.1),
        "not_finite": 0,
        "norm": "linf",
        "within": True,
    }
    # Farther than eps; below and above the range.
    assert not audit(0.2501, five)["within"]
    assert not audit(-0.2, five)["within"]
    assert not audit(0.5, five, eps=0.5)["within"]


@pytest.mark.parametrize(("eps", "within"), [(0.2, True), (0.19, False)])
def test_distances_are_of_the_norm_of_the_attack(eps, within):
    """Four pixels moved by 0.1 each: 0.1 in l-inf, 0.2 in l2."""
    images = Images(x=np.full([3, 2, 2, 1], 50, np.uint8), y=np.zeros(3, np.int32))

    def predict(x):
        return tf.reduce_sum(x, axis=[1, 2])[:, :1] * tf.constant([[1.0, -1.0]])

    for norm in ("linf", "l2"):
        entry = suite.Entry("m", "m", Made(eps=0.1, plus=0.1, norm=norm))
        rows = measure(predict, images, [entry], [eps], batch_size=2, progress=False)
        found = rows[-1]["audit"]
        assert found["linf"] == pytest.approx(0.1)
        assert found["l2"] == pytest.approx(0.2)
        assert (found["norm"], found["within"]) == (norm, within or norm == "linf")


def test_rounding_is_no_offence():
    """x + eps of float32 may be farther from x than eps, by half an ulp of 1."""
    allowed = 1 / 255
    just = [[allowed + 3e-8, 0, 0, 1, 0]]
    assert whitebox.audited(just, allowed, "linf", 1)["within"]
    farther = [[allowed + 1e-6, 0, 0, 1, 0]]
    assert not whitebox.audited(farther, allowed, "linf", 1)["within"]
    # Batches together: the worst of each.
    both = [[0.1, 0.2, 0.0, 0.5, 1], [0.05, 0.3, 0.1, 1.0, 2]]
    assert whitebox.audited(both, 0.5, "l2", 4) == {
        **{"linf": 0.1, "l2": 0.3, "least": 0.0, "most": 1.0},
        **{"not_finite": 3, "norm": "l2", "within": False},
    }
