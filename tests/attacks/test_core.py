import numpy as np
import pytest
import tensorflow as tf

from tfadv import attacks, losses
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


# What a predict may return in place of logits.

LOGITS = np.array([[0.0, np.log(3.0)]], np.float32)  # p = (1/4, 3/4)
HEAD = np.array([[np.log(4.0), 0.0]], np.float32)  # p = (4/5, 1/5)


@pytest.mark.parametrize(
    ("options", "label", "value"),
    [
        ({}, 0, np.log(4)),
        # q = (0.9, 0.1) and (0.1, 0.9).
        ({"label_smoothing": 0.2}, 0, 0.9 * np.log(4) + 0.1 * np.log(4 / 3)),
        ({"label_smoothing": 0.2}, 1, 0.1 * np.log(4) + 0.9 * np.log(4 / 3)),
        ({"auxiliary": HEAD, "auxiliary_weight": 0.4}, 1, np.log(4 / 3 * 5**0.4)),
        ({"auxiliary": HEAD}, 1, np.log(4 / 3)),
        (
            {"auxiliary": HEAD, "auxiliary_weight": 0.4, "label_smoothing": 0.2},
            *(0, np.log(4**0.9 * (4 / 3) ** 0.1 * (1.25**0.9 * 5**0.1) ** 0.4)),
        ),
    ],
)
@pytest.mark.parametrize(("name", "sign"), [("true", 1), ("least_likely", -1)])
def test_the_loss_of_what_is_judged_by_hand(options, label, value, name, sign):
    judged = core.Judged(LOGITS, **options)
    found = core.signed_cross_entropy(name, [label], judged)
    np.testing.assert_allclose(found, [sign * value], rtol=1e-6)


def test_probabilities_are_not_smoothed_again():
    judged = core.Judged(LOGITS, HEAD, auxiliary_weight=0.4, label_smoothing=0.2)
    given = np.array([[0.75, 0.25]], np.float32)
    found = core.cross_entropy(given, judged)
    main = 0.75 * np.log(4) + 0.25 * np.log(4 / 3)
    head = 0.75 * np.log(1.25) + 0.25 * np.log(5)
    np.testing.assert_allclose(found, [main + 0.4 * head], rtol=1e-6)


def test_labels_are_those_of_the_logits():
    judged = core.Judged(LOGITS, HEAD, auxiliary_weight=9.0)
    assert core.choose_labels("predicted", judged, [0]) == [1]
    assert core.choose_labels("least_likely", judged, [1]) == [0]
    many = np.repeat(LOGITS, 50, axis=0)
    np.testing.assert_array_equal(
        core.choose_labels("random", core.Judged(many), None, 1),
        core.choose_labels("random", many, None, 1),
    )


def three_classes(**options):
    """A predict of images of one pixel: at .5 softmax(z) = (.6, .3, .1).

    dz/dx = (3.9, -5, 1), so dJ/dx = 3.9 * .6 - 5 * .3 + .1 - q . (3.9, -5, 1) = .94 -
    q . (3.9, -5, 1); with smoothing s, whose mean is -1/30, .94 - (1 - s) w_y + s / 30.
    """

    def predict(x):
        slopes = tf.constant([[3.9, -5.0, 1.0]])
        z = tf.math.log([[0.6, 0.3, 0.1]]) + tf.reshape(x - 0.5, [-1, 1]) * slopes
        return core.Judged(z, **options) if options else z

    return predict


@pytest.mark.parametrize(
    ("name", "y", "smoothing", "moved"),
    [
        # Least likely is the last: down the slope .94 - 1, or .94 - .9 + .1 / 30.
        ("step_ll", 0, 0.0, 1),
        ("step_ll", 0, 0.1, -1),
        # Up .94 - 3.9, .94 - .9 * 3.9 + .1 / 30, .94 - .2 * 3.9 + .8 / 30.
        ("step_fgsm", 0, 0.0, -1),
        ("step_fgsm", 0, 0.1, -1),
        ("step_fgsm", 0, 0.8, 1),
    ],
)
def test_smoothing_decides_the_sign_by_hand(name, y, smoothing, moved):
    predict = three_classes(**{"label_smoothing": smoothing} if smoothing else {})
    x = tf.fill([1, 1, 1, 1], 0.5)
    x_adv = attacks.get(name)(eps=0.1)(predict, x, tf.constant([y]))
    np.testing.assert_allclose(x_adv, 0.5 + 0.1 * moved * np.ones_like(x), rtol=1e-6)


X = tf.reshape([0.9, 0.175], [1, 1, 2, 1])  # w . x = 2
ALONG_J = ("step_fgsm", "fgsm_pred", "step_ll", "step_both", "step_rnd", "r_fgsm")
ALONG_J += ("r_step_ll", "fast_grad_l2", "fast_grad_linf", "iter_fgsm", "iter_ll")
ALONG_J += ("ifgsm", "pgd", "mi_fgsm", "apgd")
INDIFFERENT = ("fast_entropy", "virtual", "random_sign", "random_normal")
# Attacks on the margin of the logits, with fields that make them short.
ON_THE_MARGIN = {
    "apgd_t": {"loss": "margin", "steps": 3},
    "fab_t": {"steps": 3},
    "square": {"queries": 10},
    "cw_l2": {"steps": 20, "search_steps": 1, "initial_c": 5.0, "learning_rate": 0.1},
    "deepfool": {},
}


def test_every_attack_is_tried_with_the_loss_of_training():
    """But for the generator, which asks its own network alone."""
    tried = {*ALONG_J, *INDIFFERENT, *ON_THE_MARGIN, "autoattack", "generator"}
    assert tried == set(attacks.ATTACKS)


@pytest.mark.parametrize("name", ALONG_J + INDIFFERENT)
def test_which_attacks_go_along_the_loss_of_training(linear, name):
    """With m = w . x = 2 the logits (0, m) give dJ/dx of class 1 as -.12 w and of class
    0 as .88 w; a head (0, -m) gives .88 w and -.12 w. With the weight 8 it decides."""
    predict, w = linear
    attack = attacks.get(name)(eps=16 / 255)

    def judged(x):
        logits = predict(x)
        return core.Judged(logits, -logits, auxiliary_weight=8.0)

    plain = attack(predict, X, tf.constant([1]), seed=3)
    np.testing.assert_array_equal(
        attack(lambda x: core.Judged(predict(x)), X, tf.constant([1]), seed=3), plain
    )
    moved = np.ravel(attack(judged, X, tf.constant([1]), seed=3) - plain)
    if name in INDIFFERENT:
        assert np.all(moved == 0)
    else:
        # True, predicted and least likely labels alike; a random one may be class 1.
        sign = np.sign(moved[0]) if name == "step_rnd" else 1
        assert np.all(np.sign(moved) == sign * np.sign(w)) and sign


@pytest.mark.parametrize("name", ON_THE_MARGIN)
def test_attacks_on_the_margin_take_the_logits_alone(linear, name):
    """w . x = 2 falls by 7 eps, in l2 by 5 eps, and so below 0."""
    predict, _ = linear
    attack = attacks.get(name)(eps=0.5, **ON_THE_MARGIN[name])

    def judged(x):
        logits = predict(x)
        return core.Judged(logits, -logits, auxiliary_weight=8.0, label_smoothing=0.1)

    plain, x_adv = (attack(p, X, tf.constant([1]), seed=3) for p in (predict, judged))
    assert np.argmax(predict(plain)) == 0
    np.testing.assert_array_equal(x_adv, plain)


def test_autoattack_finds_what_the_loss_of_training_leads_away_from(linear):
    """The first of the four goes up J and away from class 0, the second does not."""
    predict, _ = linear
    fields = {"eps": 0.5, "steps": 3}

    def judged(x):
        logits = predict(x)
        return core.Judged(logits, -logits, auxiliary_weight=8.0)

    first = attacks.APGD(**fields)(judged, X, tf.constant([1]), seed=3)
    assert np.argmax(predict(first)) == 1
    found = attacks.AutoAttack(**fields)(judged, X, tf.constant([1]), seed=3)
    assert np.argmax(predict(found)) == 0


def test_restarts_are_judged_by_the_logits(linear):
    """Without a gradient images stay at their starts: kept is that of the least m."""
    predict, _ = linear
    x, y = tf.repeat(X, 20, axis=0), tf.ones([20], tf.int32)

    def judged(x):
        return core.Judged(tf.stop_gradient(predict(x)), 0 * predict(x))

    one, best = (
        predict(attacks.PGD(eps=0.05, restarts=n)(judged, x, y, seed=1))[:, 1]
        for n in (1, 9)
    )
    assert np.all(best <= one) and np.any(best < one)


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


@pytest.mark.parametrize("compiled", [False, True])
def test_iterate_ends_early_where_nothing_is_left(compiled):
    def run(steps):
        return core.iterate(lambda _, n: n + 1, 0, steps, lambda n: n < 3)

    run = tf.function(run) if compiled else run
    assert run(tf.constant(10)) == 3
    assert run(tf.constant(2)) == 2
