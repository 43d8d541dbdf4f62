import dataclasses

import numpy as np
import pytest
import tensorflow as tf

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
        (8 / 256, "8/256"),
        (16 / 256, "0.0625"),  # short enough
        (0.5 / 255, "0.00196078"),
    ],
)
def test_format_eps(eps, text):
    assert format_eps(eps) == text
