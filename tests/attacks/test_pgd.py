import numpy as np
import pytest
import tensorflow as tf

from tfadv import attacks

EPS = 0.125
# Raises w . x of the linear model: the way out of class 0.
RAISE = np.array([1, -1])
SEED = 7


def images(*rows):
    return tf.constant(rows, tf.float32)[:, None, :, None]


def rows(x):
    return np.array(x)[:, 0, :, 0]


def start(x, attempt, eps=EPS):
    """x + U(-eps, eps) of the attempt, in [0, 1]."""
    seed = tf.random.experimental.stateless_fold_in(
        tf.constant([SEED, 0], tf.int64), tf.constant(attempt, tf.int64), alg="philox"
    )
    u = tf.random.stateless_uniform(x.shape, seed, -1, 1, alg="philox")
    return np.clip(x + eps * u, 0, 1)


@pytest.mark.parametrize(
    "fields, distance",
    [
        # 10 steps of eps / 4 by default, the ball ends at eps.
        ({}, 1),
        ({"steps": 1}, 0.25),
        ({"steps": 3}, 0.75),
        ({"steps": 5}, 1),
        ({"steps": 3, "step_size": EPS / 6}, 0.5),
        ({"steps": 3, "step_size": EPS / 2}, 1),
    ],
)
def test_from_the_clean_image(linear, fields, distance):
    x = [(0.5, 0.25), (0.25, 0.5)]
    attack = attacks.PGD(eps=EPS, random_start=False, **fields)
    x_adv = attack(linear[0], images(*x), [0, 1])
    np.testing.assert_allclose(
        rows(x_adv), x + distance * EPS * np.array([RAISE, -RAISE]), rtol=1e-6
    )


def test_the_end_is_a_corner_of_the_ball_from_any_start(linear):
    # Ten steps of eps / 4 cross the ball, 2 eps wide, whatever the start.
    x = images(*[(0.5, 0.25)] * 8)
    x_adv = attacks.ATTACKS["pgd"](eps=EPS)(linear[0], x, [0] * 8, seed=SEED)
    np.testing.assert_allclose(rows(x_adv), rows(x) + EPS * RAISE, rtol=1e-6)


@pytest.mark.parametrize("steps", [1, 2])
def test_steps_from_a_random_start(linear, steps):
    x = images(*[(0.5, 0.25)] * 8)
    first = start(x, 0)
    assert np.std(first - x) > 0.4 * EPS  # 1 / sqrt(3) of it
    attack = attacks.PGD(eps=EPS, steps=steps)
    expected = rows(first) + steps * EPS / 4 * RAISE
    np.testing.assert_allclose(
        rows(attack(linear[0], x, [0] * 8, seed=SEED)),
        np.clip(expected, rows(x) - EPS, rows(x) + EPS),
        rtol=1e-6,
    )


def test_the_start_is_clipped_to_the_range(linear):
    """Leaving class 0 leads from (0, 1) inwards: eps / 4 from the clipped start."""
    x = images(*[(0.0, 1.0)] * 8)
    first = rows(start(x, 0))
    assert np.any(first == (0, 1)) and np.any(first != (0, 1))
    attack = attacks.PGD(eps=EPS, steps=1)
    np.testing.assert_allclose(
        rows(attack(linear[0], x, [0] * 8, seed=SEED)),
        np.clip(first + EPS / 4 * RAISE, (0, 1 - EPS), (EPS, 1)),
        rtol=1e-6,
    )


def test_steps_are_clipped_to_the_range(linear):
    x = images((1.0, 0.0625))
    x_adv = attacks.PGD(eps=EPS, random_start=False)(linear[0], x, [0])
    np.testing.assert_array_equal(rows(x_adv), [(1, 0)])


def test_every_example_has_an_eps_of_its_own(linear):
    """Ball, start and step (eps / 4) alike."""
    x = images(*[(0.5, 0.25)] * 4)
    eps = np.array([0, 0.03125, 0.0625, 0.125], np.float32)[:, None, None, None]
    attack = attacks.PGD(eps=tf.constant(eps), steps=1)
    expected = start(x, 0, eps) + eps / 4 * RAISE[None, None, :, None]
    np.testing.assert_allclose(
        attack(linear[0], x, [0] * 4, seed=SEED),
        np.clip(expected, x - eps, x + eps),
        rtol=1e-6,
    )


@pytest.mark.parametrize("restarts", [2, 3, 5])
def test_restarts_keep_the_largest_margin_of_every_example(linear, restarts):
    """With steps of size 0 an attempt is its random start.

    The margin is w . x for label 0 and -w . x for label 1.
    """
    predict, w = linear
    x = images(*[(0.5, 0.25)] * 16)
    y = np.arange(16) % 2
    attempts = np.stack([rows(start(x, i)) for i in range(restarts)])
    best = ((attempts @ w) * (1 - 2 * y)).argmax(axis=0)
    assert set(best) == set(range(restarts))
    attack = attacks.PGD(eps=EPS, step_size=0.0, restarts=restarts)
    np.testing.assert_allclose(
        rows(attack(predict, x, y, seed=SEED)),
        attempts[best, np.arange(16)],
        rtol=1e-6,
    )


def test_restarts_find_what_one_start_misses():
    """Two hills: J(x, 0) grows from 1/2 to both sides, but only the right one is won.

    Logits [0, q]: q = 8 (z - 1/2) - 1/2 where z > 1/2 and q = (1/2 - z) - 1/2 where
    z < 1/2, so an attack that starts to the left climbs to the left and fails.
    """

    def hills(x):
        z = x[:, 0, 0, 0] - 0.5
        q = tf.where(z > 0, 8 * z, -z) - 0.5
        return tf.stack([tf.zeros_like(q), q], axis=1)

    x = tf.fill([16, 1, 1, 1], 0.5)
    y = np.zeros(16, np.int32)
    starts = np.stack([start(x, i) for i in range(4)])[..., 0, 0, 0] > 0.5
    once = attacks.PGD(eps=EPS)(hills, x, y, seed=SEED)
    best = attacks.PGD(eps=EPS, restarts=4)(hills, x, y, seed=SEED)
    assert 0 < starts[0].sum() < starts.any(axis=0).sum()
    for x_adv, right in ((once, starts[0]), (best, starts.any(axis=0))):
        np.testing.assert_allclose(
            x_adv[:, 0, 0, 0], np.where(right, 0.5 + EPS, 0.5 - EPS), rtol=1e-6
        )


@pytest.mark.parametrize(
    "label, direction",
    [
        # Logits (x_0, x_1, x_2) = (.5, .75, .25), true class 0. Leaving class c lowers
        # pixel c and raises the others, reaching it does the reverse.
        ("true", (-1, 1, 1)),
        ("predicted", (1, -1, 1)),
        ("least_likely", (-1, -1, 1)),
    ],
)
def test_a_label_of_each_kind(label, direction):
    x = images((0.5, 0.75, 0.25))
    attack = attacks.PGD(eps=EPS, label=label)
    x_adv = attack(lambda x: tf.reshape(x, [-1, 3]), x, [0], seed=SEED)
    np.testing.assert_allclose(
        rows(x_adv), rows(x) + EPS * np.array([direction]), rtol=1e-6
    )


def test_the_least_likely_class_is_that_of_the_clean_image(linear):
    # w . x = 0.1: class 0, although it is the likely one after two steps.
    x = images((0.5, 0.35))
    attack = attacks.PGD(eps=EPS, label="least_likely", random_start=False)
    np.testing.assert_allclose(
        rows(attack(linear[0], x, [1])), rows(x) - EPS * RAISE, rtol=1e-6
    )


def test_a_gradient_of_zero_leaves_the_start():
    x = images((0.5, 0.25))
    flat = lambda x: 0.0 * tf.reshape(x, [-1, 2])  # noqa: E731
    np.testing.assert_array_equal(
        attacks.PGD(eps=EPS, random_start=False)(flat, x, [0]), x
    )
    np.testing.assert_allclose(
        attacks.PGD(eps=EPS)(flat, x, [0], seed=SEED), start(x, 0), rtol=1e-6
    )


def test_seeds_decide_the_starts(linear):
    x = images(*[(0.5, 0.25)] * 4)

    def run(seed):
        return attacks.PGD(eps=EPS, steps=1)(linear[0], x, [0] * 4, seed=seed)

    np.testing.assert_array_equal(run(1), run(1))
    assert np.any(run(1) != run(2))
    with pytest.raises(ValueError, match="`seed`"):
        run(None)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"steps": 0}, "`steps` must be at least 1; received 0"),
        ({"restarts": 0}, "`restarts` must be at least 1; received 0"),
        ({"restarts": 2, "random_start": False}, "`random_start` to true"),
        ({"step_size": 2}, "`step_size` .* Write '2/255'"),
    ],
)
def test_fields_out_of_range_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        attacks.PGD(eps=EPS, **fields)


@pytest.mark.parametrize(
    "fields, distance",
    [
        ({}, 1),
        ({"steps": 3}, 0.75),
        ({"steps": 3, "step_size": EPS / 6}, 0.5),
        ({"steps": 1, "step_size": 2.0}, 1),
    ],
)
def test_l2_steps_go_along_the_gradient(linear, fields, distance):
    """w / |w| = (.6, -.8), up for label 0 and down for label 1."""
    x = [(0.5, 0.25), (0.25, 0.5)]
    attack = attacks.PGD(eps=EPS, norm="l2", random_start=False, **fields)
    way = np.array([(0.6, -0.8), (-0.6, 0.8)])
    np.testing.assert_allclose(
        rows(attack(linear[0], images(*x), [0, 1])), x + distance * EPS * way, rtol=1e-5
    )


def test_l2_attacks_start_within_the_ball_and_come_to_its_end(linear):
    x = images(*[(0.5, 0.25)] * 8)
    still = attacks.PGD(eps=EPS, norm="l2", steps=1, step_size=0.0)
    moved = np.linalg.norm(rows(still(linear[0], x, [0] * 8, seed=1) - x), axis=1)
    assert moved.max() <= EPS * (1 + 1e-6) and len(np.unique(moved)) == 8
    attack = attacks.PGD(eps=EPS, norm="l2", steps=40, restarts=2)
    moved = rows(attack(linear[0], x, [0] * 8, seed=1) - x)
    np.testing.assert_allclose(moved, [EPS * np.array([0.6, -0.8])] * 8, atol=2e-3)


def test_an_l2_eps_may_exceed_one():
    assert attacks.PGD(eps=2.0, step_size=1.5, norm="l2").eps == 2.0
    with pytest.raises(ValueError, match=r"`eps` must be in \[0, 1\]"):
        attacks.PGD(eps=2.0)
    for value in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="`eps` must be a finite number"):
            attacks.PGD(eps=value, norm="l2")
    with pytest.raises(ValueError, match="`step_size` must be a finite number"):
        attacks.PGD(eps=2.0, step_size=-1.0, norm="l2")
