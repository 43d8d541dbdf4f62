import numpy as np
import pytest
import tensorflow as tf

from tfadv import attacks
from tfadv.attacks import core
from tfadv.data import pipeline

PIXEL = 1 / 255
# Raises w . x of the linear model: the way out of class 0.
RAISE = np.array([1, -1])


def images(*rows):
    return tf.constant(rows, tf.float32)[:, None, :, None]


def rows(x):
    return np.array(x)[:, 0, :, 0]


def valley(x):
    """Logits [0, |x - 1/2|^2]: an attack that leaves class 1 steps towards 1/2.

    From 1/2 + a/4 steps of a lead to 1/2 - 3a/4 and back again, for ever: the place
    where the attack ends tells the parity of the number of steps.
    """
    q = tf.reduce_sum((x - 0.5) ** 2, axis=[1, 2, 3])
    return tf.stack([tf.zeros_like(q), q], axis=1)


def counting(predict):
    calls = []

    def counted(x):
        calls.append(x)
        return predict(x)

    return counted, calls


@pytest.mark.parametrize(
    "pixels, steps", [(1, 1), (2, 2), (3, 3), (4, 5), (8, 10), (16, 20), (32, 36)]
)
@pytest.mark.parametrize("name, extra", [("iter_fgsm", 0), ("iter_ll", 1)])
def test_kurakins_number_of_steps(linear, pixels, steps, name, extra):
    """One call of the model per step, and one on the clean x for its label."""
    predict, calls = counting(linear[0])
    attacks.ATTACKS[name](eps=pixels / 255)(predict, images((0.5, 0.25)), [0])
    assert len(calls) == steps + extra


# All of them from (0.5, 0.25), label 0: as far as the steps or the ball allow.
@pytest.mark.parametrize(
    "name, fields, pixels",
    [
        # 5 steps of one pixel, the ball ends at 4.
        ("iter_fgsm", {"eps": 4 * PIXEL}, 4),
        ("iter_fgsm", {"eps": 2.5 * PIXEL}, 2.5),
        ("iter_fgsm", {"eps": 8 * PIXEL, "steps": 3, "step_size": PIXEL}, 3),
        ("iter_fgsm", {"eps": 8 * PIXEL, "steps": 3, "step_size": 3 * PIXEL}, 8),
        # Kurakin's 5 steps for eps = 4, of another size.
        ("iter_fgsm", {"eps": 4 * PIXEL, "step_size": PIXEL / 2}, 2.5),
        # a = eps / N
        ("iter_fgsm", {"eps": 8 * PIXEL, "steps": 3}, 8),
        ("ifgsm", {"eps": 8 * PIXEL}, 8),
        ("ifgsm", {"eps": 8 * PIXEL, "step_size": PIXEL / 2}, 5),
        ("ifgsm", {"eps": 8 * PIXEL, "steps": 4, "step_size": PIXEL / 2}, 2),
    ],
)
def test_steps_add_up_to_the_border_of_the_ball(linear, name, fields, pixels):
    x_adv = attacks.ATTACKS[name](**fields)(linear[0], images((0.5, 0.25)), [0])
    np.testing.assert_allclose(
        rows(x_adv), [(0.5, 0.25) + pixels * PIXEL * RAISE], rtol=1e-6
    )


@pytest.mark.parametrize("name", ["iter_fgsm", "ifgsm"])
def test_the_labels_give_the_direction(linear, name):
    x = [(0.5, 0.25), (0.25, 0.5)]
    x_adv = attacks.ATTACKS[name](eps=4 * PIXEL)(linear[0], images(*x), [1, 0])
    np.testing.assert_allclose(
        rows(x_adv), x + 4 * PIXEL * np.array([-RAISE, RAISE]), rtol=1e-6
    )


@pytest.mark.parametrize("name", ["iter_fgsm", "iter_ll", "ifgsm"])
def test_steps_are_clipped_to_the_range(linear, name):
    # Both pixels are 2 steps from the borders they move to, leaving class 1. With 4
    # added to w . x = -3.9 class 0 is the least likely: the same way for iter_ll.
    x = images((2 * PIXEL, 1 - 2 * PIXEL))
    attack = attacks.ATTACKS[name](eps=8 * PIXEL)
    x_adv = attack(lambda x: linear[0](x) + [[0.0, 4.0]], x, [1])
    np.testing.assert_array_equal(rows(x_adv), [(0, 1)])


@pytest.mark.parametrize(
    "eps, fields, end",
    [
        # An odd number of Kurakin's steps ends below 1/2, an even one where it began.
        (1, {}, -0.75),
        (2, {}, 0.25),
        (3, {}, -0.75),
        (4, {}, -0.75),
        (8, {}, 0.25),
        (16, {}, 0.25),
        (8, {"steps": 7, "step_size": PIXEL}, -0.75),
        (8, {"steps": 8, "step_size": PIXEL}, 0.25),
        (8, {"steps": 8}, 0.25),
        (7, {"steps": 7}, -0.75),
    ],
)
def test_the_gradient_is_taken_anew_in_every_step(eps, fields, end):
    x = tf.fill([1, 2, 2, 1], 0.5 + 0.25 * PIXEL)
    x_adv = attacks.IterFGSM(eps=eps * PIXEL, **fields)(valley, x, [1])
    np.testing.assert_allclose((x_adv - 0.5) / PIXEL, np.full(x.shape, end), atol=1e-3)


def test_ifgsm_takes_ten_steps_of_a_tenth(linear):
    predict, calls = counting(linear[0])
    x = images((0.5, 0.25))
    attacks.ATTACKS["ifgsm"](eps=0.1)(predict, x, [0])
    assert len(calls) == 10
    for i, z in enumerate(calls):
        np.testing.assert_allclose(rows(z), rows(x) + i * 0.01 * RAISE, rtol=1e-5)


def test_every_example_has_the_steps_of_its_own_eps():
    """1, 2, 5 and 10 steps for 1, 2, 4 and 8 pixels; see `valley` for where they end.

    Eight pixels alone would be ten steps for all: an even number.
    """
    eps = tf.reshape(tf.constant([1.0, 2.0, 4.0, 8.0]) * PIXEL, [4, 1, 1, 1])
    x = tf.fill([4, 2, 2, 1], 0.5 + 0.25 * PIXEL)
    x_adv = attacks.IterFGSM(eps=eps)(valley, x, [1, 1, 1, 1])
    np.testing.assert_allclose(
        (x_adv[:, 0, 0, 0] - 0.5) / PIXEL, [-0.75, 0.25, -0.75, 0.25], atol=1e-3
    )
    for i in range(4):
        alone = attacks.IterFGSM(eps=eps[i : i + 1])(valley, x[i : i + 1], [1])
        np.testing.assert_array_equal(alone[0], x_adv[i])


@pytest.mark.parametrize("name", ["iter_fgsm", "ifgsm"])
def test_every_example_has_a_ball_of_its_own(linear, name):
    eps = np.array([0, 1, 4, 8], np.float32) / 255
    attack = attacks.ATTACKS[name](eps=tf.reshape(eps, [4, 1, 1, 1]))
    x_adv = attack(linear[0], images(*[(0.5, 0.25)] * 4), [0] * 4)
    np.testing.assert_allclose(
        rows(x_adv), (0.5, 0.25) + eps[:, None] * RAISE, rtol=1e-6
    )


def test_iter_ll_keeps_the_least_likely_class_of_the_clean_image(linear):
    """w . x = 0.1 makes 0 the least likely class, and 7/255 of it goes in each step.

    After four steps w . x < 0 and class 1 is the least likely: an attack that chose
    anew would turn back and never leave the neighbourhood of w . x = 0.
    """
    x = images((0.5, 0.35))
    x_adv = attacks.ATTACKS["iter_ll"](eps=8 * PIXEL)(linear[0], x, [1])
    np.testing.assert_allclose(rows(x_adv), rows(x) - 8 * PIXEL * RAISE, rtol=1e-6)


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
    attack = attacks.Iterative(eps=4 * PIXEL, label=label)
    x_adv = attack(lambda x: tf.reshape(x, [-1, 3]), x, [0])
    np.testing.assert_allclose(
        rows(x_adv), rows(x) + 4 * PIXEL * np.array([direction]), rtol=1e-6
    )


def test_random_labels_are_those_drawn_and_stay():
    """As above: reaching class c raises pixel c alone."""
    x = images(*[(0.5, 0.5, 0.5)] * 8)
    attack = attacks.Iterative(eps=4 * PIXEL, label="random")
    identity = lambda x: tf.reshape(x, [-1, 3])  # noqa: E731
    x_adv = attack(identity, x, [0] * 8, seed=3)
    drawn = tf.random.stateless_uniform([8], [3, 0], 0, 3, tf.int32, alg="philox")
    assert set(drawn.numpy()) == {0, 1, 2}
    np.testing.assert_allclose(
        rows(x_adv), 0.5 + 4 * PIXEL * (2 * np.eye(3)[drawn] - 1), rtol=1e-6
    )
    with pytest.raises(ValueError, match="`seed`"):
        attack(identity, x, [0] * 8)


@pytest.mark.parametrize("name", ["iter_fgsm", "iter_ll", "ifgsm"])
def test_a_gradient_of_zero_moves_nothing(name):
    x = images((0.5, 0.25))
    attack = attacks.ATTACKS[name](eps=8 * PIXEL)
    np.testing.assert_array_equal(
        attack(lambda x: 0.0 * tf.reshape(x, [-1, 2]), x, [0]), x
    )


def test_a_pixel_without_gradient_stays():
    """Logits [0, x_0]: leaving class 0 raises the first pixel, no other counts."""
    x = images((0.5, 0.25))
    x_adv = attacks.IterFGSM(eps=4 * PIXEL)(
        lambda x: tf.reshape(x, [-1, 2])[:, :1] * [[0.0, 1.0]], x, [0]
    )
    np.testing.assert_allclose(rows(x_adv), [(0.5 + 4 * PIXEL, 0.25)], rtol=1e-6)


@pytest.mark.parametrize("pixels", [1, 4, 8, 16])
def test_iter_fgsm_stays_on_whole_pixels(linear, pixels):
    """Images that were uint8 are stored as uint8 without loss."""
    levels = np.random.default_rng(0).integers(0, 256, [64, 1, 2, 1], np.uint8)
    levels[:4, 0, :, 0] = [(0, 0), (0, 255), (255, 0), (255, 255)]
    y = np.arange(64) % 2
    x_adv = attacks.IterFGSM(eps=pixels / 255)(linear[0], pipeline.to_float(levels), y)
    stored = pipeline.to_uint8(x_adv)
    # Integers: label 0 goes up by (1, -1) times eps, label 1 down.
    direction = np.array([RAISE, -RAISE])[y][:, None, :, None]
    np.testing.assert_array_equal(
        stored, np.clip(levels.astype(int) + pixels * direction, 0, 255)
    )
    np.testing.assert_allclose(pipeline.to_float(stored), x_adv, atol=1e-6)


@pytest.mark.parametrize("name, extra", [("iter_fgsm", 0), ("iter_ll", 1)])
def test_a_sweep_shares_the_steps_inside_the_smaller_balls(linear, name, extra):
    """Sizes of 1 to 16 pixels: 16 shared steps, then floor(e / 4) of each size.

    floor(1.25 e) - e = floor(e / 4), which sums to 4 (1 + 2 + 3) + 4 = 28.
    """
    predict, calls = counting(linear[0])
    sizes = [pixels / 255 for pixels in range(1, 17)]
    attack = attacks.ATTACKS[name](eps=sizes[-1])
    swept = core.sweep(attack, predict, images((0.5, 0.25)), [0], sizes)
    assert len(calls) == 16 + 28 + extra
    # Class 1 is predicted: leaving 0 raises w . x, reaching it lowers w . x.
    direction = RAISE if name == "iter_fgsm" else -RAISE
    np.testing.assert_allclose(
        np.concatenate([rows(x_adv) for x_adv in swept]),
        (0.5, 0.25) + np.outer(sizes, direction),
        rtol=1e-5,
    )


@pytest.mark.parametrize(
    "fields, ends",
    [
        # 20, 1, 10, 2, 5, 3 and 36 steps.
        ({}, [0.25, -0.75, 0.25, 0.25, -0.75, -0.75, 0.25]),
        # As many of half a pixel, between 1/4 above and 1/4 below: nothing is shared.
        ({"step_size": PIXEL / 2}, [0.25, -0.25, 0.25, 0.25, -0.25, -0.25, 0.25]),
        ({"steps": 3, "step_size": PIXEL}, [-0.75] * 7),
    ],
)
def test_every_size_of_a_sweep_has_its_own_steps(fields, ends):
    x = tf.fill([1, 2, 2, 1], 0.5 + 0.25 * PIXEL)
    sizes = [pixels / 255 for pixels in (16, 1, 8, 2, 4, 3, 32)]
    swept = core.sweep(
        attacks.IterFGSM(eps=0.1, **fields), valley, x, [1], sizes, seed=None
    )
    np.testing.assert_allclose(
        [(x_adv[0, 0, 0, 0] - 0.5) / PIXEL for x_adv in swept], ends, atol=1e-3
    )


def test_steps_below_one_are_refused():
    with pytest.raises(ValueError, match="`steps` must be at least 1; received 0"):
        attacks.IterFGSM(eps=0.1, steps=0)


def test_a_step_size_in_pixels_is_refused():
    with pytest.raises(ValueError, match=r"`step_size` .* Write '2/255'"):
        attacks.IterFGSM(eps=0.1, step_size=2)
