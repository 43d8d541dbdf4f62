"""Losses: pure functions of labels and logits that return one value per example.

Whoever trains reduces them; nothing here takes a mean over examples.
"""

import tensorflow as tf


def soft_labels(y, num_classes, label_smoothing):
    """q = (1 - s) onehot(y) + s / K.

    The label itself so gets the probability 1 - s + s / K. Papers that write 1 - delta
    for it and share delta among the K - 1 other classes mean s = delta K / (K - 1).

    Args:
        y: [n] integer labels.
        num_classes: K.
        label_smoothing: s in [0, 1).

    Returns:
        [n, K], float32.
    """
    hard = tf.one_hot(y, num_classes, dtype=tf.float32)
    return (1.0 - label_smoothing) * hard + label_smoothing / num_classes


def cross_entropy(y, logits):
    """J(y, z) = -sum_c q_c log softmax(z)_c.

    Args:
        y: [n] integer labels, q = onehot(y), or [n, K] probabilities q, constants.
        logits: [n, K].

    Returns:
        [n], float32.
    """
    logits = tf.cast(logits, tf.float32)
    y = tf.stop_gradient(tf.convert_to_tensor(y))
    if y.shape.rank == 1:
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)
    return tf.nn.softmax_cross_entropy_with_logits(labels=y, logits=logits)


def dissimilarity(logits, other):
    """D(p, q) = -sum_c p_c log q_c of p = softmax(logits), q = softmax(other).

    The cross-entropy of two predictions: the entropy of p where they agree, larger
    where they do not. Both carry gradient.

    Args:
        logits, other: [n, K].

    Returns:
        [n], float32.

    Source: e2SAD 2019, eq. 8.
    """
    p = tf.nn.softmax(tf.cast(logits, tf.float32))
    log_q = tf.nn.log_softmax(tf.cast(other, tf.float32))
    return -tf.reduce_sum(p * log_q, axis=-1)


def entropy(logits):
    """H(p) = -sum_c p_c log p_c of p = softmax(z).

    Args:
        logits: [n, K].

    Returns:
        [n], float32. Both factors carry gradient.
    """
    log_p = tf.nn.log_softmax(tf.cast(logits, tf.float32))
    return -tf.reduce_sum(tf.exp(log_p) * log_p, axis=-1)


def margin(y, logits):
    """max_{c != y} z_c - z_y: positive exactly where the example is misclassified.

    Args:
        y: [n] integer labels, or [n, K] probabilities, of which the largest counts.
        logits: [n, K].

    Returns:
        [n], float32.
    """
    logits = tf.cast(logits, tf.float32)
    y = tf.convert_to_tensor(y)
    if y.shape.rank == 2:
        y = tf.argmax(y, axis=-1)
    is_true = tf.one_hot(y, tf.shape(logits)[-1], on_value=True, off_value=False)
    true = tf.reduce_sum(tf.where(is_true, logits, 0.0), axis=-1)
    return tf.reduce_max(tf.where(is_true, -float("inf"), logits), axis=-1) - true


def weighted_mean(values, weights):
    """sum_i w_i v_i / sum_i w_i.

    With w = lambda for k adversarial and 1 for m - k clean examples this is the
    loss of Kurakin et al. 2017, Algorithm 1: the normaliser is (m - k) + lambda k.

    Args:
        values: [n].
        weights: [n], not negative; if all are 0 the mean is 0.

    Returns:
        scalar.
    """
    return tf.math.divide_no_nan(
        tf.reduce_sum(weights * values), tf.reduce_sum(weights)
    )


def embedding_distance(a, b, *, norm=2, half=True):
    """d(a, b), how far two embeddings of the same image are apart.

        norm 2:  |a - b|^2 = sum_j (a_j - b_j)^2, half of it with `half`
        norm 1:  sum_j |a_j - b_j|

    Args:
        a, b: [n, ...], equal shapes.
        norm: 1 or 2.
        half: whether norm 2 carries the factor 1/2.

    Returns:
        [n], float32.

    Source: Na et al. 2018, eq. 3; the factor 1/2 is that of their code.
    """
    difference = tf.cast(a, tf.float32) - tf.cast(b, tf.float32)
    axes = list(range(1, difference.shape.rank))
    if norm == 1:
        return tf.reduce_sum(tf.abs(difference), axis=axes)
    squared = tf.reduce_sum(tf.square(difference), axis=axes)
    return 0.5 * squared if half else squared
