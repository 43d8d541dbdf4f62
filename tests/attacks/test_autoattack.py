import numpy as np
import pytest
import tensorflow as tf

from tfadv import attacks
from tfadv.attacks import search

EPS = 0.1
# w . x of the conftest's model: 0.1 (wrong), -0.3, -0.6 and -0.8, of label 0. A ball of
# eps moves it by 7 eps = 0.7, the l2 ball by 5 eps = 0.5.
X = tf.constant([(0.5, 0.35), (0.5, 0.45), (0.4, 0.45), (0.4, 0.5)], tf.float32)[
    :, None, :, None
]
Y = [0, 0, 0, 0]


def make(**fields):
    return attacks.AutoAttack(eps=EPS, steps=5, queries=20, **fields)


@pytest.mark.parametrize(
    "norm, fooled", [("linf", [True, True, False]), ("l2", [True, False, False])]
)
def test_what_can_be_fooled_is_and_the_rest_is_left(linear, norm, fooled):
    """Compiled with an unknown batch size, of which four, one or none can be fooled."""
    predict, w = linear
    attack = make(norm=norm)
    run = tf.function(
        lambda x, y: attack(predict, x, y, seed=4),
        input_signature=[
            tf.TensorSpec([None, 1, 2, 1]),
            tf.TensorSpec([None], tf.int32),
        ],
    )
    x_adv = run(X, Y)
    # What is misclassified, and what cannot be fooled, stays as it is.
    moved = np.any(np.reshape(x_adv != X, [4, 2]), axis=1)
    np.testing.assert_array_equal(moved, [False, *fooled])
    np.testing.assert_array_equal(np.reshape(x_adv, [4, 2]) @ w > 0, [True, *fooled])
    for part in (slice(1, 2), slice(0, 1), slice(3, 4)):
        np.testing.assert_array_equal(run(X[part], Y[part]), x_adv[part])
    assert run(X[:0], Y[:0]).shape == (0, 1, 2, 1)


def test_each_attack_sees_what_the_last_one_left(linear, monkeypatch):
    """Four that fool the first of what they are given, in the order of AutoAttack."""
    given = []

    def stub(name):
        def call(self, predict, x, y, seed=None):
            given.append((name, self.eps.shape[0], np.ravel(x)[::2].tolist()))
            row = tf.reshape(tf.range(len(x)) == 0, [-1, 1, 1, 1])
            return tf.where(row, tf.reshape(tf.constant([1.0, 0.0]), [1, 1, 2, 1]), x)

        return call

    for factory in (attacks.APGD, attacks.FABTargeted, attacks.Square):
        monkeypatch.setattr(factory, "__call__", stub(factory.__name__))
    x = tf.concat([X[1:], X[2:], X[3:]], axis=0)
    x_adv = make()(linear[0], x, [0] * 6, seed=0)
    names = ["APGD", "APGD", "FABTargeted", "Square"]
    assert [name for name, _, _ in given] == names
    assert [n for _, n, _ in given] == [6, 5, 4, 3]
    first = np.ravel(x)[::2].tolist()
    assert [seen for _, _, seen in given] == [first[i:] for i in range(4)]
    np.testing.assert_array_equal(x_adv[4:], x[4:])
    np.testing.assert_array_equal(np.reshape(x_adv[:4], [4, 2]), [[1, 0]] * 4)


def test_nothing_is_computed_when_all_are_fooled(linear, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("no image is left")

    for factory in (attacks.APGD, attacks.FABTargeted, attacks.Square):
        monkeypatch.setattr(factory, "__call__", refuse)
    np.testing.assert_array_equal(make()(linear[0], X[:1], [0], seed=0), X[:1])


def test_the_standard_sequence():
    ce, ratio, fab, square = attacks.AutoAttack(eps=EPS).attacks(EPS, classes=10)
    assert ce == attacks.APGD(eps=EPS, first=True)
    assert ratio == attacks.APGDTargeted(eps=EPS, first=True)
    assert fab == attacks.FABTargeted(eps=EPS)
    assert square == attacks.Square(eps=EPS, rescale=False)
    assert (ratio.targets, fab.targets, ce.steps, fab.steps) == (9, 9, 100, 100)
    assert square.queries == 5000
    # Three classes have no fourth logit.
    few = attacks.AutoAttack(eps=EPS, norm="l2").attacks(EPS, classes=3)
    assert [one.norm for one in few] == ["l2"] * 4
    assert few[1].loss == "margin"


@pytest.mark.parametrize("name", ["steps", "restarts", "targets", "queries"])
def test_fields_out_of_range_are_refused(name):
    with pytest.raises(ValueError, match=f"`{name}` must be at least 1; received 0"):
        attacks.AutoAttack(eps=EPS, **{name: 0})
    with pytest.raises(ValueError, match="`eps`"):
        attacks.AutoAttack(eps=2.0)


def test_likely_others():
    logits = tf.constant([[1.0, 3.0, 2.0], [1.0, 3.0, 2.0]])
    for count, expected in (
        (1, [[1], [2]]),
        (2, [[1, 2], [2, 0]]),
        (9, [[1, 2], [2, 0]]),
    ):
        others = search.likely_others(lambda x: logits, None, [0, 1], count)
        np.testing.assert_array_equal(others, expected)


def test_lead_and_its_gradient(linear):
    predict, w = linear
    value, gradient = search.lead(predict, X, [0, 1, 0, 1], [1, 0, 1, 0])
    sign = np.array([1, -1, 1, -1])
    np.testing.assert_allclose(
        np.ravel(value), sign * (np.reshape(X, [4, 2]) @ w), rtol=1e-5
    )
    np.testing.assert_allclose(np.reshape(gradient, [4, 2]), sign[:, None] * w)


@pytest.mark.parametrize("compiled", [False, True])
def test_where_needed(compiled):
    def run(needed):
        return search.where_needed(
            needed, lambda x, more: x + more[:, None, None, None], X, tf.range(4.0)
        )

    run = tf.function(run) if compiled else run
    for needed in ([False] * 4, [True, False, False, True], [True] * 4):
        added = np.where(needed, np.arange(4.0), 0)[:, None, None, None]
        np.testing.assert_allclose(run(tf.constant(needed)), X + added, rtol=1e-6)


def test_best_of_ends_with_success_and_keeps_the_largest_margin(linear):
    """Attempt i returns the i-th of its points; w . x of label 0 is to be positive."""
    predict, _ = linear
    # w . x = -1, -.4, -.7, .2, .8
    points = [(0.2, 0.4), (0.2, 0.25), (0.3, 0.4), (0.6, 0.4), (0.8, 0.4)]
    points = tf.constant(points, tf.float32)[:, None, :, None]

    def attempt(number, x, y):
        del y
        return tf.repeat(points[number][None], len(x), axis=0)

    for count, best in ((1, 0), (2, 1), (3, 1), (4, 3), (5, 3)):
        found = search.best_of(attempt, count, predict, X[1:2], tf.constant([0]))
        np.testing.assert_array_equal(found[0], points[best])
