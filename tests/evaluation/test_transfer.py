import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tests.evaluation import groups, nearest
from tfadv import config
from tfadv.data import Images
from tfadv.evaluation import measure as measure_white_box
from tfadv.evaluation import suite, transfer

# Two classifiers of two pixels p and q: the sign of 3 p - 4 q decides for `up`, that of
# 4 p + 3 q - 600 for `along`. The margin is that number for y = 1, minus it for y = 0.
# FGSM of e pixels made
#   for `up` moves p by -e and q by e where y = 1, the other way where y = 0: the margin
#     of `up` becomes 7 e smaller and that of `along` 4 e - 3 e = e smaller;
#   for `along` moves both by -e, or both by e: the margin of `along` becomes 7 e
#     smaller and that of `up` 4 e - 3 e = e larger.
#
# p    q    y      up  along
SEVEN = """
100   60  1  #   60    -20
150   80  1  #  130    240
120   60  1  #  120     60
 60  100  0  #  220     60
120   45  1  #  180     15
110   90  1  #  -30    110
110   86  1  #  -14     98
"""
SEVEN = np.array(
    [line.partition("#")[0].split() for line in SEVEN.strip().splitlines()], int
)
SEVEN = Images(
    x=SEVEN[:, :2].astype(np.uint8).reshape(-1, 1, 2, 1), y=SEVEN[:, 2].astype(np.int32)
)
EPS = (25 / 255, 10 / 255)


def linear(p, q, offset):
    def predict(x):
        z = tf.reshape(x, [-1, 2]) @ np.array([[p], [q]], np.float32) + offset / 255
        return tf.concat([tf.zeros_like(z), z], axis=1)

    return predict


UP, ALONG = linear(3, -4, 0), linear(4, 3, -600)


def entries(*names, eps=EPS):
    """Without the noise control that a suite adds."""
    return suite.build(config.Evaluate(attacks=names, eps=eps), where="here")[
        : len(names)
    ]


# Batches of 2 leave a last one of 1, batches of 4 one of 3.
@pytest.mark.parametrize("batch_size", [2, 4, 7])
def test_every_target_is_tried_on_the_images_of_every_source(batch_size):
    models = {"up": UP, "along": ALONG}
    rows = transfer.measure(
        models, models, SEVEN, entries("step_fgsm"), EPS, batch_size=batch_size
    )
    assert [
        (r["source"], r["target"], r["attack"], r["eps"], 7 * r["accuracy"], r["n"])
        for r in rows
    ] == [
        (None, "up", "clean", 0.0, 5, 7),
        (None, "along", "clean", 0.0, 6, 7),
        ("up", "up", "step_fgsm", EPS[0], 2, 7),
        ("up", "up", "step_fgsm", EPS[1], 4, 7),
        ("up", "along", "step_fgsm", EPS[0], 5, 7),
        ("up", "along", "step_fgsm", EPS[1], 6, 7),
        # Two margins of `up` are below zero at first; the larger e brings one above.
        ("along", "up", "step_fgsm", EPS[0], 6, 7),
        ("along", "up", "step_fgsm", EPS[1], 5, 7),
        ("along", "along", "step_fgsm", EPS[0], 1, 7),
        ("along", "along", "step_fgsm", EPS[1], 3, 7),
    ]
    # Kept are those whose margin for the source changes its sign.
    assert [(r["transfer_rate"], r["kept"]) for r in rows[2:]] == [
        *((1.0, 3), (1.0, 1)),
        *((1 / 3, 3), (1.0, 1)),
        *((1 / 5, 5), (0.0, 3)),
        *((1.0, 5), (1.0, 3)),
    ]
    assert set(rows[0]) == {
        "source",
        "target",
        "attack",
        "eps",
        "accuracy",
        "n",
        "ci95",
    }
    assert set(rows[2]) == set(rows[0]) | {"audit", "transfer_rate", "kept"}
    # Of FGSM on either side, one image of pixels that stay in the range.
    for row in rows[2:]:
        audit = row["audit"]
        assert audit["within"] and audit["norm"] == "linf"
        assert audit["linf"] == pytest.approx(row["eps"])
        assert audit["l2"] == pytest.approx(row["eps"] * 2**0.5)


def test_attacks_may_see_something_else_of_a_source():
    """Attacks take `up` for `along` and the other way; rows keep their names."""
    models = {"up": UP, "along": ALONG}
    options = {"batch_size": 4, "progress": False}
    given = (models, models, SEVEN, entries("step_fgsm"), EPS)
    usual = transfer.measure(*given, **options)
    assert transfer.measure(*given, **options, craft_on=models) == usual
    other = {"up": ALONG, "along": UP}
    found = transfer.measure(*given, **options, craft_on=other)

    def by_source(rows):
        return {(r["source"], r["target"], r["eps"]): r["accuracy"] for r in rows[2:]}

    usual, found = by_source(usual), by_source(found)
    turned = {"up": "along", "along": "up"}
    assert found == {(s, t, e): usual[turned[s], t, e] for s, t, e in usual}
    assert found != usual
    # Of one source alone the others are as they were.
    found = by_source(transfer.measure(*given, **options, craft_on={"up": ALONG}))
    assert found == {(s, t, e): usual["along", t, e] for s, t, e in usual}


def test_a_source_need_not_be_a_target():
    rows = transfer.measure(
        {"up": UP}, {"along": ALONG}, SEVEN, entries("step_fgsm"), EPS, batch_size=7
    )
    assert [(r["source"], r["target"], 7 * r["accuracy"]) for r in rows] == [
        (None, "along", 6),
        ("up", "along", 5),
        ("up", "along", 6),
    ]
    assert [(r["transfer_rate"], r["kept"]) for r in rows[1:]] == [(1 / 3, 3), (1.0, 1)]


def test_nothing_kept_has_no_rate():
    # One pixel brings no margin to its other side: the nearest is -14 + 7.
    rows = transfer.measure(
        {"up": UP},
        {"along": ALONG},
        SEVEN,
        entries("step_fgsm"),
        [1 / 255],
        batch_size=7,
    )
    assert (rows[1]["transfer_rate"], rows[1]["kept"]) == (None, 0)


# Logits are the pixels p, q and a constant 100. FGSM lowers the pixel of class y and
# raises the other.
# | p   | q  | y | rank of y | after 10 pixels |
# |-----|----|---|-----------|-----------------|
# | 105 | 50 | 0 | 1         | 2               |
# | 60  | 55 | 0 | 2         | 3               |
# | 200 | 50 | 0 | 1         | 1               |
# | 105 | 50 | 1 | 3         | 3               |
@pytest.mark.parametrize(("top_k", "clean", "attacked"), [(1, 2, 1), (2, 3, 2)])
def test_top_k_counts_for_accuracy_and_rate(top_k, clean, attacked):
    def predict(x):
        pixels = tf.reshape(x, [-1, 2])
        return tf.concat([pixels, 0 * pixels[:, :1] + 100 / 255], axis=1)

    pixels = [(105, 50), (60, 55), (200, 50), (105, 50)]
    images = Images(
        x=np.array(pixels, np.uint8).reshape(-1, 1, 2, 1),
        y=np.array([0, 0, 0, 1], np.int32),
    )
    models, eps = {"m": predict}, (10 / 255,)
    rows = transfer.measure(
        models, models, images, entries("step_fgsm"), eps, batch_size=4, top_k=top_k
    )
    assert [4 * row["accuracy"] for row in rows] == [clean, attacked]
    assert (rows[1]["transfer_rate"], rows[1]["kept"]) == (1.0, 1)


@pytest.mark.parametrize("top_k", [1, 2, 6])
@pytest.mark.parametrize("batch_size", [3, 7])
def test_top5_stands_beside_the_accuracy(batch_size, top_k):
    """Of `up` the fourth and the sixth are right by top-5 until they are attacked, of
    `down` the last; `down` gets the fourth right then, and `up` not the last."""
    models = {"up": nearest.UP, "down": nearest.DOWN}
    measured = (models, models, nearest.IMAGES, [nearest.ATTACK], (nearest.EPS,))
    settings = {"batch_size": batch_size, "top_k": top_k}
    rows = transfer.measure(*measured, **settings, top5=True)
    new = ("top5", "top5_transfer_rate", "top5_kept")
    assert [
        (r["source"], r["target"], 7 * r["top5"], *(r.get(key) for key in new[1:]))
        for r in rows
    ] == [
        (None, "up", nearest.CLEAN_UP[1], None, None),
        (None, "down", nearest.CLEAN_DOWN[1], None, None),
        ("up", "up", nearest.ATTACKED_UP[1], 1.0, 2),
        ("up", "down", nearest.ATTACKED_DOWN[1], 1 / 2, 2),
        ("down", "up", nearest.ATTACKED_UP[1], 1.0, 1),
        ("down", "down", nearest.ATTACKED_DOWN[1], 1.0, 1),
    ]
    # Unless it is asked for, the rest is the same.
    plain = transfer.measure(*measured, **settings)
    assert plain == [{k: v for k, v in r.items() if k not in new} for r in rows]
    if top_k == 1:
        own = [7 * row["accuracy"] for row in rows]
        pairs = (nearest.CLEAN_UP, nearest.CLEAN_DOWN)
        pairs += (nearest.ATTACKED_UP, nearest.ATTACKED_DOWN) * 2
        assert own == pytest.approx([pair[0] for pair in pairs])


def test_of_equal_logits_the_lower_classes_come_first():
    images = Images(x=np.zeros((4, 1, 1, 1), np.uint8), y=np.arange(4, dtype=np.int32))
    for top_k in (1, 2, 4):
        (clean,) = transfer.measure(
            {},
            {"m": lambda x: tf.zeros([tf.shape(x)[0], 4])},
            images,
            [],
            [],
            batch_size=4,
            top_k=top_k,
        )
        assert 4 * clean["accuracy"] == top_k


@pytest.mark.parametrize("batch_size", [2, 5])
def test_what_is_nearly_right_counts_where_classes_have_an_order(batch_size):
    """The attack is the same for every source, so a target's row is as well."""
    models = {"up": groups.UP, "down": groups.DOWN}
    measured = (models, models, groups.IMAGES, [groups.ATTACK], (groups.EPS,))
    rows = transfer.measure(*measured, batch_size=batch_size, ordered_classes=4)
    assert [(row["source"], row["target"], *groups.told(row)) for row in rows] == [
        (None, "up", *groups.CLEAN_UP),
        (None, "down", *groups.CLEAN_DOWN),
        ("up", "up", *groups.ATTACKED_UP),
        ("up", "down", *groups.ATTACKED_DOWN),
        ("down", "up", *groups.ATTACKED_UP),
        ("down", "down", *groups.ATTACKED_DOWN),
    ]
    new = ["one_off", "confusion"]
    keys = ["source", "target", "attack", "eps", "accuracy", "n", "ci95", *new]
    assert list(rows[0]) == keys
    assert list(rows[2]) == [*keys, "audit", "transfer_rate", "kept"]
    # Without an order the rest is the same.
    plain = transfer.measure(*measured, batch_size=batch_size)
    assert plain == [
        {key: value for key, value in row.items() if key not in new} for row in rows
    ]


def test_one_off_is_of_the_largest_logit():
    """The second is the class above, or 2 for an image of class 3."""
    up = {"up": groups.UP}
    rows = transfer.measure(
        *(up, up, groups.IMAGES, [groups.ATTACK], (groups.EPS,)),
        batch_size=5,
        top_k=2,
        ordered_classes=4,
    )
    # {0, 1}, {2, 3}, {1, 2}, {3, 2}, {1, 2}: of y = 0, 0, 1, 2, 3 three are among them.
    assert groups.told(rows[0]) == (3, *groups.CLEAN_UP[1:])
    # {1, 2}, {3, 2}, {2, 3}, {3, 2}, {2, 3}: the last two.
    assert groups.told(rows[1]) == (2, *groups.ATTACKED_UP[1:])


def smooth(seed):
    """A smooth classifier of 5 classes."""
    rng = np.random.default_rng(seed)
    v, w = (rng.normal(size=s).astype(np.float32) for s in ((16, 7), (7, 5)))
    return lambda x: tf.tanh(tf.reshape(x, [-1, 16]) @ v) @ w


def test_the_white_box_is_that_of_an_evaluation():
    models = {"a": smooth(1), "b": smooth(2)}
    x = np.random.default_rng(3).integers(0, 256, (50, 4, 4, 1), np.uint8)
    y = tf.argmax(models["a"](x / np.float32(255)), axis=1, output_type=tf.int32)
    images, eps = Images(x=x, y=y.numpy()), (20 / 255, 4 / 255)
    attacks = entries("step_rnd", "iter_fgsm", "pgd", "random_normal", eps=eps)
    settings = {"batch_size": 20, "seed": 7}
    rows = transfer.measure(models, models, images, attacks, eps, **settings)
    for name, predict in models.items():
        more = ("source", "target", "transfer_rate", "kept")
        own = [
            {key: value for key, value in row.items() if key not in more}
            for row in rows
            if row["target"] == name and row["source"] in (None, name)
        ]
        expected = measure_white_box(predict, images, attacks, eps, **settings)
        # Only the white box has a worst case.
        assert own == expected[: -len(eps)]
    # Not one number for all, or the test would show nothing.
    assert len({row["accuracy"] for row in rows}) > 5


@dataclasses.dataclass(frozen=True)
class Noting:
    """Changes nothing and notes the images of each run and the sizes asked for."""

    noted: list

    def sweep(self, predict, x, y, sizes, seed):
        def note(x):
            self.noted.append((len(x), sizes))
            return x

        noted = tf.numpy_function(note, [x], tf.float32)
        return [tf.ensure_shape(noted, x.shape) for _ in sizes]


def test_images_are_crafted_once_for_all_targets_and_sizes():
    sources = {"s1": UP, "s2": ALONG}
    targets = {"t1": UP, "t2": ALONG, "s1": UP}
    noted = []
    two = [suite.Entry(label, "noting", Noting(noted)) for label in ("n1", "n2")]
    rows = transfer.measure(sources, targets, SEVEN, two, EPS, batch_size=4)
    # Two sources, two attacks; seven images are a batch of 4 and one of 3.
    assert noted == 4 * [(4, EPS), (3, EPS)]
    assert len(rows) == 3 + 2 * 2 * 3 * 2


def test_a_name_is_one_model():
    with pytest.raises(
        ValueError, match="'m' names one model in `sources` and another"
    ):
        transfer.measure(
            {"m": UP}, {"m": ALONG}, SEVEN, entries("step_fgsm"), EPS, batch_size=7
        )


@pytest.mark.parametrize("progress", [True, False])
def test_a_line_a_row(monkeypatch, progress):
    lines = []
    monkeypatch.setattr(
        transfer.logging, "info", lambda text, *args: lines.append(text % args)
    )
    transfer.measure(
        {"up": UP},
        {"along": ALONG},
        SEVEN,
        entries("step_fgsm"),
        [10 / 255],
        batch_size=7,
        progress=progress,
    )
    expected = [
        "along: clean, eps 0: 85.71 %",
        "up -> along: step_fgsm, eps 10/255: 85.71 %",
    ]
    assert lines == (expected if progress else [])
