"""Whose images are trained on, and what is left alone."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfadv import attacks
from tfadv.defenses import Ensemble

SHAPE, CLASSES, N = (2, 2, 1), 3, 4
RANDOM = np.random.default_rng(0)
X = tf.constant(RANDOM.uniform(0.3, 0.7, (N, *SHAPE)), tf.float32)
Y = tf.constant([0, 1, 2, 0])


def linear(seed):
    keras.utils.set_random_seed(seed)
    layers = [keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(CLASSES)]
    return keras.Sequential(layers)


def ensemble(sources, **options):
    attack = attacks.SingleStep(eps=0.1, label="predicted")
    defense = Ensemble(linear(0), attack=attack, sources=sources, **options)
    defense.compile(keras.optimizers.SGD(0.1, 0.9))
    return defense


def made_for(model):
    """x + eps sign(W (p - onehot(argmax z))), the predicted label being left."""
    kernel, bias = model.get_weights()
    logits = X.numpy().reshape(N, -1) @ kernel + bias
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    error = p - np.eye(CLASSES)[logits.argmax(1)]
    return X.numpy() + 0.1 * np.sign(error @ kernel.T).reshape(N, *SHAPE)


def who(defense, models):
    """Which of `models` the images of this step are made for."""
    x_adv = defense.craft(X, Y).numpy()
    hits = [np.allclose(x_adv, made_for(model), atol=1e-6) for model in models]
    assert hits.count(True) == 1
    return hits.index(True)


def steps_of(defense, models, n):
    found = []
    for step in range(n):
        defense.optimizer.iterations.assign(step)
        found.append(who(defense, models))
    return found


def test_every_model_is_drawn_equally_often():
    sources = [linear(1), linear(2)]
    defense = ensemble(sources)
    models = [*sources, defense.classifier]
    for a, b in itertools.combinations(models, 2):
        assert not np.allclose(made_for(a), made_for(b))
    found = steps_of(defense, models, 300)
    counts = [found.count(i) for i in range(3)]
    # Of 300 draws from three, 100 each, with a standard deviation of 8.
    assert min(counts) > 100 - 4 * 8.2
    # A function of the step alone.
    assert found[:20] == steps_of(defense, models, 20)


def test_the_classifier_can_be_left_out():
    sources = [linear(1), linear(2)]
    defense = ensemble(sources, include_self=False)
    found = steps_of(defense, [*sources, defense.classifier], 40)
    assert set(found) == {0, 1}


def test_nothing_to_draw_from():
    with pytest.raises(ValueError, match="`sources` must hold at least one model"):
        ensemble([], include_self=False).train_step((X, Y))


def test_sources_are_neither_trained_nor_part_of_the_model(tmp_path):
    sources = [linear(1), linear(2)]
    before = [source.get_weights() for source in sources]
    defense, alone = ensemble(sources), ensemble([])
    for one in (defense, alone):
        one.fit(X, Y, batch_size=N, epochs=6, verbose=0)
    for source, weights in zip(sources, before, strict=True):
        for a, b in zip(source.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(a, b)
    theirs = {id(v) for source in sources for v in source.variables}
    assert not theirs & {id(v) for v in defense.variables}
    assert len(defense.variables) == len(alone.variables)
    saved = []
    for name, one in (("with", defense), ("without", alone)):
        path = tf.train.Checkpoint(defense=one).write(str(tmp_path / name))
        saved.append({key for key, _ in tf.train.list_variables(path)})
    assert saved[0] == saved[1]


def test_a_step_by_hand():
    """L = (mean J(x) + mean J(x_adv)) / 2 of a linear classifier."""
    source = linear(1)
    defense = ensemble([source], include_self=False)
    kernel, bias = defense.classifier.get_weights()
    gradient = np.zeros_like(kernel)
    for x in (X.numpy(), made_for(source)):
        flat = x.reshape(N, -1)
        logits = flat @ kernel + bias
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        gradient += flat.T @ (p - np.eye(CLASSES)[Y.numpy()]) / N / 2
    defense.train_step((X, Y))
    found = defense.classifier.get_weights()[0]
    np.testing.assert_allclose(found, kernel - 0.1 * gradient, atol=1e-6)
