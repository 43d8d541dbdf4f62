import numpy as np
import pytest
import tensorflow as tf

from tfadv import losses
from tfadv.attacks import core

CHECKS = {"eps": core.check_eps, "step_size": core.check_step_size}


def philox(seed):
    return {"seed": seed, "alg": "philox"}


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize(
    "value, received, hint",
    [
        (16, "16", " Write '16/255'?"),
        (16.0, "16", " Write '16/255'?"),
        (1.5, "1.5", " Write '1.5/255'?"),
        (255, "255", " Write '255/255'?"),
        # No number of pixels.
        (256, "256", ""),
        (-0.1, "-0.1", ""),
        (float("nan"), "nan", ""),
    ],
)
def test_sizes_outside_the_unit_interval_are_refused(name, value, received, hint):
    with pytest.raises(ValueError) as caught:
        CHECKS[name](value)
    assert str(caught.value) == (
        f"`{name}` must be in [0, 1], the units of x; received {received}.{hint}"
    )


@pytest.mark.parametrize("value", [0, 0.0, 16 / 255, 1, tf.fill([2, 1, 1, 1], 0.1)])
def test_sizes_in_the_unit_interval_and_tensors_pass(value):
    core.check_eps(value)
    core.check_step_size(value)


def test_step_size_may_be_left_open():
    core.check_step_size(None)


def test_input_gradient_is_the_gradient_of_the_sum(linear):
    """A mean over the two examples would give half of each row."""
    predict, w = linear
    x = tf.reshape([0.5, 0.25, 0.25, 0.5], [2, 1, 2, 1])  # w . x = 0.5 and -1.25
    s = 1 / (1 + np.exp([-0.5, 1.25]))
    grad = core.input_gradient(predict, x, lambda z: losses.cross_entropy([0, 1], z))
    assert grad.shape == x.shape
    np.testing.assert_allclose(
        np.reshape(grad, [2, 2]), [s[0] * w, -(1 - s[1]) * w], rtol=1e-5
    )


def test_to_ball_clips_to_the_ball_and_to_the_range():
    x = tf.constant([0.5, 0.5, 0.5, 0.0, 1.0])
    moved = tf.constant([0.9, 0.1, 0.6, -1.0, 2.0])
    np.testing.assert_allclose(
        core.to_ball(moved, x, 0.25), [0.75, 0.25, 0.6, 0, 1], rtol=1e-6
    )


def test_to_ball_gives_every_example_its_own_ball():
    eps = tf.reshape([0.0, 0.125, 0.5], [3, 1, 1, 1])
    x = tf.fill([3, 1, 2, 1], 0.5)
    clipped = core.to_ball(tf.fill([3, 1, 2, 1], 0.75), x, eps)
    np.testing.assert_array_equal(
        np.reshape(clipped, [3, 2]), [[0.5] * 2, [0.625] * 2, [0.75] * 2]
    )


def test_to_range():
    np.testing.assert_array_equal(
        core.to_range(tf.constant([-0.5, 0.0, 0.25, 1.0, 1.5])), [0, 0, 0.25, 1, 1]
    )


@pytest.mark.parametrize(
    "label, expected",
    [("true", [2, 2]), ("predicted", [1, 0]), ("least_likely", [0, 1])],
)
def test_choose_labels(label, expected):
    logits = tf.constant([[-1.0, 3.0, 0.0], [5.0, -2.0, 0.0]])
    labels = core.choose_labels(label, logits, tf.constant([2, 2], tf.int64))
    assert labels.dtype == tf.int32
    np.testing.assert_array_equal(labels, expected)


def test_true_labels_need_no_logits():
    np.testing.assert_array_equal(core.choose_labels("true", None, [3, 1]), [3, 1])
    # Probabilities are labels, too.
    soft = [[0.25, 0.75], [0.5, 0.5]]
    np.testing.assert_array_equal(core.choose_labels("true", None, soft), soft)


def test_random_labels_are_uniform_over_all_classes():
    n, classes = 6000, 3
    labels = core.choose_labels("random", tf.zeros([n, classes]), None, 1)
    # 2000 of each class, standard deviation sqrt(6000 * 1/3 * 2/3) = 36.5.
    counts = np.bincount(labels, minlength=classes)
    assert counts.shape == (classes,)
    np.testing.assert_allclose(counts, n / classes, atol=150)


def test_random_labels_follow_the_seed_alone():
    def draw(seed, fill=0.0):
        return core.choose_labels("random", tf.fill([50, 10], fill), None, seed)

    np.testing.assert_array_equal(draw(1), draw(1, fill=7.0))
    assert np.any(draw(1) != draw(2))
    with pytest.raises(ValueError, match="`seed`"):
        draw(None)


def test_an_unknown_label_names_the_nearest():
    with pytest.raises(ValueError, match="'least_likly'; did you mean 'least_likely'"):
        core.choose_labels("least_likly", tf.zeros([1, 2]), [0])


@pytest.mark.parametrize(
    "label, sign",
    [("true", 1), ("predicted", 1), ("least_likely", -1), ("random", -1)],
)
def test_attacks_leave_true_and_predicted_labels_and_reach_the_others(label, sign):
    # softmax([0, log 3]) = (1/4, 3/4).
    value = core.signed_cross_entropy(label, [0], [[0.0, np.log(3.0)]])
    np.testing.assert_allclose(value, [sign * np.log(4)], rtol=1e-6)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("steps, expected", [(0, 0), (1, 0), (5, 10)])
def test_iterate_counts_from_zero(compiled, steps, expected):
    # 0 + 1 + ... + (steps - 1)
    def run(steps):
        return core.iterate(lambda i, total: total + i, tf.constant(0), steps)

    assert (tf.function(run) if compiled else run)(tf.constant(steps)) == expected
    assert (tf.function(run) if compiled else run)(steps) == expected


def test_iterate_carries_a_tuple():
    # Fibonacci: (0, 1) -> (1, 1) -> (1, 2) -> (2, 3) -> (3, 5).
    pair = core.iterate(
        lambda _, ab: (ab[1], ab[0] + ab[1]), (tf.constant(0), tf.constant(1)), 4
    )
    assert [int(value) for value in pair] == [3, 5]


# min(e + 4, 1.25 e), rounded down: 1.25, 2.5, 3.75, 5, 10, 20 and 32 + 4; at least 1.
PIXELS, STEPS = [0, 1, 2, 3, 4, 8, 16, 32], [1, 1, 2, 3, 5, 10, 20, 36]


@pytest.mark.parametrize("pixels, steps", list(zip(PIXELS, STEPS, strict=True)))
def test_kurakin_steps_of_a_number(pixels, steps):
    assert core.kurakin_steps(pixels / 255) == steps
    scalar = core.kurakin_steps(tf.constant(pixels / 255))
    assert scalar.shape == () and scalar == steps


def test_kurakin_steps_of_a_tensor():
    eps = tf.reshape(tf.constant(PIXELS, tf.float32) / 255, [-1, 1, 1, 1])
    steps = core.kurakin_steps(eps)
    assert steps.dtype == tf.int32
    np.testing.assert_array_equal(steps, np.reshape(STEPS, [-1, 1, 1, 1]))


def test_kurakin_steps_survive_the_rounding_of_eps():
    # A millionth below 4, 8, 16 and 32 pixels, where the rule is just below a whole.
    eps = [pixels / 255 * (1 - 1e-6) for pixels in PIXELS[4:]]
    assert [core.kurakin_steps(e) for e in eps] == STEPS[4:]
    np.testing.assert_array_equal(core.kurakin_steps(tf.constant(eps)), STEPS[4:])


def test_kurakin_steps_between_whole_pixels_round_down():
    # 8/256 is 7.96875 pixels: 1.25 of them are 9.96; 3.9 pixels make 4.875 steps.
    assert core.kurakin_steps(8 / 256) == 9
    assert core.kurakin_steps(3.9 / 255) == 4
    np.testing.assert_array_equal(
        core.kurakin_steps(tf.constant([8 / 256, 3.9 / 255])), [9, 4]
    )


@pytest.mark.parametrize(
    "seed, expected",
    [
        (5, [5, 0]),
        (np.int64(5), [5, 0]),
        (2**40, [2**40, 0]),
        (tf.constant(5), [5, 0]),
        ((5, 7), [5, 7]),
        (tf.constant([5, 7]), [5, 7]),
    ],
)
def test_as_seed(seed, expected):
    np.testing.assert_array_equal(core.as_seed(seed), expected)


def test_a_missing_seed_is_named():
    with pytest.raises(ValueError, match=r"pass `seed`.*received None"):
        core.as_seed(None)


def test_fold_gives_a_new_seed_for_every_number_and_seed():
    seeds = {
        tuple(np.array(core.fold(seed, number)))
        for seed in (0, 1, (0, 1))
        for number in range(4)
    }
    assert len(seeds) == 12
    np.testing.assert_array_equal(
        core.fold(3, 2),
        tf.random.experimental.stateless_fold_in(
            tf.constant([3, 0], tf.int64), tf.constant(2, tf.int64), alg="philox"
        ),
    )


@pytest.mark.parametrize("draw", [core.normal, core.uniform])
def test_noise_is_a_function_of_shape_and_seed(draw):
    x = tf.zeros([2, 3, 3, 1])
    np.testing.assert_array_equal(draw(x, 1), draw(x + 1, 1))
    assert np.all(draw(x, 1) != draw(x, 2))
    assert draw(x, 1).shape == x.shape


def test_noise_is_that_of_the_stateless_ops():
    x = tf.zeros([2, 3, 3, 1])
    np.testing.assert_array_equal(
        core.normal(x, 4), tf.random.stateless_normal(x.shape, **philox([4, 0]))
    )
    u = core.uniform(x, 4)
    np.testing.assert_array_equal(
        u, tf.random.stateless_uniform(x.shape, minval=-1, maxval=1, **philox([4, 0]))
    )
    assert np.min(u) < 0 < np.max(u)
