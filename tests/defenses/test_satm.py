"""Who learns from whose images, by hand, and what keeps the features alike."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.defenses import softmax_regression as sr
from tfadv import attacks, models
from tfadv.defenses import SATM, AdversarialTraining
from tfadv.training import Checkpoints, train

EPS, RATE = 0.2, 0.5
N, CLASSES = len(sr.X), sr.CLASSES
ROWS = sr.flat(sr.X)
OTHERS = np.random.default_rng(7).normal(size=(2, *sr.W.shape)).astype(np.float32)
FGSM = attacks.StepFGSM(eps=EPS)


def regression(w):
    """Softmax regression with the weights w; made of weights that are copied."""
    dense = keras.layers.Dense(CLASSES, use_bias=False)
    network = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten(), dense])
    dense.set_weights([w])
    return network


def plain(*others, partner_optimizers=None, weight_decay=0.0, **options):
    """SATM of softmax regressions without domain blocks; the classifier's is W."""

    def factory(classifier, **options):
        partners = [regression(w) for w in others]
        return SATM(classifier, partners=partners, domain_weights=(0.0,), **options)

    options = {"attack": FGSM} | options
    defense = sr.make(factory, weight_decay=weight_decay, **options)
    if partner_optimizers:
        defense.compile(
            keras.optimizers.SGD(RATE), partner_optimizers=partner_optimizers
        )
    return defense


def now(defense):
    """The first weight matrix of every network."""
    return [network.get_weights()[0] for network in defense.networks]


# ------------------------------------------------------------------- one step by hand


@pytest.mark.parametrize(
    ("others", "step"), [(OTHERS[:1], 0), (OTHERS, 0), (OTHERS, 1)]
)
@pytest.mark.parametrize(
    ("rates", "smoothing", "decay"), [(None, 0.0, 0.2), ((0.1, 0.3), 0.3, 0.0)]
)
def test_a_step_of_softmax_regressions(others, step, rates, smoothing, decay):
    """dL/dw = [x^T (p - q) + r_adv x_adv^T (p_adv - q)] / n + decay w, where x_adv is
    made for the weights of another; decay / 2 |w|^2 is the classifier's alone."""
    r_adv, count = 0.7, 1 + len(others)
    rates = (RATE, *(rates or (RATE, RATE)))
    optimizers = [keras.optimizers.SGD(rate) for rate in rates[1:count]]
    defense = plain(
        *others,
        # The same rates are those of copies.
        partner_optimizers=None if rates[1] == RATE else optimizers,
        weight_decay=decay,
        label_smoothing=smoothing,
        adversarial_weight=r_adv,
    )
    defense.optimizer.iterations.assign(step)
    found = sr.step(defense)

    w = [one.astype(np.float64) for one in (sr.W, *others)]
    x_adv = [sr.craft("step_fgsm", one, ROWS, sr.Y, EPS, smoothing) for one in w]
    expected = {"loss": decay / 2 * (w[0] ** 2).sum()}
    for i in range(count):
        # The next one, of three in the second step the one after it.
        of_other = x_adv[(i + 1 + step) % count]
        clean, error = sr.cross_entropy(w[i], ROWS, sr.Y, smoothing)
        adversarial, error_adv = sr.cross_entropy(w[i], of_other, sr.Y, smoothing)
        gradient = (ROWS.T @ error + r_adv * of_other.T @ error_adv) / N
        gradient += (decay if i == 0 else 0.0) * w[i]
        moved = w[i] - rates[i] * gradient
        np.testing.assert_allclose(now(defense)[i], moved, atol=1e-6)
        expected["loss"] += clean.mean() + r_adv * adversarial.mean()
        end = f"_{i}" if i else ""
        expected[f"accuracy{end}"] = sr.accuracy(w[i], ROWS, sr.Y)
        expected[f"adversarial_accuracy{end}"] = sr.accuracy(w[i], of_other, sr.Y)
    assert found == pytest.approx(expected, abs=1e-5)


HIDDEN, UNITS = 3, 5


def with_features(seed):
    """x -> h = x v -> logits h w: linear, so that only the block has a kink."""
    inputs = keras.Input((2, 2, 1))
    h = keras.layers.Flatten()(inputs)
    h = keras.layers.Dense(HIDDEN, use_bias=False)(h)
    dense = keras.layers.Dense(CLASSES, use_bias=False, name="embedding")
    network = keras.Model(inputs, dense(h))
    random = np.random.default_rng(seed)
    network.set_weights([random.normal(size=w.shape) for w in network.get_weights()])
    return network


def adapted(
    *,
    weights,
    seeds=(1, 2),
    attack=FGSM,
    units=UNITS,
    rate=RATE,
    momentum=0.0,
    **options,
):
    """SATM of such networks, with blocks whose weights are functions of the seed."""
    networks = [with_features(seed) for seed in seeds]
    defense = SATM(
        networks[0],
        attack=attack,
        partners=networks[1:],
        domain_weights=weights,
        domain_units=units,
        **options,
    )
    for seed, block in zip(seeds, defense.domain_blocks, strict=True):
        if block is not None:
            random = np.random.default_rng(seed + 100)
            for variable in block.trainable_variables:
                variable.assign(random.normal(scale=0.3, size=variable.shape))
    defense.compile(keras.optimizers.SGD(rate, momentum))
    return defense


def values(variables):
    return [v.numpy().astype(np.float64) for v in variables]


@pytest.mark.parametrize(
    ("options", "step", "factor"),
    [
        ({}, 0, 1.0),
        ({"reversal": 0.25}, 3, 0.25),
        # 2 / (1 + exp(-10 p)) - 1 = tanh(5 p).
        ({"reversal": 2.0, "reversal_warmup": 4}, 0, 0.0),
        ({"reversal": 2.0, "reversal_warmup": 4}, 1, 2 * math.tanh(1.25)),
        ({"reversal_warmup": 4}, 9, math.tanh(5)),
    ],
)
@pytest.mark.parametrize("weights", [(0.6,), (0.6, 0.0), (0.0, 0.3)])
def test_a_step_with_domain_blocks(weights, options, step, factor):
    """With h = x v, a = relu(h A + a0), z = a B + b0 over the 2n images, s = sigmoid(z)
    and d the domain, DA has dz = (s - d) / 2n. A, a0, B and b0 go down r_da DA; v is
    given -factor * r_da * dDA/dh on top of what the cross-entropies give it."""
    r_adv = 0.7
    defense = adapted(weights=weights, adversarial_weight=r_adv, **options)
    before = [values(network.trainable_variables) for network in defense.networks]
    blocks = [
        block and values(block.trainable_variables) for block in defense.domain_blocks
    ]
    x_adv = [sr.craft("step_fgsm", v @ w, ROWS, sr.Y, EPS) for v, w in before]
    defense.optimizer.iterations.assign(step)
    found = sr.step(defense)

    loss = 0.0
    weights = weights * 2 if len(weights) == 1 else weights
    for i, (v, w) in enumerate(before):
        x = np.concatenate([ROWS, x_adv[1 - i]])
        share = np.repeat([1 / N, r_adv / N], N)[:, None]
        h = x @ v
        j, error = sr.cross_entropy(w, h, np.tile(sr.Y, 2))
        loss += (share[:, 0] * j).sum()
        dh = share * error @ w.T
        if weights[i]:
            A, a0, B, b0 = blocks[i]
            a = np.maximum(h @ A + a0, 0)
            s = 1 / (1 + np.exp(-(a @ B + b0)))
            d = np.repeat([0.0, 1.0], N)[:, None]
            loss -= weights[i] * np.mean(np.log(np.where(d, s, 1 - s)))
            dz = weights[i] * (s - d) / (2 * N)
            da = dz @ B.T * (a > 0)
            dh -= factor * da @ A.T
            gradients = [h.T @ da, da.sum(0), a.T @ dz, dz.sum(0)]
            moved = values(defense.domain_blocks[i].trainable_variables)
            for old, new, g in zip(blocks[i], moved, gradients, strict=True):
                np.testing.assert_allclose(new, old - RATE * g, atol=1e-5)
        else:
            assert defense.domain_blocks[i] is None
        moved = values(defense.networks[i].trainable_variables)
        np.testing.assert_allclose(moved[0], v - RATE * x.T @ dh, atol=1e-5)
        gradient = h.T @ (share * error)
        np.testing.assert_allclose(moved[1], w - RATE * gradient, atol=1e-5)
    assert found["loss"] == pytest.approx(loss, abs=1e-5)


def test_the_warm_up_in_one_compiled_function():
    defense = adapted(weights=(0.1, 0.0), reversal=3.0, reversal_warmup=4, rate=0.0)
    factor = defense.domain_blocks[0].get_layer("reversal").factor
    step = tf.function(defense.train_step)
    found = []
    for _ in range(6):
        step((tf.constant(sr.X), tf.constant(sr.Y)))
        found.append(float(factor))
    expected = [3 * math.tanh(5 * min(1, i / 4)) for i in range(6)]
    assert found == pytest.approx(expected, abs=1e-6)
    assert found[0] == 0


# --------------------------------------------------------------------- whose images


@pytest.mark.parametrize("networks", [2, 3, 4])
def test_every_network_takes_the_others_in_turn_and_never_its_own(networks):
    def mark(predict, x, y, seed=None):
        """Fills the images with the one logit of the model that they are made for."""
        return tf.zeros_like(x) + tf.reduce_max(predict(x), 0)

    members = []
    for i in range(networks):
        dense = keras.layers.Dense(1)
        layers = [keras.Input((2, 2, 1)), keras.layers.Flatten(), dense]
        members.append(keras.Sequential(layers))
        dense.set_weights([np.zeros((4, 1)), np.full(1, i)])
    defense = SATM(members[0], attack=mark, partners=members[1:], domain_weights=(0.0,))
    defense.compile("sgd")
    turns = []
    for step in range(2 * (networks - 1)):
        defense.optimizer.iterations.assign(step)
        images = defense.exchange(defense.craft(tf.constant(sr.X), tf.constant(sr.Y)))
        turns.append([int(np.unique(image).item()) for image in images])
    once = networks - 1
    for i, took in enumerate(zip(*turns, strict=True)):
        assert sorted(took[:once]) == sorted({*range(networks)} - {i})
        assert took[:once] == took[once:]
    for turn in turns:
        assert sorted(turn) == [*range(networks)]  # All that is made is used.


def test_own_images_reach_neither_loss_nor_weights():
    def poison(predict, x, y, seed=None):
        """NaN for the classifier, whose weights are W."""
        made_for_it = np.allclose(predict(x), tf.reshape(x, [-1, 4]) @ sr.W)
        return x * math.nan if made_for_it else x

    defense = plain(OTHERS[0], attack=poison)
    sr.step(defense)
    first, second = now(defense)
    assert np.isfinite(first).all() and not np.array_equal(first, sr.W)
    assert np.isnan(second).all()


def test_no_gradient_reaches_the_network_that_an_image_was_made_for():
    """The same step whether or not the attack leaves its gradient open."""

    def attack(stop):
        def craft(predict, x, y, seed=None):
            shift = tf.reshape(predict(x)[:, :1], [-1, 1, 1, 1])
            return stop(x + 0.1 * shift)

        return craft

    open_, closed = (
        plain(*OTHERS, attack=attack(stop)) for stop in (tf.identity, tf.stop_gradient)
    )
    for defense in (open_, closed):
        sr.step(defense)
    for a, b in zip(now(open_), now(closed), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("moving", [0, 1, 2])
def test_an_optimizer_moves_its_own_network_alone(moving):
    rates = [RATE * (i == moving) for i in range(3)]
    defense = plain(*OTHERS)
    first, *others = (keras.optimizers.SGD(rate) for rate in rates)
    defense.compile(first, partner_optimizers=others)
    sr.step(defense)
    for i, (old, new) in enumerate(zip([sr.W, *OTHERS], now(defense), strict=True)):
        assert np.array_equal(old, new) == (i != moving)


def test_the_order_of_the_networks_does_not_matter():
    x, y = sr.X, sr.Y
    options = {"momentum": 0.9, "reversal_warmup": 3}
    one = adapted(weights=(0.3, 0.7), seeds=(1, 2), **options)
    other = adapted(weights=(0.7, 0.3), seeds=(2, 1), **options)
    logs = [
        d.fit(x, y, batch_size=3, epochs=4, verbose=0).history for d in (one, other)
    ]
    for i in (0, 1):
        for a, b in zip(one.variables_of(i), other.variables_of(1 - i), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
    assert not np.allclose(one.variables_of(0)[0], one.variables_of(1)[0])
    for key in ("accuracy", "adversarial_accuracy"):
        assert logs[0][key] == logs[1][f"{key}_1"]
        assert logs[0][f"{key}_1"] == logs[1][key]
    assert logs[0]["loss"] == pytest.approx(logs[1]["loss"], abs=1e-5)


def test_every_network_has_noise_of_its_own_for_every_step():
    defense = plain(*OTHERS, attack=attacks.RandomSign(eps=0.1))
    x, y = tf.constant(0.5 + 0 * sr.X), tf.constant(sr.Y)
    made = []
    for step in (0, 1, 0):
        defense.optimizer.iterations.assign(step)
        made.append([image.numpy().tobytes() for image in defense.craft(x, y)])
    assert made[0] == made[2]
    assert len({*made[0], *made[1]}) == 6


# ------------------------------------------------------- the same structure and weights


def test_twins_stay_one_network_that_trains_on_its_own_images():
    """J(x) + J(x_adv) at a rate is twice (J(x) + J(x_adv)) / 2 at the double rate."""
    w = sr.W
    twins = plain(w)
    alone = sr.make(AdversarialTraining, attack=FGSM, alpha=0.5)
    alone.compile(keras.optimizers.SGD(2 * RATE))
    losses = []
    for step in range(6):
        order = np.roll(np.arange(N), step)[:4]
        images, labels = sr.X[order], sr.Y[order]
        losses.append(sr.step(twins, images, labels)["loss"])
        sr.step(alone, images, labels)
        first, second = now(twins)
        np.testing.assert_array_equal(first, second)
        np.testing.assert_allclose(first, sr.weights(alone), atol=1e-5)
    assert not np.allclose(first, w, atol=0.1)
    assert losses[-1] < losses[0]


# ------------------------------------------------------------------ what is measured


def by_hand(w, x, y):
    return sr.cross_entropy(w.astype(np.float64), x, y)[0].mean()


def test_a_test_is_clean_and_under_white_box_attack():
    defense = plain(*OTHERS, label_smoothing=0.3)
    logs = defense.evaluate(sr.X, sr.Y, batch_size=4, verbose=0, return_dict=True)
    expected = {"loss": 0.0}
    for i, w in enumerate([sr.W, *OTHERS]):
        end = f"_{i}" if i else ""
        x_adv = sr.craft("step_fgsm", w, ROWS, sr.Y, EPS)
        expected["loss"] += by_hand(w, ROWS, sr.Y)
        expected[f"accuracy{end}"] = sr.accuracy(w, ROWS, sr.Y)
        expected[f"adversarial_accuracy{end}"] = sr.accuracy(w, x_adv, sr.Y)
    assert logs == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("others", [OTHERS[:1], OTHERS])
def test_the_validation_loss_is_the_sum_of_the_losses(others):
    """Without label smoothing and weight decay; the mean over all the others."""
    r_adv = 0.7
    options = {"weight_decay": 0.2, "label_smoothing": 0.3}
    defense = plain(*others, adversarial_weight=r_adv, **options)
    w = [sr.W, *others]
    x_adv = [sr.craft("step_fgsm", one, ROWS, sr.Y, EPS) for one in w]
    expected = 0.0
    for i, own in enumerate(w):
        of_others = [by_hand(own, x, sr.Y) for j, x in enumerate(x_adv) if j != i]
        expected += by_hand(own, ROWS, sr.Y) + r_adv * np.mean(of_others)
    found = defense.validation_loss(tf.constant(sr.X), tf.constant(sr.Y))
    assert float(found) == pytest.approx(expected, abs=1e-5)


def test_the_validation_loss_draws_the_same_noise_again():
    defense = plain(OTHERS[0], attack=attacks.RandomStep(eps=EPS))
    batch = tf.constant(sr.X), tf.constant(sr.Y)
    first = float(defense.validation_loss(*batch))
    defense.optimizer.iterations.assign(5)
    assert float(defense.validation_loss(*batch)) == first


# ------------------------------------------------------------------- domain adaptation


def brighter(predict, x, y, seed=None):
    """Easily told from clean: one pixel is brighter."""
    return x + tf.reshape([0.0, 0.0, 0.0, 0.5], [1, 2, 2, 1])


def test_reversal_makes_the_domains_alike():
    """Beside it blocks that learn without changing the features: factor 0.

    Features h of the halves are apart by |mean h_adv - mean h| in units of the spread
    of h. Of ten networks of other seeds the most was 0.27 of what it is without.
    """
    random = np.random.default_rng(0)
    x = tf.constant(random.uniform(size=(32, 2, 2, 1)), tf.float32)
    y = tf.constant(random.integers(0, CLASSES, 32), tf.int32)
    x_adv = brighter(None, x, y)
    apart, domain_loss = [], []
    for reversal in (0.0, 1.0):
        options = {"attack": brighter, "rate": 0.2, "units": 32, "reversal": reversal}
        defense = adapted(weights=(3.0,), seeds=(3, 4), **options)
        step = tf.function(defense.train_step)
        for _ in range(150):
            step((x, y))
        for i, network in enumerate(defense.networks):
            v = network.get_weights()[0]
            h, h_adv = (sr.flat(images.numpy()) @ v for images in (x, x_adv))
            shift = np.linalg.norm(h_adv.mean(0) - h.mean(0))
            apart.append(shift / np.linalg.norm(h.std(0)))
            domain_loss.append(float(defense.judge(i, tf.concat([x, x_adv], 0))[1]))
    for i in (0, 1):
        assert apart[2 + i] < 0.4 * apart[i]
        # To the block the domains are harder to tell; to guess is log 2.
        assert domain_loss[i] + 0.1 < domain_loss[2 + i] < math.log(2) + 0.1


# ------------------------------------------------------------------ state and replicas


def dropping(seed):
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    inputs = keras.Input((2, 2, 1))
    x = layers.Dense(8, activation="relu")(layers.Flatten()(inputs))
    x = layers.Dropout(0.5)(layers.BatchNormalization()(x))
    return keras.Model(inputs, layers.Dense(CLASSES, name="embedding")(x))


def rows(n):
    random = np.random.default_rng(0)
    x = random.uniform(size=(n, 2, 2, 1)).astype(np.float32)
    return tf.data.Dataset.from_tensor_slices((x, random.integers(0, CLASSES, n)))


def state(defense):
    variables = [*defense.variables, *defense.metrics_variables]
    for optimizer in defense.optimizers:
        variables += optimizer.variables
    return [v.numpy() for v in variables]


def test_a_run_that_was_stopped_goes_on_bit_for_bit(tmp_path):
    data = rows(32).batch(8)

    def run(directory, steps, seed=1):
        networks = [dropping(seed + i) for i in range(3)]
        defense = SATM(
            networks[0],
            attack=attacks.RandomStep(eps=EPS),
            partners=networks[1:],
            domain_weights=(0.1, 0.0, 0.2),
            domain_units=4,
            reversal_warmup=3,
        )
        defense.compile(keras.optimizers.SGD(0.1, momentum=0.9))
        defense.build((None, 2, 2, 1))
        checkpoints = Checkpoints(directory, defense)
        settings = {"steps": steps, "steps_per_epoch": 4, "checkpoints": checkpoints}
        begin = state(defense)
        train(defense, lambda start: data.skip(start), **settings)
        return begin, state(defense)

    begin, whole = run(tmp_path / "whole", 4)
    run(tmp_path / "parts", 2)
    # From other weights and other seeds of dropout, which the checkpoint replaces.
    other, parts = run(tmp_path / "parts", 4, seed=11)
    assert any((a != b).any() for a, b in zip(begin, other, strict=True))
    for start, a, b in zip(begin, whole, parts, strict=True):
        np.testing.assert_array_equal(a, b)
        # Everything moves but learning rates and the factor of a finished warm-up.
        assert start.ndim == 0 or not np.array_equal(start, a)


def test_two_replicas_of_a_half_batch_are_one_of_the_whole(mirrored):
    def make():
        options = {"momentum": 0.9, "reversal_warmup": 4, "rate": 0.1}
        defense = adapted(weights=(0.5,), seeds=(1, 2, 3), **options)
        defense.build((None, 2, 2, 1))
        defense.optimizer.build(defense.trained_variables)
        return defense

    one = make()
    with mirrored.scope():
        two = make()
    data = rows(24).batch(8)
    steps = {"steps": 3, "steps_per_epoch": 3}
    logs = [train(d, lambda start: data.skip(start), **steps) for d in (one, two)]
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert logs[1] == pytest.approx(logs[0], abs=1e-5)
    factor = two.domain_blocks[1].get_layer("reversal").factor
    assert factor.numpy() == pytest.approx(math.tanh(5 * 2 / 4), abs=1e-6)


def test_networks_without_shapes_are_built_by_the_first_batch():
    def network():
        return keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(CLASSES)])

    defense = SATM(network(), attack=FGSM, partners=[network()], domain_weights=(0.0,))
    defense.compile("sgd")
    logs = defense.fit(sr.X, sr.Y, batch_size=3, verbose=0).history
    assert np.isfinite([logs["loss"], logs["accuracy_1"]]).all()
    assert [network.count_params() for network in defense.networks] == [15, 15]


def test_networks_of_the_package_have_features():
    """eat_d is flat where its logits begin, the features of small_cnn are an image."""
    networks = [models.eat_d((8, 8, 1), 3), models.small_cnn((8, 8, 1), 3)]
    defense = SATM(networks[0], attack=FGSM, partners=networks[1:], domain_units=4)
    sizes = [network.get_layer("embedding").kernel.shape[0] for network in networks]
    kernels = [block.trainable_variables[0].shape for block in defense.domain_blocks]
    assert kernels == [(size, 4) for size in sizes]


def test_features_are_flattened():
    """An embedding of an image: 1x1 convolution of [2, 2, 3], so 12 features."""
    inputs = keras.Input((2, 2, 1))
    h = keras.layers.Conv2D(3, 1)(inputs)
    x = keras.layers.Conv2D(CLASSES, 2, name="embedding")(h)
    network = keras.Model(inputs, keras.layers.Flatten()(x))
    defense = SATM(
        network,
        attack=FGSM,
        partners=[with_features(1)],
        domain_weights=(0.5, 0.0),
        domain_units=4,
    )
    assert defense.domain_blocks[0].trainable_variables[0].shape == (12, 4)
    defense.compile("sgd")
    assert np.isfinite(sr.step(defense)["loss"])


def test_partners_train_by_copies_of_the_optimizer():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.5, 0.25])
    defense = plain(*OTHERS)
    defense.compile(keras.optimizers.SGD(schedule, momentum=0.9, nesterov=True))
    first, *others = defense.optimizers
    assert len({id(one) for one in defense.optimizers}) == 3
    for other in others:
        assert other.get_config() == first.get_config()
    for _ in range(3):
        sr.step(defense)
    for optimizer in defense.optimizers:
        assert int(optimizer.iterations) == 3
        assert float(optimizer.learning_rate) == 0.25


# -------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"partners": []}, r"`partners` must be a list of one network.*received \[\]"),
        ({"adversarial_weight": -1.0}, "`adversarial_weight`.*received -1.0"),
        ({"reversal": -1.0}, "`reversal` must be finite.*received -1.0"),
        ({"reversal": math.inf}, "`reversal` must be finite.*received inf"),
        ({"reversal": math.nan}, "`reversal` must be finite.*received nan"),
        ({"reversal_warmup": -1}, "`reversal_warmup`.*received -1"),
        ({"domain_units": 0}, "`domain_units` must be at least 1; received 0"),
        ({"domain_weights": ()}, "`domain_weights`.*the 2 networks.*received 0"),
        ({"domain_weights": (0, 0, 0)}, "`domain_weights`.*received 3 numbers"),
        ({"domain_weights": (0.1, -0.1)}, "`domain_weights`.*received -0.1"),
    ],
)
def test_arguments_out_of_range(options, message):
    options = {"partners": [with_features(2)]} | options
    with pytest.raises(ValueError, match=message):
        SATM(with_features(1), attack=FGSM, **options)


def test_one_partner_must_be_in_a_list():
    with pytest.raises(ValueError, match="`partners` must be a list"):
        SATM(with_features(1), attack=FGSM, partners=with_features(2))


def test_a_network_twice():
    a, b = with_features(1), with_features(2)
    for partners in ([a], [b, b], [b, a]):
        with pytest.raises(ValueError, match="share no variable"):
            SATM(a, attack=FGSM, partners=partners)


def test_networks_that_share_a_layer():
    first = with_features(1)
    second = keras.Sequential([keras.layers.Rescaling(2.0), *first.layers[1:]])
    second.build((None, 2, 2, 1))
    with pytest.raises(ValueError, match=r"share no variable.*'kernel'"):
        SATM(first, attack=FGSM, partners=[second])


def test_networks_of_other_classes():
    other = keras.Sequential(
        [keras.Input((2, 2, 1)), keras.layers.Flatten(), keras.layers.Dense(4)]
    )
    with pytest.raises(ValueError, match=r"same classes.*with 3, 4 logits"):
        SATM(regression(sr.W), attack=FGSM, partners=[other], domain_weights=(0.0,))


def test_a_domain_weight_for_a_network_without_features():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.flatten = keras.layers.Flatten()
            self.dense = keras.layers.Dense(CLASSES, name="embedding")

        def call(self, x):
            return self.dense(self.flatten(x))

    called = Subclassed()
    called(sr.X)
    unbuilt = keras.Sequential([keras.layers.Dense(CLASSES, name="embedding")])
    for network in (regression(OTHERS[0]), called, Subclassed(), unbuilt):
        for weights in ((0.1,), (0.0, 0.1)):
            with pytest.raises(ValueError, match=f"network 1 .'{network.name}'. has"):
                SATM(
                    with_features(1),
                    attack=FGSM,
                    partners=[network],
                    domain_weights=weights,
                )
        SATM(
            with_features(1),
            attack=FGSM,
            partners=[network],
            domain_weights=(0.1, 0.0),
        )


def test_optimizers_of_the_partners():
    defense = plain(*OTHERS)
    first, second, third = (keras.optimizers.SGD() for _ in range(3))
    for given, message in (
        ([second], "each of the 2 partners; received 1"),
        ([second, first], "received one twice"),
        ([second, second], "received one twice"),
    ):
        with pytest.raises(ValueError, match=message):
            defense.compile(first, partner_optimizers=given)
    defense.compile(first, partner_optimizers=[second, third])
    assert defense.optimizers == [first, second, third]
