"""A generator against a classifier that is fixed."""

import keras
import numpy as np
import tensorflow as tf

from tfadv import attacks
from tfadv.defenses import GeneratorAttack


def test_a_step_by_hand():
    """D(x) = (a x, 0) and G(x) = w x on one pixel, y = 0: J = log(1 + exp(-a x_adv)),
    x_adv = x (1 + eps w), dJ/dw = -a eps x / (1 + exp(a x_adv)), which w goes up."""
    a, w, eps, rate = 2.0, 0.5, 0.1, 0.3
    x = np.array([0.4, 0.6], np.float32)
    inputs = keras.Input((1, 1, 1))
    flat = keras.layers.Flatten()(inputs)
    classifier = keras.Model(inputs, keras.layers.Dense(2, use_bias=False)(flat))
    classifier.set_weights([np.array([[a, 0.0]], np.float32)])
    image = keras.Input((1, 1, 1), name="image")
    generator = keras.Model(image, keras.layers.Dense(1, use_bias=False)(image))
    generator.set_weights([np.array([[w]], np.float32)])
    defense = GeneratorAttack(classifier, generator=generator, eps=eps)
    defense.compile(keras.optimizers.SGD(rate))
    logs = defense.train_step((tf.constant(x.reshape(2, 1, 1, 1)), tf.constant([0, 0])))
    x_adv = x * (1 + eps * w)
    slope = np.mean(-a * eps * x / (1 + np.exp(a * x_adv)))
    found = float(generator.get_weights()[0].squeeze())
    np.testing.assert_allclose(found, w + rate * slope, rtol=1e-6)
    loss = -np.mean(np.log1p(np.exp(-a * x_adv)))
    np.testing.assert_allclose(float(logs["loss"]), loss, rtol=1e-6)


def problem():
    """A classifier in two dimensions that a shift of 0.3 can fool, and a generator."""
    keras.utils.set_random_seed(1)
    layers = keras.layers
    random = np.random.default_rng(0)
    x = random.uniform(0.3, 0.7, (64, 4, 4, 1)).astype(np.float32)
    inputs = keras.Input((4, 4, 1))
    hidden = layers.BatchNormalization()(layers.Flatten()(inputs))
    classifier = keras.Model(inputs, layers.Dense(2)(hidden))
    # The sign of the left half minus the right half.
    half = np.tile([1.0, 1.0, -1.0, -1.0], 4)[:, None]
    parts = classifier.get_weights()
    parts[-2] = np.concatenate([half, -half], 1).astype(np.float32)
    classifier.set_weights(parts)
    y = np.argmax(classifier.predict(x, verbose=0), 1).astype(np.int32)
    image = keras.Input((4, 4, 1), name="image")
    z = layers.Conv2D(8, 3, padding="same", activation="tanh")(image)
    z = layers.Dense(16, activation="tanh")(layers.Flatten()(z))
    generator = keras.Model(image, layers.Reshape((4, 4, 1))(z))
    return classifier, generator, x, y


def test_it_fools_the_classifier_which_stays_bitwise_as_it_is():
    classifier, generator, x, y = problem()
    before = classifier.get_weights()
    defense = GeneratorAttack(classifier, generator=generator, eps=0.1)
    defense.compile(keras.optimizers.Adam(0.01))
    defense.fit(x, y, batch_size=64, epochs=150, verbose=0)
    for a, b in zip(classifier.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)

    def accuracy(attack):
        x_adv = attack(defense.logits, tf.constant(x), tf.constant(y), seed=(0, 0))
        return np.mean(np.argmax(defense.logits(x_adv), 1) == y)

    assert accuracy(attacks.RandomSign(eps=0.1)) > 0.8
    assert accuracy(attacks.Generator(eps=0.1, generator=generator)) < 0.6
