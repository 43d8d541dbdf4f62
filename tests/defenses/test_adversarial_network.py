"""The game of two weights by hand, and both ways to its regulariser."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfadv.defenses import AdversarialNetwork

RATE, ETA = 0.1, 0.05


class Bilinear(AdversarialNetwork):
    """With J = the logit: F = mean theta x + lambda mean theta x (1 + eps phi)."""

    def cross_entropy(self, y, logits):
        return logits[:, 0]


def single_weight(value, name=None):
    """x [n, 1, 1, 1] -> a product with one weight, [n, 1], or an image with `name`."""
    inputs = keras.Input((1, 1, 1), name=name)
    x = inputs if name else keras.layers.Flatten()(inputs)
    dense = keras.layers.Dense(1, use_bias=False)
    model = keras.Model(inputs, dense(x))
    dense.set_weights([np.array([[value]], np.float32)])
    return model


def game(theta, phi, *, eta=ETA, **options):
    defense = Bilinear(
        single_weight(theta), generator=single_weight(phi, "image"), **options
    )
    defense.compile(
        keras.optimizers.SGD(RATE), generator_optimizer=keras.optimizers.SGD(eta)
    )
    return defense


def play(defense, x):
    x = tf.constant(x, tf.float32, (len(x), 1, 1, 1))
    logs = defense.train_step((x, tf.zeros([len(x)], tf.int32)))
    theta, phi = (
        float(m.get_weights()[0].squeeze())
        for m in (defense.classifier, defense.generator)
    )
    return theta, phi, float(logs["loss"])


@pytest.mark.parametrize("regularizer", ["finite_difference", "exact", "none"])
@pytest.mark.parametrize(("sign", "way"), [("paper", 1), ("code", -1)])
def test_the_bilinear_game(regularizer, sign, way):
    """x = 1 and eps = 1: v = dF/dphi = theta, and d^2F / dtheta dphi * v = theta.

    So the paper's sign draws theta to 0 and the released code's drives it away.
    """
    theta, phi, gamma = 0.5, 0.25, 0.4
    defense = game(
        *(theta, phi),
        eps=1.0,
        generator_steps=2,
        gradient_weight=gamma,
        regularizer=regularizer,
        gradient_sign=sign,
    )
    found = play(defense, [1.0])
    # Two steps up: dF/dphi does not depend on phi.
    phi += 2 * ETA * theta
    penalty = 0.0 if regularizer == "none" else way * gamma * theta
    expected = theta - RATE * (1 + (1 + phi) + penalty)
    assert found == pytest.approx((expected, phi, theta * (2 + phi)), abs=1e-4)


@pytest.mark.parametrize("regularizer", ["finite_difference", "exact"])
def test_every_weight_is_in_its_place(regularizer):
    """Of two images with mean 1: F = theta + lambda theta (1 + eps phi), as G makes
    phi x of x. Then v = lambda eps theta, and the gradient of gamma / 2 v^2 in theta is
    gamma (lambda eps)^2 theta."""
    theta, phi, gamma, weight, eps = 0.5, 0.25, 0.4, 2.0, 0.5
    defense = game(
        *(theta, phi),
        eps=eps,
        generator_steps=1,
        adversarial_weight=weight,
        gradient_weight=gamma,
        regularizer=regularizer,
    )
    found = play(defense, [0.5, 1.5])
    phi += ETA * weight * eps * theta
    gradient = 1 + weight * (1 + eps * phi) + gamma * (weight * eps) ** 2 * theta
    loss = theta * (1 + weight * (1 + eps * phi))
    assert found == pytest.approx((theta - RATE * gradient, phi, loss), abs=1e-4)


def test_the_difference_is_taken_a_tenth_of_the_learning_rate_away():
    steps = []

    class Spy(Bilinear):
        def shifted(self, *args):
            h, x = super().shifted(*args)
            steps.append(float(h))
            return h, x

    for eta, given in ((0.05, None), (1e-5, None), (0.05, 0.02), (0.05, 1e-9)):
        defense = Spy(
            single_weight(0.5),
            generator=single_weight(0.25, "image"),
            eps=0.5,
            difference_step=given,
        )
        defense.compile("sgd", generator_optimizer=keras.optimizers.SGD(eta))
        play(defense, [1.0])
    # Never below 1e-4, where float32 has nothing left.
    assert steps == pytest.approx([0.005, 1e-4, 0.02, 1e-4])


# ------------------------------------------------------------------- on real networks

SHAPE, CLASSES, N = (6, 6, 1), 3, 16
RANDOM = np.random.default_rng(0)
X = tf.constant(RANDOM.uniform(size=(N, *SHAPE)), tf.float32)
Y = tf.constant(RANDOM.integers(0, CLASSES, N), tf.int32)


def smooth(**options):
    """A defence of smooth networks, the same weights at every call."""
    keras.utils.set_random_seed(3)
    layers = keras.layers
    classifier = keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.Conv2D(4, 3, activation="tanh"),
            layers.Flatten(),
            layers.Dense(CLASSES),
        ]
    )
    image = keras.Input(SHAPE, name="image")
    x = layers.Conv2D(4, 3, padding="same", use_bias=False)(image)
    x = layers.Activation("tanh")(layers.BatchNormalization()(x))
    x = layers.Conv2D(1, 3, padding="same", activation="tanh")(x)
    defense = AdversarialNetwork(
        classifier, generator=keras.Model(image, x), eps=0.3, **options
    )
    defense.compile(
        keras.optimizers.SGD(1.0), generator_optimizer=keras.optimizers.SGD(0.1)
    )
    return defense


def moved(**options):
    """How far one step moves the weights of D, without steps of G."""
    defense = smooth(**options)
    defense.strengthen = lambda *_: None
    before = defense.classifier.get_weights()
    defense.train_step((X, Y))
    after = defense.classifier.get_weights()
    return np.concatenate([(a - b).ravel() for a, b in zip(after, before, strict=True)])


def test_the_finite_difference_tends_to_the_exact_gradient():
    """(g(phi + h v) - g(phi)) / h is off by h / 2 times a third derivative: half of h
    halves what is left."""
    weight = 20.0
    plain = moved(regularizer="none")
    exact = moved(regularizer="exact", gradient_weight=weight) - plain
    errors = [
        np.linalg.norm(moved(gradient_weight=weight, difference_step=h) - plain - exact)
        for h in (0.4, 0.2, 0.1)
    ]
    assert errors[2] < 0.1 * np.linalg.norm(exact)
    for longer, shorter in itertools.pairwise(errors):
        assert shorter == pytest.approx(longer / 2, rel=0.2)


@pytest.mark.parametrize("regularizer", ["finite_difference", "exact", "none"])
def test_the_step_of_the_classifier_leaves_the_generator_bitwise(regularizer):
    defense = smooth(regularizer=regularizer)
    defense.strengthen = lambda *_: None
    before = defense.generator.get_weights()
    assert len(before) == 7  # kernel; scale, offset, mean, variance; kernel, bias
    tf.function(defense.train_step)((X, Y))
    for a, b in zip(before, defense.generator.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_steps_of_the_generator_raise_the_loss_and_leave_the_classifier():
    defense = smooth()

    def loss():
        x_adv = X + 0.3 * defense.generator(X, training=True)
        return float(defense.adversarial_loss(Y, defense.logits(x_adv)))

    classifier = defense.classifier.get_weights()
    found = [loss()]
    for number in range(5):
        defense.strengthen(X, Y, (0, number), defense.generator_optimizer)
        found.append(loss())
    assert found == sorted(found) and found[-1] > found[0] + 0.01
    for a, b in zip(classifier, defense.classifier.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_batch_statistics_are_moved_by_the_two_passes_of_the_classifier_alone():
    """Clean, then perturbed images, each by their mean: 0, m / 2, m / 4 + m' / 2."""
    statistics = keras.layers.BatchNormalization(momentum=0.5)
    classifier = keras.Sequential(
        [
            keras.Input(SHAPE),
            statistics,
            keras.layers.Flatten(),
            keras.layers.Dense(CLASSES),
        ]
    )
    defense = AdversarialNetwork(
        classifier, generator=smooth().generator, eps=0.3, generator_steps=3
    )
    defense.compile("sgd", generator_optimizer=keras.optimizers.SGD(0.1))
    defense.train_step((X, Y))
    # The step of D comes last, so its images are those of the generator as it is now.
    perturbed = X + 0.3 * defense.generator(X, training=True)
    expected = np.mean(X) / 4 + np.mean(perturbed) / 2
    np.testing.assert_allclose(statistics.moving_mean, [expected], atol=1e-6)


@pytest.mark.parametrize("kind", ["label", "noise"])
def test_generators_from_labels_and_from_noise(kind):
    width = {"label": CLASSES, "noise": 5}[kind]
    inputs = keras.Input((width,), name=kind)
    dense = keras.layers.Dense(36, activation="tanh")
    generator = keras.Model(inputs, keras.layers.Reshape(SHAPE)(dense(inputs)))
    defense = AdversarialNetwork(smooth().classifier, generator=generator, eps=0.3)
    defense.compile("sgd")
    before = [w.copy() for w in generator.get_weights()]
    logs = defense.fit(X, Y, batch_size=N, verbose=0).history
    assert np.isfinite(logs["loss"]).all()
    for a, b in zip(before, generator.get_weights(), strict=True):
        assert (a != b).any()


def test_the_metrics_of_a_test_are_those_of_the_clipped_attack():
    defense = smooth()
    logs = defense.test_step((X, Y))
    x_adv = np.clip(X + 0.3 * defense.generator(X, training=False), 0, 1)
    right = np.argmax(defense.logits(x_adv), 1) == Y
    assert float(logs["adversarial_accuracy"]) == pytest.approx(np.mean(right))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"generator_steps": 0}, "`generator_steps` must be at least 1; received 0"),
        ({"adversarial_weight": -1.0}, "`adversarial_weight`.*received -1.0"),
        ({"gradient_weight": -0.1}, "`gradient_weight`.*received -0.1"),
        ({"difference_step": -1e-3}, "`difference_step`.*received -0.001"),
        ({"eps": 8}, r"`eps` must be in \[0, 1\].*'8/255'"),
        ({"gradient_sign": "papr"}, "`gradient_sign`.*did you mean 'paper'"),
        ({"regularizer": "exat"}, "`regularizer`.*did you mean 'exact'"),
    ],
)
def test_arguments_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        AdversarialNetwork(
            single_weight(1.0),
            generator=single_weight(1.0, "image"),
            **{"eps": 0.1} | options,
        )


def test_a_network_that_is_no_generator():
    other = keras.Sequential([keras.Input(SHAPE), keras.layers.Conv2D(1, 1)])
    with pytest.raises(ValueError, match="one input called image, label or noise"):
        AdversarialNetwork(smooth().classifier, generator=other, eps=0.1)
