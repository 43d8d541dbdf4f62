"""Steps of Algorithm 1 against softmax regression in closed form."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.defenses import softmax_regression
from tests.defenses.softmax_regression import (
    CLASSES,
    RATE,
    W,
    X,
    Y,
    accuracy,
    craft,
    cross_entropy,
    flat,
    sign,
    step,
    weights,
)
from tfadv import attacks, models, optimizers
from tfadv.defenses import Kurakin, kurakin
from tfadv.training import Checkpoints, train

EPS = 0.2
ATTACKS = {
    "step_ll": attacks.StepLL(eps=EPS),
    "step_fgsm": attacks.StepFGSM(eps=EPS),
}


def make(name="step_ll", **options):
    options = {"attack": ATTACKS[name], "eps_law": "constant"} | options
    return softmax_regression.make(Kurakin, **options)


def by_hand(name, w, *, k, eps, weight=0.3, weight_decay=0.0, smoothing=0.0, x=X, y=Y):
    """(loss, new w, (clean, adversarial) accuracy) of one step.

    The loss is sum_i c_i J_i / sum_i c_i, c = lambda for the first k images and 1 for
    the others, whose denominator is (m - k) + lambda k.
    """
    w, x = w.astype(np.float64), flat(x)
    x = np.concatenate([craft(name, w, x[:k], y[:k], eps, smoothing), x[k:]])
    c = np.array([weight] * k + [1.0] * (len(x) - k)) / (len(x) - k + weight * k)
    values, slopes = cross_entropy(w, x, y, smoothing)
    loss = c @ values + weight_decay / 2 * (w**2).sum()
    gradient = x.T @ (c[:, None] * slopes) + weight_decay * w
    rates = accuracy(w, x[k:], y[k:]), accuracy(w, x[:k], y[:k])
    return loss, w - RATE * gradient, rates


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("k", [None, 2, 6])
@pytest.mark.parametrize(
    ("weight_decay", "smoothing", "weight"), [(0.0, 0.0, 0.3), (0.1, 0.8, 2.0)]
)
def test_one_step(name, k, weight_decay, smoothing, weight):
    defense = make(
        name,
        k=k,
        weight_decay=weight_decay,
        label_smoothing=smoothing,
        adversarial_weight=weight,
    )
    logs = step(defense)
    loss, w, (clean, adversarial) = by_hand(
        name,
        W,
        k=k or 3,  # half of 6
        eps=EPS,
        weight=weight,
        weight_decay=weight_decay,
        smoothing=smoothing,
    )
    np.testing.assert_allclose(weights(defense), w, atol=1e-6)
    expected = {"loss": loss, "accuracy": clean, "adversarial_accuracy": adversarial}
    assert logs == pytest.approx(expected, abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_steps_of_the_delay_are_clean_and_unweighted(run_eagerly):
    """Two clean steps, c = 1 / m for all; the third is adversarial."""
    defense, w = make(delay=2, run_eagerly=run_eagerly), W
    history = defense.fit(X, Y, batch_size=6, epochs=3, shuffle=False, verbose=0)
    robust = []
    for k, eps, weight in ((3, 0.0, 1.0), (3, 0.0, 1.0), (3, EPS, 0.3)):
        _, w, (_, adversarial) = by_hand("step_ll", w, k=k, eps=eps, weight=weight)
        robust.append(adversarial if eps else np.nan)
    np.testing.assert_allclose(weights(defense), w, atol=1e-6)
    found = history.history["adversarial_accuracy"]
    assert found == pytest.approx(robust, nan_ok=True)


@pytest.mark.parametrize(
    ("k", "batches"),
    [
        (3, [(4, 3), (2, 2)]),
        (None, [(4, 2), (2, 1)]),
        (None, [(5, 2), (1, 0)]),
    ],
)
def test_a_short_last_batch_in_fit(k, batches):
    """`batches` are (size, adversarial images) by hand: k, or half, but all at most."""
    defense, w = make(k=k), W
    history = defense.fit(X, Y, batch_size=batches[0][0], shuffle=False, verbose=0)
    begin, right = 0, 0
    for m, count in batches:
        part = slice(begin, begin + m)
        _, w, (_, rate) = by_hand("step_ll", w, k=count, eps=EPS, x=X[part], y=Y[part])
        right += rate * count if count else 0
        begin += m
    np.testing.assert_allclose(weights(defense), w, atol=1e-6)
    adversarial = sum(count for _, count in batches)
    found = history.history["adversarial_accuracy"]
    assert found == pytest.approx([right / adversarial])


def test_adversarial_images_without_weight_train_nothing():
    """lambda = 0 and a last batch of adversarial images only: no gradient, no NaN."""
    defense = make(k=3, adversarial_weight=0.0)
    defense.fit(X, Y, batch_size=4, shuffle=False, verbose=0)
    _, w, _ = by_hand("step_ll", W, k=3, eps=EPS, weight=0.0, x=X[:4], y=Y[:4])
    np.testing.assert_allclose(weights(defense), w, atol=1e-6)


def test_clean_and_adversarial_images_share_batch_statistics():
    """The moving mean goes half way from 0 to the mean of the images trained on.

    Crafting sees the moving statistics, 0 and 1: the normalisation is x / sqrt(1 + e).
    """
    normalize = keras.layers.BatchNormalization(momentum=0.5, epsilon=1e-3)
    defense = make(k=2, layers=[normalize])
    step(defense)
    x = flat(X)
    x[:2] = craft("step_ll", W / np.sqrt(1.001), x[:2], Y[:2], EPS)
    np.testing.assert_allclose(normalize.moving_mean, [x.mean() / 2], atol=1e-6)


def test_half_of_a_batch_is_adversarial_by_default():
    """Of a batch over all replicas: 64 images each give 32 on each of two."""
    assert make().check_batch(128, replicas=2) == 32
    with pytest.raises(ValueError, match="multiple of the 2 replicas; received 3"):
        make().check_batch(6, replicas=2)


# The auxiliary head.

SCALE = 1.5
V = np.random.default_rng(1).normal(size=W.shape).astype(np.float32)


@pytest.fixture
def linear_head(monkeypatch):
    """Softmax regression with the weights V takes the place of the head."""

    def head(shape, classes, *, weight_decay, **_):
        decay = keras.regularizers.L2(weight_decay / 2)
        dense = keras.layers.Dense(classes, use_bias=False, kernel_regularizer=decay)
        made = keras.Sequential([keras.Input(shape), keras.layers.Flatten(), dense])
        dense.set_weights([V])
        return made

    monkeypatch.setattr(kurakin, "auxiliary_head", head)


def maps():
    """f = a x with a = `SCALE`, maps for a head to look at."""
    a = keras.initializers.Constant(SCALE)
    return keras.layers.Conv2D(1, 1, use_bias=False, kernel_initializer=a, name="maps")


def headed(**options):
    """Logits a x w of the classifier and a x v of the head."""
    return make(layers=[maps()], auxiliary_layer="maps", **options)


def values_of(defense):
    """a, w and v as they are now."""
    a, w = defense.classifier.get_weights()
    return a.item(), w, defense.auxiliary.get_weights()[0]


def headed_by_hand(
    *, k, eps, weight, share, weight_decay=0.0, smoothing=0.0, made=None
):
    """(loss, (a, w, v) after one step) of r = `share` in

        sum_i c_i (J_i + r J'_i) / sum_i c_i,   J of z = a x w, J' of z = a x v,

    c as in `by_hand`. With s = dJ/dz, dJ/dw = a x^T s and dJ/da = sum (x w) s. The
    images are `made`, or made for J alone.
    """
    w, v, x = W.astype(np.float64), V.astype(np.float64), flat(X)
    if made is None:
        made = craft("step_ll", SCALE * w, x[:k], Y[:k], eps)
    x = np.concatenate([made, x[k:]])
    c = np.array([weight] * k + [1.0] * (len(x) - k))
    c /= c.sum()
    values, slopes = cross_entropy(SCALE * w, x, Y, smoothing)
    others, other_slopes = cross_entropy(SCALE * v, x, Y, smoothing)
    slopes, other_slopes = c[:, None] * slopes, share * c[:, None] * other_slopes
    loss = c @ (values + share * others)
    loss += weight_decay / 2 * ((w**2).sum() + (v**2).sum())
    a = SCALE - RATE * ((x @ w * slopes).sum() + (x @ v * other_slopes).sum())
    w = w - RATE * (SCALE * x.T @ slopes + weight_decay * w)
    v = v - RATE * (SCALE * x.T @ other_slopes + weight_decay * v)
    return loss, (a, w, v)


def assert_close(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize(
    ("k", "weight", "share", "weight_decay", "smoothing"),
    [
        (3, 0.3, 0.4, 0.0, 0.0),
        (2, 0.3, 0.4, 0.1, 0.3),
        (6, 2.0, 1.5, 0.0, 0.3),
        (3, 0.3, 0.0, 0.1, 0.0),
    ],
)
def test_one_step_with_a_head(linear_head, k, weight, share, weight_decay, smoothing):
    defense = headed(
        k=k,
        adversarial_weight=weight,
        auxiliary_weight=share,
        weight_decay=weight_decay,
        label_smoothing=smoothing,
    )
    logs = step(defense)
    loss, expected = headed_by_hand(
        k=k,
        eps=EPS,
        weight=weight,
        share=share,
        weight_decay=weight_decay,
        smoothing=smoothing,
    )
    assert logs["loss"] == pytest.approx(loss, abs=1e-6)
    assert_close(values_of(defense), expected)


def made_along(name, share, smoothing, x):
    """The images of one step along J + r J' with r = `share`, all labels smoothed.

    d/dx is a (s w^T + r s' v^T): up for the true label, down for the least likely one.
    """
    w, v = SCALE * W.astype(np.float64), SCALE * V.astype(np.float64)
    y = Y[: len(x)] if name == "step_fgsm" else (x @ w).argmin(1)
    slopes, others = (cross_entropy(u, x, y, smoothing)[1] for u in (w, v))
    direction = np.sign(slopes @ w.T + share * others @ v.T)
    return np.clip(x + (EPS if name == "step_fgsm" else -EPS) * direction, 0, 1)


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize(("share", "smoothing"), [(0.4, 0.9), (3.0, 0.0), (3.0, 0.3)])
def test_images_made_on_the_loss_of_training(linear_head, name, share, smoothing):
    x = flat(X[:3])
    made = made_along(name, share, smoothing, x)
    # Some pixels go another way than for the logits.
    plain = craft(name, SCALE * W.astype(np.float64), x, Y[:3], EPS, smoothing)
    assert np.abs(made - plain).max() > EPS
    defense = headed(
        name=name,
        k=3,
        auxiliary_weight=share,
        label_smoothing=smoothing,
        craft_on="training_loss",
    )
    logs = step(defense)
    loss, expected = headed_by_hand(
        k=3, eps=EPS, weight=0.3, share=share, smoothing=smoothing, made=made
    )
    assert logs["loss"] == pytest.approx(loss, abs=1e-6)
    assert_close(values_of(defense), expected)


def test_smoothing_counts_without_a_head():
    """step_ll goes down J of the smoothed least likely label; all images are made."""
    w, x = W.astype(np.float64), flat(X)
    made = np.clip(x - EPS * sign(w, x, (x @ w).argmin(1), 0.9), 0, 1)
    assert np.abs(made - craft("step_ll", w, x, Y, EPS)).max() > EPS
    gradient = made.T @ cross_entropy(w, made, Y, 0.9)[1] / len(x)
    defense = make(k=6, label_smoothing=0.9, craft_on="training_loss")
    step(defense)
    np.testing.assert_allclose(weights(defense), w - RATE * gradient, atol=1e-6)


def test_what_attacks_see_is_in_inference_mode():
    norm = keras.layers.BatchNormalization(momentum=0.5)
    defense = make(
        layers=[maps(), norm],
        auxiliary_layer="maps",
        auxiliary_width=0.1,
        auxiliary_weight=0.7,
        label_smoothing=0.1,
        craft_on="training_loss",
    )
    step(defense)
    before = [v.numpy() for v in defense.variables]
    judged = defense.crafted_on(tf.constant(X))
    for a, b in zip(before, defense.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    features = defense.classifier.get_layer("maps")(X)
    for training in (False, True):
        logits = defense.classifier(X, training=training)
        others = defense.auxiliary(features, training=training)
        for one, other in ((judged.logits, logits), (judged.auxiliary, others)):
            assert np.allclose(one, other, atol=1e-5) is not training
    assert (judged.auxiliary_weight, judged.label_smoothing) == (0.7, 0.1)


def test_what_is_watched_is_attacked_on_the_logits(linear_head):
    """`evaluate` of Keras gives the same however images to train on are made."""
    x_adv = craft("step_fgsm", SCALE * W.astype(np.float64), flat(X), Y, EPS)
    for craft_on in ("logits", "training_loss"):
        defense = headed(name="step_fgsm", auxiliary_weight=9.0, craft_on=craft_on)
        found = defense.evaluate(X, Y, verbose=0, return_dict=True)
        expected = accuracy(W, x_adv, Y)
        assert found["adversarial_accuracy"] == pytest.approx(expected)
    other = made_along("step_fgsm", 9.0, 0.0, flat(X))
    assert accuracy(W, other, Y) != expected


def test_a_head_in_the_delay(linear_head):
    """Clean images, c = 1 / m for all: also how a head is trained without attacks."""
    defense = headed(k=3, delay=1)
    logs = step(defense)
    loss, expected = headed_by_hand(k=3, eps=0.0, weight=1.0, share=0.4)
    assert logs["loss"] == pytest.approx(loss, abs=1e-6)
    assert_close(values_of(defense), expected)


def test_replicas_share_the_step_of_a_head(linear_head, mirrored):
    """Three images each, one adversarial: [0 2 3] and [1 4 5] of one device's
    [0 1 | 2 3 4 5]."""
    one = headed(k=2, weight_decay=0.1)
    with mirrored.scope():
        two = headed(k=2, weight_decay=0.1)
    for defense, order in ((one, range(6)), (two, [0, 2, 3, 1, 4, 5])):
        order = list(order)
        data = tf.data.Dataset.from_tensors((X[order], Y[order])).repeat()
        defense.build((None, 2, 2, 1))
        train(defense, data.skip, steps=2, steps_per_epoch=2)
    assert_close(values_of(two), values_of(one))
    assert not np.allclose(values_of(one)[2], V, atol=1e-3)


def test_the_head_is_made_for_the_layer_and_like_the_classifier():
    """A sixteenth of 128 and 768 filters, but at least 16."""
    norm = keras.layers.BatchNormalization(momentum=0.8)
    defense = make(
        layers=[maps(), norm],
        weight_decay=0.3,
        auxiliary_layer="maps",
        auxiliary_width=1 / 16,
        auxiliary_activation="elu",
    )
    head = defense.auxiliary
    assert head.input_shape == (None, 2, 2, 1)
    assert head.output_shape == (None, CLASSES)
    shapes = [v.shape for v in head.weights if v.name == "kernel"]
    assert shapes == [(1, 1, 1, 16), (1, 1, 16, 48), (48, CLASSES)]
    assert sum(layer.name.endswith("_elu") for layer in head.layers) == 2
    norms = [
        layer
        for layer in head.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert [layer.momentum for layer in norms] == [0.8, 0.8]
    kernels = sum((v.numpy() ** 2).sum() for v in head.weights if v.name == "kernel")
    assert float(sum(head.losses)) == pytest.approx(0.3 / 2 * kernels, rel=1e-5)


def test_a_head_without_weight_decay_where_the_classifier_has_none():
    assert headed(auxiliary_width=0.1).auxiliary.losses == []


def test_the_head_is_trained_with_the_classifier_and_no_part_of_it():
    defense = headed(auxiliary_width=0.1)
    assert defense.trained_variables == [
        *defense.classifier.trainable_variables,
        *defense.auxiliary.trainable_variables,
    ]
    # The order in which `fit` puts moving averages in their place.
    for one, other in zip(
        defense.trained_variables, defense.trainable_variables, strict=True
    ):
        assert one is other
    names = [layer.name for layer in defense.classifier.layers]
    assert names == ["maps", "flatten", "dense"]
    assert defense.companions == {"auxiliary": defense.auxiliary}
    assert make().companions == {}


def everything(defense):
    """All that a step moves."""
    return [v.numpy() for v in (*defense.variables, *defense.optimizer.variables)]


def test_a_run_with_a_head_goes_on_bit_for_bit(tmp_path):
    data = tf.data.Dataset.from_tensors((X, Y)).repeat()

    def run(directory, steps, seed=1):
        keras.utils.set_random_seed(seed)
        norm = keras.layers.BatchNormalization()
        defense = make(
            layers=[maps(), norm], auxiliary_layer="maps", auxiliary_width=0.1
        )
        optimizer = optimizers.rmsprop(
            decay_rate=0.5, decay_steps=3, ema_momentum=0.9, global_clipnorm=0.1
        )
        defense.compile(optimizer)
        defense.build((None, 2, 2, 1))
        checkpoints = Checkpoints(directory, defense)
        begin = everything(defense)
        settings = {"steps": steps, "steps_per_epoch": 4, "checkpoints": checkpoints}
        train(defense, data.skip, **settings)
        return begin, everything(defense)

    begin, whole = run(tmp_path / "whole", 4)
    run(tmp_path / "parts", 2)
    # From other weights, which the checkpoint replaces.
    other, parts = run(tmp_path / "parts", 4, seed=2)
    assert any((a != b).any() for a, b in zip(begin, other, strict=True))
    for start, a, b in zip(begin, whole, parts, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(start, a)


def test_averages_are_those_of_classifier_and_head():
    """a <- a / 2 + w / 2, begun with the first w; `fit` ends with a."""
    defense = headed(auxiliary_width=0.1)
    defense.compile(
        optimizers.sgd(learning_rate=(0.1,), ema_momentum=0.5), run_eagerly=True
    )
    averages = []

    class Averages(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            for i, variable in enumerate(defense.trained_variables):
                w = variable.numpy().astype(np.float64)
                if batch == 0:
                    averages.append(w)
                averages[i] = averages[i] / 2 + w / 2

    defense.fit(X, Y, batch_size=2, shuffle=False, verbose=0, callbacks=[Averages()])
    assert len(averages) == len(defense.trained_variables)
    for variable, average in zip(defense.trained_variables, averages, strict=True):
        np.testing.assert_allclose(variable.numpy(), average, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"auxiliary_layer": "mixed_6e"},
            "functional classifier; received 'mixed_6e'. Layers: maps, flatten, dense",
        ),
        (
            {"auxiliary_layer": "flatten"},
            r"the head of `auxiliary_layer` 'flatten': .* received \(4,\)",
        ),
        ({"auxiliary_width": 0.0}, "'maps': `width` must be .* received 0"),
        ({"auxiliary_activation": "rely"}, "'maps': .*'rely'"),
        ({"auxiliary_weight": -0.1}, "`auxiliary_weight` .* received -0.1"),
        ({"auxiliary_weight": np.inf}, "`auxiliary_weight` .* received inf"),
        ({"craft_on": "loss"}, "`craft_on` must be 'logits' or .* received 'loss'"),
    ],
)
def test_heads_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        make(**{"layers": [maps()], "auxiliary_layer": "maps"} | options)


def test_a_head_needs_a_functional_classifier():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.maps = maps()

        def call(self, x, training=None):
            return tf.reshape(self.maps(x), [-1, 4])

    options = {"attack": ATTACKS["step_ll"], "auxiliary_layer": "maps"}
    with pytest.raises(ValueError, match=r"functional classifier; .* Layers: maps"):
        Kurakin(Subclassed(), **options)


def test_the_head_of_inception():
    """On the 768 * 0.1 maps of `mixed_6e`, whose side is 3 for images of 75."""
    classifier = models.inception_v3((75, 75, 3), CLASSES, width=0.1)
    channels = classifier.get_layer("mixed_6e").output.shape[-1]
    defense = Kurakin(classifier, attack=ATTACKS["step_ll"], auxiliary_layer="mixed_6e")
    assert defense.auxiliary.input_shape == (None, 3, 3, channels)
    with_defaults = models.auxiliary_head((3, 3, channels), CLASSES)
    same = [layer.get_config() for layer in with_defaults.layers[1:]]
    found = [layer.get_config() for layer in defense.auxiliary.layers[1:]]
    assert found == same
