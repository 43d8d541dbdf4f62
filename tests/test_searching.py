import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfadv import searching
from tfadv.attacks import PGD, RandomSign, SingleStep
from tfadv.data import Images
from tfadv.evaluation import suite, whitebox

# With w = (3, -4) a step of e pixels moves 3 a - 4 b by 7 e towards the other side:
# right when clean 60, 100, -20, -180; wrong from e = 9, 15, 3 and 26 on; and -60.
FIVE = Images(
    x=np.array([(100, 60), (100, 50), (100, 80), (100, 120), (100, 90)], np.uint8)[
        :, None, :, None
    ],
    y=np.array([1, 1, 0, 0, 1], np.int32),
)
STEP = suite.Entry("step_fgsm", "step_fgsm", SingleStep(eps=0.1))


def tiny():
    """x -> h = x -> logits (h, -h), x of one pixel."""
    inputs = keras.Input((1, 1, 1))
    hidden = layers.Dense(1, use_bias=False)(layers.Flatten()(inputs))
    model = keras.Model(inputs, layers.Dense(2, use_bias=False)(hidden))
    model.set_weights([np.ones((1, 1)), np.array([[1.0, -1.0]])])
    return model


def test_hidden_layers_are_rounded_and_nothing_else():
    """bfloat16 near 1 has steps of 1/128: h = 1 + 1/512 is 1. The model rounds not."""
    model = tiny()
    predict = searching.in_bfloat16(model)
    x = np.full((3, 1, 1, 1), 1 + 1 / 512, np.float32)
    logits = predict(tf.constant(x))
    assert logits.dtype == tf.float32
    np.testing.assert_array_equal(logits, [[1, -1]] * 3)
    exact = model(x, training=False)
    np.testing.assert_array_equal(exact, [[1 + 1 / 512, -1 - 1 / 512]] * 3)
    # A copy of the weights of that moment.
    model.set_weights([2 * np.ones((1, 1)), np.array([[1.0, -1.0]])])
    np.testing.assert_array_equal(predict(tf.constant(x)), [[1, -1]] * 3)


def test_attacks_find_their_gradient_in_it():
    """Down for class 0, up for class 1."""
    predict = searching.in_bfloat16(tiny())
    x = tf.fill([2, 1, 1, 1], 0.5)
    attack = PGD(eps=0.25, steps=4, random_start=False)
    crafted = tf.function(lambda: attack(predict, x, tf.constant([0, 1])))()
    np.testing.assert_allclose(np.ravel(crafted), [0.25, 0.75], atol=1e-6)


def measured(predict, entries, *eps):
    rows = whitebox.measure(
        *(predict, FIVE, entries, eps),
        batch_size=2,
        progress=False,
        drop_broken=True,
    )
    return [
        (row["attack"], round(5 * row["accuracy"]), row.get("of"))
        for row in rows
        if row["attack"] != whitebox.WORST_CASE
    ]


@pytest.mark.parametrize(("pixels", "left"), [(2, 4), (10, 2), (20, 1)])
def test_what_a_twin_breaks_is_not_attacked_again(linear, pixels, left):
    predict, _ = linear
    both = searching.first_on(predict, [STEP], "a copy")
    assert measured(predict, both, pixels / 255) == [
        ("clean", 4, None),
        ("step_fgsm in a copy", left, 4),
        ("step_fgsm", left, left),
    ]


def test_a_bad_twin_makes_no_accuracy_larger(linear):
    """It moves all away from the border, so nothing is broken on it."""
    predict, _ = linear
    both = searching.first_on(lambda x: -predict(x), [STEP], "a mirror")
    assert measured(predict, both, 10 / 255) == [
        ("clean", 4, None),
        ("step_fgsm in a mirror", 4, 4),
        ("step_fgsm", 2, 4),
    ]


def test_noise_is_not_made_twice():
    noise = suite.Entry("random_sign", "random_sign", RandomSign(eps=0.1))
    l2 = suite.Entry("pgd", "pgd", PGD(eps=2.0, norm="l2"))
    entries = searching.first_on(None, [noise, l2], "a twin")
    assert [one.label for one in entries] == ["random_sign", "pgd in a twin", "pgd"]
    assert suite.norm_of(entries[1].attack) == "l2"
    assert entries[2] is l2
