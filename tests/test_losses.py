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


def smoothed(y, logits, smoothing):
    """J for hard labels as integers, for others as probabilities."""
    if smoothing:
        y = losses.soft_labels(y, len(logits[0]), smoothing)
    return losses.cross_entropy(y, logits)


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
    value = smoothed([0, 1], [QUARTER, QUARTER], smoothing)
    np.testing.assert_allclose(value, expected, rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_has_gradient_softmax_minus_q(smoothing):
    q = np.array([[1 - smoothing / 2, smoothing / 2]])
    grad = gradient(
        lambda z: smoothed([0], z, smoothing),
        np.array([QUARTER], np.float32),
    )
    np.testing.assert_allclose(grad, [[0.25, 0.75]] - q, rtol=1e-6)


def test_cross_entropy_of_three_classes_spreads_the_smoothing_over_all():
    # Logits 0 give log 3 whatever q; logits (log 2, 0, 0) give p = (1/2, 1/4, 1/4),
    # and s = 0.3 gives q = (0.8, 0.1, 0.1).
    value = smoothed([2, 0], [[0.0, 0.0, 0.0], [np.log(2.0), 0.0, 0.0]], 0.3)
    np.testing.assert_allclose(
        value, [np.log(3), 0.8 * np.log(2) + 0.2 * np.log(4)], rtol=1e-6
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_of_huge_logits_is_finite(smoothing):
    # log softmax([1000, 0]) = (0, -1000): class 1 costs 1000, class 0 nothing.
    value = smoothed([1], [[1000.0, 0.0]], smoothing)
    np.testing.assert_allclose(value, [(1 - smoothing / 2) * 1000], rtol=1e-6)


def test_soft_labels():
    """s = 0.3 of three classes: 0.7 + 0.1 for the label, 0.1 for each other."""
    q = losses.soft_labels([2, 0], 3, 0.3)
    np.testing.assert_allclose(q, [[0.1, 0.1, 0.8], [0.8, 0.1, 0.1]], rtol=1e-6)
    assert q.dtype == tf.float32


def test_soft_labels_by_the_share_of_the_other_classes():
    """delta = 1/4 of 10 classes is s = delta K / (K - 1) = 5 / 18."""
    q = losses.soft_labels([3], 10, 5 / 18)
    expected = np.full([1, 10], 0.25 / 9)
    expected[0, 3] = 0.75
    np.testing.assert_allclose(q, expected, rtol=1e-6)


def test_cross_entropy_gives_probabilities_no_gradient():
    q = tf.constant([[0.5, 0.5]])
    with tf.GradientTape() as tape:
        tape.watch(q)
        value = losses.cross_entropy(q, [QUARTER])
    assert tape.gradient(value, q) is None
    np.testing.assert_allclose(value, [0.5 * np.log(4) + 0.5 * np.log(4 / 3)])


def test_dissimilarity():
    """p = (1/4, 3/4) against itself is its entropy; against (3/4, 1/4) the logarithms
    change places; against (1/2, 1/2) it is log 2 whatever p."""
    value = losses.dissimilarity([QUARTER] * 3, [QUARTER, QUARTER[::-1], [0.0, 0.0]])
    entropy = np.log(4) / 4 + 0.75 * np.log(4 / 3)
    swapped = np.log(4 / 3) / 4 + 0.75 * np.log(4)
    np.testing.assert_allclose(value, [entropy, swapped, np.log(2)], rtol=1e-6)


def test_dissimilarity_has_gradient_in_both():
    """d/db = q - p.  d/da = -p * (log q + D): that of a mean of -log q under p."""
    a, b = tf.constant([QUARTER]), tf.constant([[1.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch([a, b])
        value = losses.dissimilarity(a, b)
    in_a, in_b = tape.gradient(value, [a, b])
    p = np.array([0.25, 0.75])
    q = np.array([np.e, 1]) / (np.e + 1)
    np.testing.assert_allclose(in_b, [q - p], rtol=1e-5)
    d = -(p * np.log(q)).sum()
    np.testing.assert_allclose(in_a, [-p * (np.log(q) + d)], rtol=1e-5)


def test_dissimilarity_of_huge_logits_is_finite():
    value = losses.dissimilarity([[1000.0, 0.0]], [[0.0, 1000.0]])
    np.testing.assert_allclose(value, [1000], rtol=1e-6)


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


def test_margin_of_probabilities_is_that_of_the_likeliest():
    value = losses.margin([[0.1, 0.8, 0.1]], [[1.0, 4.0, 2.0]])
    np.testing.assert_array_equal(value, [2 - 4])


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
        lambda z: smoothed([0], z, 0.1),
        losses.entropy,
        lambda z: losses.margin([0], z),
        lambda z: losses.dissimilarity(z, z[:, ::-1]),
    ],
    ids=["cross_entropy", "smoothed", "entropy", "margin", "dissimilarity"],
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


@pytest.mark.parametrize(
    "options, expected, slope",
    [
        # a - b = (3, -4, 0) and (-1, 0, 2).
        ({}, [12.5, 2.5], [[3, -4, 0], [-1, 0, 2]]),
        ({"norm": 2, "half": True}, [12.5, 2.5], [[3, -4, 0], [-1, 0, 2]]),
        ({"norm": 2, "half": False}, [25, 5], [[6, -8, 0], [-2, 0, 4]]),
        ({"norm": 1}, [7, 3], [[1, -1, 0], [-1, 0, 1]]),
        ({"norm": 1, "half": False}, [7, 3], [[1, -1, 0], [-1, 0, 1]]),
    ],
)
def test_embedding_distance_and_its_opposite_gradients(options, expected, slope):
    b = tf.constant([[1.0, 2.0, 5.0], [0.0, -1.0, 3.0]])
    a = b + [[3.0, -4.0, 0.0], [-1.0, 0.0, 2.0]]
    with tf.GradientTape() as tape:
        tape.watch([a, b])
        distance = losses.embedding_distance(a, b, **options)
    np.testing.assert_array_equal(distance, expected)
    of_a, of_b = tape.gradient(distance, [a, b])
    np.testing.assert_array_equal(of_a, slope)
    np.testing.assert_array_equal(of_b, -np.array(slope))


@pytest.mark.parametrize("norm", [1, 2])
def test_equal_embeddings_have_no_distance_and_no_gradient(norm):
    b = tf.constant([[1.0, -2.0]])
    grad = gradient(lambda a: losses.embedding_distance(a, b, norm=norm), [[1.0, -2.0]])
    np.testing.assert_array_equal(losses.embedding_distance(b, b, norm=norm), [0])
    np.testing.assert_array_equal(grad, [[0, 0]])


@pytest.mark.parametrize("norm", [1, 2])
def test_embedding_distance_sums_over_all_axes_but_the_first(norm):
    # 2 * 3 * 4 components, 1 apart; without the half both norms are their number.
    a = np.zeros((2, 2, 3, 4), np.float32)
    b = np.stack([np.ones((2, 3, 4)), np.zeros((2, 3, 4))])
    value = losses.embedding_distance(a, b, norm=norm, half=False)
    np.testing.assert_array_equal(value, [24, 0])


def test_embeddings_of_low_precision_give_a_float32_distance():
    # (2^-5)^2 / 2 each: added to 128 in bfloat16 the small ones would vanish.
    a = tf.constant([[16.0, *[2.0**-5] * 64]], tf.bfloat16)
    value = losses.embedding_distance(a, tf.zeros_like(a))
    assert value.dtype == tf.float32
    np.testing.assert_array_equal(value, [128 + 64 * 2.0**-11])
