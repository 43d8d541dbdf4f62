import numpy as np
import pytest
import tensorflow as tf

from tfadv import losses

# softmax([0, log 3]) = (1/4, 3/4).
QUARTER = [0.0, np.log(3.0)]


def gradient(function, logits):
    logits = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        total = tf.reduce_sum(function(logits))
    return tape.gradient(total, logits)


@pytest.mark.parametrize(
    "smoothing, expected",
    [
        # -log(1/4) for label 0, -log(3/4) for label 1.
        (0.0, [np.log(4), np.log(4 / 3)]),
        # q = (0.9, 0.1) for label 0 and (0.1, 0.9) for label 1.
        (
            0.2,
            [
                0.9 * np.log(4) + 0.1 * np.log(4 / 3),
                0.1 * np.log(4) + 0.9 * np.log(4 / 3),
            ],
        ),
    ],
)
def test_cross_entropy(smoothing, expected):
    value = losses.cross_entropy([0, 1], [QUARTER, QUARTER], label_smoothing=smoothing)
    np.testing.assert_allclose(value, expected, rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_has_gradient_softmax_minus_q(smoothing):
    q = np.array([[1 - smoothing / 2, smoothing / 2]])
    grad = gradient(
        lambda z: losses.cross_entropy([0], z, label_smoothing=smoothing),
        np.array([QUARTER], np.float32),
    )
    np.testing.assert_allclose(grad, [[0.25, 0.75]] - q, rtol=1e-6)


def test_cross_entropy_of_three_classes_spreads_the_smoothing_over_all():
    # Logits 0 give log 3 whatever q; logits (log 2, 0, 0) give p = (1/2, 1/4, 1/4),
    # and s = 0.3 gives q = (0.8, 0.1, 0.1).
    value = losses.cross_entropy(
        [2, 0], [[0.0, 0.0, 0.0], [np.log(2.0), 0.0, 0.0]], label_smoothing=0.3
    )
    np.testing.assert_allclose(
        value, [np.log(3), 0.8 * np.log(2) + 0.2 * np.log(4)], rtol=1e-6
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_of_huge_logits_is_finite(smoothing):
    # log softmax([1000, 0]) = (0, -1000): class 1 costs 1000, class 0 nothing.
    value = losses.cross_entropy([1], [[1000.0, 0.0]], label_smoothing=smoothing)
    np.testing.assert_allclose(value, [(1 - smoothing / 2) * 1000], rtol=1e-6)


def test_entropy():
    # log K where all are equal; log 4 - 3/4 log 3 for (1/4, 3/4); 0 for certainty,
    # where p log p = 0 * -1000 must not become NaN.
    value = losses.entropy([[2.0, 2.0], QUARTER, [1000.0, 0.0]])
    np.testing.assert_allclose(
        value, [np.log(2), np.log(4) - 0.75 * np.log(3), 0], rtol=1e-6
    )


def test_entropy_has_gradient_minus_p_times_log_p_plus_h():
    p = np.array([0.25, 0.75])
    h = np.log(4) - 0.75 * np.log(3)
    grad = gradient(losses.entropy, np.array([QUARTER], np.float32))
    np.testing.assert_allclose(grad[0], -p * (np.log(p) + h), rtol=1e-5)
    # Certainty is a flat place, not a NaN.
    np.testing.assert_array_equal(
        gradient(losses.entropy, np.array([[1000.0, 0.0]], np.float32)), [[0, 0]]
    )


@pytest.mark.parametrize(
    "label, logits, expected",
    [
        (1, [1.0, 4.0, 2.0], 2 - 4),
        (0, [1.0, 4.0, 2.0], 4 - 1),
        (2, [1.0, 4.0, 2.0], 4 - 2),
        (0, [-5.0, -7.0, -6.0], -6 + 5),
        # A tie is neither right nor wrong.
        (0, [4.0, 4.0, 1.0], 0),
    ],
)
def test_margin(label, logits, expected):
    np.testing.assert_array_equal(losses.margin([label], [logits]), [expected])


def test_margin_has_a_gradient_on_the_best_other_and_the_true_logit():
    grad = gradient(
        lambda z: losses.margin([0, 1], z),
        np.array([[1, 4, 2], [1, 4, 2]], np.float32),
    )
    np.testing.assert_array_equal(grad, [[-1, 1, 0], [0, -1, 1]])


@pytest.mark.parametrize(
    "loss",
    [
        lambda z: losses.cross_entropy([0], z),
        lambda z: losses.cross_entropy([0], z, label_smoothing=0.1),
        losses.entropy,
        lambda z: losses.margin([0], z),
    ],
    ids=["cross_entropy", "smoothed", "entropy", "margin"],
)
def test_logits_of_low_precision_give_float32(loss):
    # Both numbers are exact in bfloat16, the value is computed as for float32.
    logits = [[0.5, -1.25]]
    value = loss(tf.constant(logits, tf.bfloat16))
    assert value.dtype == tf.float32
    np.testing.assert_array_equal(value, loss(tf.constant(logits)))


@pytest.mark.parametrize(
    "values, weights, expected",
    [
        ([1.0, 2.0, 6.0], [1.0, 1.0, 1.0], 3),
        # m = 3, k = 1, lambda = 0.3: (2 + 6 + 0.3 * 1) / (2 + 0.3).
        ([1.0, 2.0, 6.0], [0.3, 1.0, 1.0], 8.3 / 2.3),
        ([1.0, 2.0, 6.0], [0.0, 0.0, 5.0], 6),
        # Nothing to average, as for lambda = 0 and no clean example, is no loss.
        ([1.0, 2.0, 6.0], [0.0, 0.0, 0.0], 0),
    ],
)
def test_weighted_mean(values, weights, expected):
    value = losses.weighted_mean(tf.constant(values), tf.constant(weights))
    assert value.shape == ()
    np.testing.assert_allclose(value, expected, rtol=1e-6)
