import numpy as np
import pytest
import tensorflow as tf

from tfadv import attacks, losses
from tfadv.attacks import apgd

EPS = 0.125
RAISE = np.array([1, -1])


def images(*rows):
    return tf.constant(rows, tf.float32)[:, None, :, None]


def rows(x):
    return np.array(x)[:, 0, :, 0]


def test_checkpoints_of_a_hundred_steps():
    """p = 0, .22, then lengths .19, .16, .13, .10, .07 and .06 for ever."""
    expected = [0, 22, 41, 57, 70, 80, 87, 93, 99]
    assert apgd.checkpoints(100) == expected
    # ceil(p N)
    assert apgd.checkpoints(10) == [0, 3, 5, 6, 7, 8, 9, 10]
    assert apgd.checkpoints(1) == [0, 1]
    assert apgd.checkpoints(1000) == [10 * w for w in expected]


# Sorted: 5, 3, 2, -1.
LOGITS = [[2.0, 5.0, -1.0, 3.0]]


@pytest.mark.parametrize(
    "y, expected", [(1, (3 - 5) / (5 - 2)), (3, (5 - 3) / (5 - 2)), (2, (5 + 1) / 3)]
)
def test_dlr(y, expected):
    for scaled in (np.array(LOGITS), 100 * np.array(LOGITS) + 7):
        np.testing.assert_allclose(
            apgd.dlr([y], tf.constant(scaled, tf.float32)), [expected], rtol=1e-5
        )


@pytest.mark.parametrize(
    "y, target, expected",
    # The denominator is 5 - (2 - 1) / 2 = 4.5.
    [(1, 3, -2 / 4.5), (1, 2, -6 / 4.5), (0, 1, 3 / 4.5)],
)
def test_targeted_dlr(y, target, expected):
    for scaled in (np.array(LOGITS), 100 * np.array(LOGITS) + 7):
        value = apgd.targeted_dlr([y], [target], tf.constant(scaled, tf.float32))
        np.testing.assert_allclose(value, [expected], rtol=1e-5)


@pytest.mark.parametrize("targets, least", [(None, 3), (1, 4)])
def test_a_ratio_of_too_few_classes_is_refused(targets, least):
    attack = attacks.APGD(eps=EPS, loss="dlr", targets=targets)
    few = lambda x: tf.zeros([tf.shape(x)[0], least - 1])  # noqa: E731
    with pytest.raises(ValueError, match=f"at least {least} classes.*'margin'"):
        attack(few, images((0.5, 0.5)), [0], seed=0)


@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
@pytest.mark.parametrize("targets", [None, 3])
@pytest.mark.parametrize("norm, way", [("linf", RAISE), ("l2", np.array([0.6, -0.8]))])
def test_a_linear_model_is_driven_to_the_corner(linear, loss, targets, norm, way):
    """w = (3, -4): the corner of the square, or w / |w| on the circle."""
    predict, _ = linear
    # w . x = -10 eps and 10 eps: all withstand, as |w|_1 is 7 and |w|_2 is 5.
    x = np.array([(0.3, 0.225 + 2.5 * EPS), (0.7, 0.525 - 2.5 * EPS)])
    attack = attacks.APGD(eps=EPS, norm=norm, loss=loss, targets=targets, steps=20)
    x_adv = attack(predict, images(*x), [0, 1], seed=3)
    np.testing.assert_allclose(
        rows(x_adv),
        x + EPS * np.array([way, -way]),
        atol=2e-3 if norm == "l2" else 1e-6,
    )


def trace(attack, predict, x, y, **fields):
    """The points at which the attack asks for a gradient, in order."""
    points = []

    def spied(z):
        points.append(np.ravel(z))
        return predict(z)

    attack(spied, x, y, seed=0, **fields)
    return points


def test_the_steps_by_hand():
    """In one dimension, loss q = c - |z - .5|, from a start to its left.

    z_1 is 2 eps to the right, clipped; from there the sign is always that towards .5.
    N = 10 has checkpoints at 3, 5, 6, 7, 8, 9 and 10.
    """
    eps, x0 = 0.2, 0.45

    def peak(x):
        z = x[:, 0, 0, 0]
        return tf.stack([tf.zeros_like(z), -1.0 - tf.abs(z - 0.5)], axis=1)

    x = tf.fill([1, 1, 1, 1], x0)
    attack = attacks.APGD(eps=eps, loss="margin", steps=10)
    points = [float(p[0]) for p in trace(attack, peak, x, [0])]

    def clip(z):
        return float(np.clip(z, x0 - eps, x0 + eps))

    def loss(z):
        return -1.0 - abs(z - 0.5)

    z = before = points[0]
    eta, best, rises, halved, best_then = 2 * eps, z, 0, False, loss(z)
    expected, windows = [z], {3: 3, 5: 2, 6: 1, 7: 1, 8: 1, 9: 1, 10: 1}
    for k in range(10):
        a = 1.0 if k == 0 else 0.75
        ahead = clip(z + eta * np.sign(0.5 - z))
        moved = clip(z + a * (ahead - z) + (1 - a) * (z - before))
        expected.append(moved)
        rises += loss(moved) > loss(z)
        best = max(best, moved, key=loss)
        before, z = z, moved
        if k + 1 in windows:
            stuck = not halved and loss(best) <= best_then
            halved = rises < 0.75 * windows[k + 1] or stuck
            best_then, rises = loss(best), 0
            if halved:
                eta, z = eta / 2, best
    # The last question is about the result.
    np.testing.assert_allclose(points, [*expected, best], atol=1e-5)
    assert eta < 2 * eps and abs(best - 0.5) < 0.05


def test_targets_are_the_likeliest_others_of_the_clean_image():
    """Class 3 is won by pixel 3 alone; it is the third likeliest besides class 0.

    Logits x_0 .. x_3 of four pixels, of which the first three are at most 0.3 there.
    """
    weights = tf.constant([1.0, 0.0, 0.0, 4.0])
    offset = tf.constant([0.0, 0.2, 0.1, -1.2])

    def predict(x):
        return tf.reshape(x, [-1, 4]) * weights + offset

    x = images((0.6, 0.5, 0.5, 0.25))
    kinds = {"eps": 0.15, "loss": "margin", "steps": 5}
    # z = (.6, .2, .1, -.2); within .15 z_0 >= .45 and z_3 <= .4 do not meet.
    for targets in (1, 2, 3):
        attack = attacks.APGD(**kinds, targets=targets)
        assert predict(attack(predict, x, [0], seed=0)).numpy().argmax() == 0
    # Within .2 they do: .4 and .6.
    for targets, fooled in ((1, False), (2, False), (3, True)):
        attack = attacks.APGD(**kinds | {"eps": 0.2}, targets=targets)
        assert (
            predict(attack(predict, x, [0], seed=0)).numpy().argmax() == 3
        ) == fooled


@pytest.mark.parametrize("first", [False, True])
def test_a_misclassified_point_is_never_given_up(first):
    """Only a narrow ditch is misclassified, while the loss grows outside it.

    q = z - 1, but 1/2 where .5 < z < .52: an ascent that passes through goes on.
    """

    def ditch(x):
        z = x[:, 0, 0, 0]
        inside = tf.logical_and(z > 0.5, z < 0.52)
        q = tf.where(inside, 0.5 - 0.0 * z, 3.0 * z - 4.0)
        return tf.stack([tf.zeros_like(q), q], axis=1)

    # Starts spread over the ball; some of 40 restarts fall into the ditch.
    x = tf.fill([1, 1, 1, 1], 0.5)
    attack = attacks.APGD(eps=0.25, steps=3, restarts=40, first=first)
    x_adv = attack(ditch, x, [0], seed=1)
    assert losses.margin([0], ditch(x_adv))[0] > 0
    assert 0.5 < float(x_adv[0, 0, 0, 0]) < 0.52


def test_the_first_misclassified_point_or_the_one_of_largest_loss(linear):
    predict, w = linear
    x = images((0.5, 0.45))
    ends = [
        (rows(attacks.APGD(eps=EPS, first=f)(predict, x, [0], seed=2)) @ w)[0]
        for f in (True, False)
    ]
    # w . x = -.3 there; the corner has -.3 + 7 eps.
    assert 0 < ends[0] <= ends[1]
    assert ends[1] == pytest.approx(-0.3 + 7 * EPS, abs=1e-5)


def test_an_example_does_not_depend_on_its_place(linear):
    x, y = images((0.5, 0.25), (0.4, 0.5), (0.3, 0.3)), np.array([0, 1, 0])
    attack = attacks.APGD(eps=EPS, steps=5, restarts=2)
    forth = attack(linear[0], x, y, seed=5)
    back = attack(linear[0], x[::-1], y[::-1], seed=5)
    np.testing.assert_array_equal(forth, back[::-1])
    np.testing.assert_array_equal(forth[1:2], attack(linear[0], x[1:2], y[1:2], seed=5))


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"steps": 0}, "`steps` must be at least 1; received 0"),
        ({"restarts": 0}, "`restarts` must be at least 1"),
        ({"targets": 0}, "`targets` must be at least 1"),
        ({"rho": 1.5}, r"`rho` must be in \[0, 1\]; received 1.5"),
        ({"momentum": -1}, r"`momentum` must be in \[0, 1\]"),
    ],
)
def test_fields_out_of_range_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        attacks.APGD(eps=EPS, **fields)
