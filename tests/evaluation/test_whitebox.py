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
    assert [list(row) for row in rows] == [keys] * 3
    assert json.loads(json.dumps(rows)) == rows
    # Without an order the rest is the same.
    plain = measure(
        groups.UP, groups.IMAGES, [groups.ATTACK], (0.0, groups.EPS), batch_size=2
    )
    assert plain == [{key: row[key] for key in keys[:5]} for row in rows]


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
