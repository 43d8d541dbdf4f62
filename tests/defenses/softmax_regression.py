"""Softmax regression: the classifier whose training steps can be written down.

Logits z = x w, without bias, and SGD without momentum. With p = softmax(z) the loss
J = -q . log p has dJ/dz = p - q, so dJ/dw = x^T (p - q) and dJ/dx = (p - q) w^T.
"""

import keras
import numpy as np
import tensorflow as tf

RATE, CLASSES = 0.5, 3
RANDOM = np.random.default_rng(0)
W = RANDOM.normal(size=(4, CLASSES)).astype(np.float32)
X = RANDOM.uniform(size=(6, 2, 2, 1)).astype(np.float32)
Y = RANDOM.integers(0, CLASSES, 6).astype(np.int32)


def make(
    factory,
    *,
    weight_decay=0.0,
    layers=(),
    metrics=None,
    run_eagerly=False,
    **options,
):
    """A defence of softmax regression with the weights W; `layers` come before it."""
    kernel = keras.layers.Dense(
        CLASSES,
        use_bias=False,
        kernel_regularizer=keras.regularizers.L2(weight_decay / 2),
    )
    classifier = keras.Sequential(
        [keras.Input((2, 2, 1)), *layers, keras.layers.Flatten(), kernel]
    )
    kernel.set_weights([W])
    defense = factory(classifier, **options)
    defense.compile(
        keras.optimizers.SGD(RATE), metrics=metrics, run_eagerly=run_eagerly
    )
    return defense


def step(defense, x=X, y=Y):
    """One `train_step`; the metrics as floats."""
    x = tuple(map(tf.constant, x)) if isinstance(x, tuple) else tf.constant(x)
    logs = defense.train_step((x, tf.constant(y)))
    return {name: float(value) for name, value in logs.items()}


def weights(defense):
    """w [4, K] as it is now."""
    return defense.classifier.get_weights()[0]


def flat(x):
    """Images as float64 rows [n, 4]."""
    return x.reshape(-1, 4).astype(np.float64)


def cross_entropy(w, x, y, smoothing=0.0):
    """J [n] of the rows x and dJ/dz = p - q [n, K]."""
    p = np.exp(x @ w)
    p /= p.sum(1, keepdims=True)
    q = (1 - smoothing) * np.eye(CLASSES)[y] + smoothing / CLASSES
    return -(q * np.log(p)).sum(1), p - q


def sign(w, x, label, smoothing=0.0):
    """sign(dJ/dx) of the rows x."""
    return np.sign(cross_entropy(w, x, label, smoothing)[1] @ w.T)


def craft(name, w, x, y, eps, smoothing=0.0):
    """One step, eps a number or [n, 1]: step_fgsm goes up for the true label, smoothed
    as it is trained on, step_ll down for the least likely one."""
    if name == "step_fgsm":
        return np.clip(x + eps * sign(w, x, y, smoothing), 0, 1)
    return np.clip(x - eps * sign(w, x, (x @ w).argmin(1)), 0, 1)


def accuracy(w, x, y):
    """The share of the rows x that are classified as y; NaN of none."""
    return np.mean((x @ w).argmax(1) == y) if len(x) else np.nan
