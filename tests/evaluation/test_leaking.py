import dataclasses
import math

import numpy as np
import pytest
import tensorflow as tf

from tests.evaluation import groups
from tfadv import attacks
from tfadv.data import Images
from tfadv.evaluation import leaking, suite
from tfadv.evaluation.whitebox import row


def test_leaked_by_hand():
    with_label = np.array([True, True, True, False, False])
    without_label = np.array([True, False, False, True, False])
    assert leaking.leaked(with_label, without_label) == 2
    assert leaking.leaked(without_label, with_label) == 1
    assert leaking.leaked(with_label, with_label) == 0


@pytest.mark.parametrize("shapes", [((3,), (4,)), ((2, 2), (2, 2))])
def test_leaked_is_of_the_same_images(shapes):
    one, other = (np.ones(shape, bool) for shape in shapes)
    with pytest.raises(ValueError, match="two lists of one length, of the same images"):
        leaking.leaked(one, other)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Darker:
    eps: float

    def __call__(self, predict, x, y, seed=None):
        return tf.maximum(x - self.eps, 0.0)


# Batches of 2 leave a last one of 1.
@pytest.mark.parametrize("batch_size", [2, 5])
def test_what_leaks_and_what_is_gained(batch_size):
    """Ten pixels darker, the five images are called 0, 1, 0, 2, 0: the first and the
    fourth rightly. Ten brighter none is right; the first and the third are when clean.
    """
    darker = suite.Entry("darker", "darker", Darker(eps=groups.EPS))
    (found,) = leaking.measure(
        *(groups.UP, groups.IMAGES, darker, groups.ATTACK, [groups.EPS]),
        batch_size=batch_size,
        progress=False,
    )
    assert found == {
        "eps": groups.EPS,
        "n": 5,
        "clean": 2 / 5,
        "with_label": 2 / 5,
        "without_label": 0.0,
        "leaked": 2,
        "gained": 1,
    }


def wave(x):
    """Logits 0 and z = cos(2 pi p / 40) of a pixel p."""
    z = tf.cos(2 * math.pi * 255 / 40 * tf.reshape(x, [-1, 1]))
    return tf.concat([tf.zeros_like(z), z], axis=1)


# | pixel | y | phase | z     | goes for y | after 10    | after 30    |
# |-------|---|-------|-------|------------|-------------|-------------|
# | 85    | 1 |  45   | above | up         | 135 below   | 315 above   |
# | 105   | 1 | 225   | below | down       | 135 below   | -45 above   |
# | 115   | 0 | 315   | above | up         | 405 above   | 585 below   |
# | 125   | 1 |  45   | above | up         | 135 below   | 315 above   |
# | 65    | 0 | 225   | below | up         | 315 above   | 495 below   |
# | 145   | 0 | 225   | below | up         | 315 above   | 495 below   |
WAVES = Images(
    x=np.array([85, 105, 115, 125, 65, 145], np.uint8).reshape(6, 1, 1, 1),
    y=np.array([1, 1, 0, 1, 0, 0], np.int32),
)


def test_a_model_that_reads_the_step_of_an_attack():
    """FGSM lowers z for y = 1 and raises it for y = 0, as far as the slope tells: with
    10 pixels, a quarter of a wave, all become wrong, with 30 all become right.

    The least likely of two classes is the true one where an image is wrong, which the
    second and the third are. There step_ll goes the other way, by half a wave to the
    other side of what FGSM does: right with 10 pixels, wrong with 30.
    """
    eps = [10 / 255, 30 / 255]
    fgsm, step_ll = (suite.entry(name, eps, "h") for name in ("step_fgsm", "step_ll"))
    small, large = leaking.measure(
        wave, WAVES, fgsm, step_ll, eps, batch_size=4, progress=False
    )
    both = {"n": 6, "clean": 4 / 6}
    assert small == both | {
        "eps": eps[0],
        "with_label": 0.0,
        "without_label": 2 / 6,
        "leaked": 0,
        "gained": 0,
    }
    assert large == both | {
        "eps": eps[1],
        "with_label": 1.0,
        "without_label": 4 / 6,
        "leaked": 2,
        "gained": 2,
    }


@pytest.mark.parametrize("name", sorted(set(attacks.ATTACKS) - {"generator"}))
def test_which_attacks_use_the_label(name):
    attack = attacks.get(name)(eps=0.1)
    informed = getattr(attack, "label", None) == "true" or name == "step_both"
    by_entropy = getattr(attack, "loss", None) == "entropy"
    one_step = name in attacks.ONE_STEP
    assert leaking.uses_label(name) == (one_step and informed and not by_entropy)


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("r_fgsm(alpha=0.1)", True),
        ("step_fgsm(label=predicted)", False),
        ("step_fgsm(label=true, direction=l2)", True),
        ("step_fgsm(loss=entropy)", False),
        ("step_ll(label=true)", True),
        ("pgd(steps=3)", False),
        ("pgd(label=true)", False),
        ("clean", False),
    ],
)
def test_arguments_decide_whether_the_label_is_used(label, expected):
    assert leaking.uses_label(label) is expected


def told(clean, **accuracies):
    """Rows of 1000 images: percent clean, and of attacks at 16/255."""
    rows = [row("clean", 0.0, 10 * clean, 1000)]
    return rows + [
        row(name, 16 / 255, 10 * percent, 1000) for name, percent in accuracies.items()
    ]


def test_a_helpful_attack_is_called_label_leaking():
    (sentence,) = leaking.verdicts(
        told(77, step_fgsm=87, fast_grad_l2=82, step_ll=72, iter_fgsm=20)
    )
    assert sentence == (
        "At eps 16/255 step_fgsm leaves 87.0 %, more than the 77.0 % of clean images; "
        "step_ll leaves 72.0 %: label leaking, the attack uses the true label and the "
        "model reads it off the image. Do not believe the row step_fgsm; use step_ll."
    )
    (alone,) = leaking.verdicts(told(77, r_fgsm=87))
    assert "of clean images: label leaking" in alone
    assert "Do not believe the row r_fgsm; use step_ll." in alone


def test_a_sentence_for_every_eps_that_leaks():
    rows = told(77, step_fgsm=87)
    rows += [row("step_fgsm", 4 / 255, 860, 1000), row("step_fgsm", 2 / 255, 500, 1000)]
    found = [sentence.split()[:4] for sentence in leaking.verdicts(rows)]
    assert found == [["At", "eps", f"{e}/255", "step_fgsm"] for e in (4, 16)]


@pytest.mark.parametrize(
    "accuracies",
    [
        {"step_fgsm": 77},
        {"step_fgsm": 40},
        # Of 1000, 77 % is [74.3, 79.5] and 81 % is [78.5, 83.3].
        {"step_fgsm": 81},
        # None of these uses the true label in one step.
        {"step_ll": 90},
        {"fgsm_pred": 90},
        {"random_sign": 90},
        {"iter_fgsm": 90},
    ],
)
def test_silent_where_no_label_makes_it_easier(accuracies):
    assert leaking.verdicts(told(77, **accuracies)) == []


def test_silent_where_nothing_clean_was_measured():
    assert leaking.verdicts(told(77, step_fgsm=90)[1:]) == []


def test_few_leaked_labels_do_not_outweigh_the_errors():
    """Of 10,000 images 9,900 are right when clean, 9,000 under the attack and, of
    these, 79 wrong under its twin: 79 leak, and there is nothing to say."""
    n, right, leaks = 10_000, 9_000, 79
    with_label = np.arange(n) < right
    without_label = np.arange(n) < right - leaks
    assert leaking.leaked(with_label, without_label) == leaks
    rows = [row("clean", 0.0, 9_900, n), row("step_fgsm", 0.3, right, n)]
    assert leaking.verdicts(rows) == []
