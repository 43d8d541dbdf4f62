import numpy as np
import pytest
import tensorflow as tf

from tfadv import attacks
from tfadv.attacks import square

EPS = 0.125


def grey(n=3, side=8, channels=2):
    return tf.fill([n, side, side, channels], 0.5)


def total(x):
    """Logits [0, sum over pixels of +-(z - .5)] with a checkerboard of signs."""
    sign = 1.0 - 2.0 * (np.indices(x.shape[1:]).sum(axis=0) % 2)
    q = tf.reduce_sum((x - 0.5) * tf.constant(sign, tf.float32), axis=[1, 2, 3])
    return tf.stack([tf.zeros_like(q), q], axis=1)


def hopeless(x):
    """Always class 0, by a lead that the checkerboard decides."""
    return total(x) - tf.constant([0.0, 1e3])


def test_shares_of_ten_thousand_queries_and_in_proportion():
    """Halved after 10, 50, 200, 500, 1000, 2000, 4000, 6000 and 8000."""
    attack = attacks.Square(eps=EPS, queries=10_000)
    at = {1: 0, 10: 0, 11: 1, 50: 1, 51: 2, 201: 3, 501: 4, 1001: 5, 2001: 6, 4001: 7}
    for query, halvings in (at | {6001: 8, 8000: 8, 8001: 9, 10_000: 9}).items():
        assert float(attack._share(query)) == pytest.approx(0.8 / 2**halvings)
    short = attacks.Square(eps=EPS, queries=100, p_init=0.4)
    for query, halvings in {1: 2, 2: 2, 3: 3, 41: 7, 80: 8, 81: 9}.items():
        assert float(short._share(query)) == pytest.approx(0.4 / 2**halvings)
    # Of the schedule for 10,000, whatever their number.
    first = attacks.Square(eps=EPS, queries=5000, rescale=False)
    for query, halvings in {10: 0, 11: 1, 1001: 5, 2001: 6, 5000: 7}.items():
        assert float(first._share(query)) == pytest.approx(0.8 / 2**halvings)


def test_sides():
    # sqrt(.8 * 64) = 7.2, sqrt(.1 * 64) = 2.5 (to even), sqrt(.001 * 64) = .25.
    for share, linf, l2 in ((0.8, 7, 7), (0.1, 3, 3), (0.001, 1, 3)):
        assert square._side(share, grey(), "linf") == linf
        assert square._side(share, grey(), "l2") == l2
    assert square._side(0.8, grey(side=2), "l2") == 2


def test_the_first_images_are_stripes():
    x_adv = attacks.Square(eps=EPS, queries=1)(hopeless, grey(), [0] * 3, seed=1)
    moved = np.array(x_adv - grey())
    np.testing.assert_array_equal(np.abs(moved), np.full(moved.shape, EPS))
    np.testing.assert_array_equal(moved, np.broadcast_to(moved[:1, :1], moved.shape))
    assert {tuple(m) for m in moved[0, 0]} > {(EPS, EPS)} or len(np.unique(moved)) == 2


def test_a_query_changes_one_square():
    x, z = grey(), grey() + 0.05
    sides = set()
    for seed in range(40):
        side = 1 + seed % 8
        changed = square._patch(z, x, EPS, side, tf.constant([seed, 0], tf.int64))
        where = np.any(changed != z, axis=(0, 3))
        rows, columns = (np.flatnonzero(where.any(axis=a)) for a in (1, 0))
        assert len(rows) == len(columns) == side
        assert where[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        inside = np.array(changed)[:, rows[0], columns[0]] - 0.5
        np.testing.assert_allclose(np.abs(inside), EPS)
        sides.add((rows[0], rows[-1]))
    # Both edges are reached.
    assert {0} <= {first for first, _ in sides} and {7} <= {last for _, last in sides}


def test_corners_are_uniform():
    corners = [square._corner(grey(), 6, [seed, 1]).numpy() for seed in range(600)]
    places, counts = np.unique(corners, axis=0, return_counts=True)
    # 9 places, 67 each, standard deviation 7.7.
    assert len(places) == 9 and places.min() == 0 and places.max() == 2
    np.testing.assert_allclose(counts, 600 / 9, atol=35)


def test_a_bump_by_hand():
    """5x5: n = 2, in the middle 1/9 + 1/4 + 1, then 1/9 + 1/4, at the rim 1/9."""
    a, b, c = 1 / 9, 1 / 9 + 1 / 4, 1 / 9 + 1 / 4 + 1
    expected = np.full([5, 5], a)
    expected[1:4, 1:4] = b
    expected[2, 2] = c
    values = square.bump(tf.range(5)[:, None], tf.range(5)[None, :], 5, 5)
    np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_a_pair_of_bumps_fills_a_square_with_opposite_signs():
    rows, columns = square._coordinates(grey(), (2, 1))
    values = square.pair(rows, columns, 5)[0, :, :, 0].numpy()
    inside = np.zeros([8, 8], bool)
    inside[2:7, 1:6] = True
    np.testing.assert_array_equal(values != 0, inside)
    assert np.all(values[2:4, 1:6] > 0) and np.all(values[4:7, 1:6] < 0)
    # 5 x 2 and 5 x 3: both of n = 2 with the largest value 1/9 + 1/4 + 1.
    assert values.max() == pytest.approx(1 + 1 / 4 + 1 / 9) == -values.min()


def test_l2_steps_use_the_whole_ball():
    """Nothing is clipped here, so that every perturbation has the norm eps."""
    x = grey(channels=3)
    eps = tf.fill([3, 1, 1, 1], 0.5)
    z = square._tiles(x, eps, tf.constant([4, 0], tf.int64))
    for seed in range(12):
        side = [3, 5, 7][seed % 3]
        new = square._bumps(z, x, eps, side, tf.constant([seed, 0], tf.int64))
        moved = np.reshape(new - x, [3, -1])
        np.testing.assert_allclose(np.linalg.norm(moved, axis=1), 0.5, rtol=1e-5)
        # Of all channels two squares at most.
        changed = np.abs(new - z) > 1e-6
        assert 0 < np.any(changed, axis=(0, 3)).sum() <= 2 * side**2
        z = new


@pytest.mark.parametrize("norm, eps", [("linf", EPS), ("l2", 0.75)])
def test_the_margin_grows_and_the_ball_holds(norm, eps):
    x, y = grey(), [0] * 3
    margins = []
    for queries in (1, 30, 300):
        attack = attacks.Square(eps=eps, norm=norm, queries=queries)
        run = tf.function(lambda x, attack=attack: attack(hopeless, x, y, seed=2))
        z = run(x)
        moved = np.reshape(z - x, [3, -1])
        order = {"linf": np.inf, "l2": 2}[norm]
        assert np.all(np.linalg.norm(moved, axis=1, ord=order) <= eps * (1 + 1e-5))
        margins.append(float(total(z)[0, 1]))
    assert margins[0] < margins[1] < margins[2]
    if norm == "linf":
        # All 128 values are found, the checkerboard by squares of one pixel.
        assert margins[2] > 0.5 * 128 * EPS


def test_a_linear_model_is_fooled_and_left_alone_then(linear):
    """w = (3, -4) on two pixels; queries end when all are fooled."""
    x = tf.constant([(0.5, 0.45), (0.5, 0.5)], tf.float32)[:, None, :, None]
    asked = []

    def counted(z):
        asked.append(len(z))
        return linear[0](z)

    # -.3 + 7 eps > 0 and -.5 + 7 eps > 0 in one corner of four; the loop is eager.
    x_adv = attacks.Square(eps=EPS, queries=200)(counted, x, [0, 0], seed=3)
    assert np.all(linear[0](x_adv)[:, 1] > 0)
    assert len(asked) < 200 and asked == sorted(asked, reverse=True)


def test_fooled_examples_cost_no_queries():
    x = tf.concat([grey(2), grey(1) + 0.1], axis=0)

    def easy(z):
        asked.append(len(z))
        return hopeless(z) + tf.constant([0.0, 2e3]) * tf.cast(
            tf.reduce_mean(z, axis=[1, 2, 3])[:, None] > 0.55, tf.float32
        )

    asked = []
    attacks.Square(eps=1 / 255, queries=5)(easy, x, [0, 0, 0], seed=0)
    assert asked == [3, 2, 2, 2, 2]


def test_no_gradient_is_asked_for():
    @tf.custom_gradient
    def flat(x):
        def refuse(_):
            raise AssertionError("a black box has no gradient")

        return total(x), refuse

    attacks.Square(eps=EPS, queries=5)(flat, grey(), [0] * 3, seed=0)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"queries": 0}, "`queries` must be at least 1; received 0"),
        ({"p_init": 0}, r"`p_init` must be in \(0, 1\]; received 0"),
    ],
)
def test_fields_out_of_range_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        attacks.Square(eps=EPS, **fields)
