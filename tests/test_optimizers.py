import keras
import numpy as np
import pytest
import tensorflow as tf

from tfadv import optimizers
from tfadv.errors import UsageError


def steps_taken(optimizer, gradients):
    """What each update subtracts from a weight that starts at 0."""
    weight = keras.Variable([0.0])
    taken = []
    for gradient in gradients:
        before = float(weight[0])
        optimizer.apply([keras.ops.convert_to_tensor([gradient])], [weight])
        taken.append(before - float(weight[0]))
    return taken


def test_a_boundary_is_the_first_step_at_the_next_rate():
    """With gradient 1 and no momentum each step is the learning rate."""
    optimizer = optimizers.sgd(
        learning_rate=(0.5, 0.25, 0.125), boundaries=(2, 3), momentum=0.0
    )
    assert steps_taken(optimizer, [1.0] * 5) == [0.5, 0.5, 0.25, 0.125, 0.125]


def test_a_boundary_at_step_one():
    optimizer = optimizers.sgd(learning_rate=(0.5, 0.25), boundaries=(1,), momentum=0.0)
    assert steps_taken(optimizer, [1.0] * 2) == [0.5, 0.25]


def test_large_boundaries_are_exact():
    rate = optimizers.piecewise((0.5, 0.25), (94_000,))
    assert [float(rate(step)) for step in (93_999, 94_000)] == [0.5, 0.25]


def test_one_rate_needs_no_boundary():
    assert optimizers.piecewise((0.5,), ()) == 0.5


EVERY = pytest.mark.parametrize("make", optimizers.OPTIMIZERS.values())


def test_the_staircase():
    """With gradient 1 and no momentum each step is the learning rate."""
    optimizer = optimizers.sgd(
        learning_rate=(0.5,), decay_rate=0.25, decay_steps=2, momentum=0.0
    )
    taken = steps_taken(optimizer, [1.0] * 5)
    assert taken == [0.5, 0.5, 0.125, 0.125, 0.03125]


@EVERY
def test_the_staircase_of_inception(make):
    """0.94 every 1601 steps: 93 times within 150,000, as 93 * 1601 = 148,893."""
    optimizer = make(learning_rate=(0.045,), decay_rate=0.94, decay_steps=1601)
    for step, drops in ((1600, 0), (1601, 1), (148_892, 92), (148_893, 93)):
        optimizer.iterations.assign(step)
        rate = pytest.approx(0.045 * 0.94**drops, rel=1e-5)
        assert float(optimizer.learning_rate) == rate


def test_sgd_with_momentum():
    """v <- m v + lr g with m = lr = 1/2, g = 1, 1, 0: 1/2, 3/4, 3/8."""
    optimizer = optimizers.sgd(learning_rate=(0.5,), momentum=0.5)
    assert steps_taken(optimizer, [1.0, 1.0, 0.0]) == [0.5, 0.75, 0.375]


def test_adam():
    """The first step is lr whatever the gradient: both moments are corrected to g.

    Second step of g = 4, then 0, with beta_1 = 0.8, beta_2 = 0.5: m = 0.8 * 0.8 / 0.36
    = 16 / 9, v = 0.5 * 8 / 0.75 = 16 / 3, so lr * (16 / 9) / sqrt(16 / 3).
    """
    optimizer = optimizers.adam(learning_rate=(0.5,), beta_1=0.8, beta_2=0.5)
    expected = [0.5, 0.5 * (16 / 9) / np.sqrt(16 / 3)]
    np.testing.assert_allclose(steps_taken(optimizer, [4.0, 0.0]), expected, rtol=1e-5)


def test_adam_epsilon():
    """First step: lr * sqrt(1 - b2) g / (sqrt(1 - b2) g + eps), here 1/2 * 3 / 4."""
    optimizer = optimizers.adam(learning_rate=(0.5,), beta_2=0.75, epsilon=1.0)
    assert steps_taken(optimizer, [6.0]) == pytest.approx([0.375], rel=1e-5)


def test_rmsprop_has_epsilon_inside_the_root():
    """ms = 0.1 * 3^2 = 0.9, so the first step is 0.045 * 3 / sqrt(0.9 + 1).

    Then, with gradient 0, the momentum keeps 0.9 of it.
    """
    first = 0.045 * 3 / np.sqrt(1.9)
    taken = steps_taken(optimizers.rmsprop(), [3.0, 0.0])
    np.testing.assert_allclose(taken, [first, 0.9 * first], rtol=1e-5)


@pytest.mark.parametrize(
    "rates, boundaries, message",
    [
        ((0.1,), (5,), "received 1 rates and 1 steps"),
        ((0.1, 0.01), (), "received 2 rates and 0 steps"),
        ((), (), "received 0 rates"),
        ((0.1, 0.1, 0.1), (5, 4), "must increase"),
        ((0.1, 0.1, 0.1), (5, 5), "must increase"),
        ((0.1, 0.1), (0,), "must increase from 1"),
    ],
)
@EVERY
def test_schedules_that_make_no_sense(make, rates, boundaries, message):
    with pytest.raises(ValueError, match=message):
        make(learning_rate=rates, boundaries=boundaries)


@EVERY
@pytest.mark.parametrize(
    "options, message",
    [
        ({"decay_rate": 0.9}, "must be given together; received 0.9 and None"),
        ({"decay_steps": 9}, "must be given together; received None and 9"),
        ({"decay_rate": 0.0, "decay_steps": 9}, "`decay_rate` .* received 0.0"),
        ({"decay_rate": np.inf, "decay_steps": 9}, "`decay_rate` .* received inf"),
        ({"decay_rate": 0.9, "decay_steps": 0}, "`decay_steps` .* received 0"),
        (
            {
                "decay_rate": 0.9,
                "decay_steps": 9,
                "learning_rate": (0.1, 0.01),
                "boundaries": (5,),
            },
            r"two schedules: .* received \(5,\) and 9",
        ),
        ({"ema_momentum": 1.0}, r"`ema_momentum` must be in \[0, 1\); received 1.0"),
        ({"ema_momentum": -0.1}, "`ema_momentum` .* received -0.1"),
        ({"clipnorm": 0.0}, "`clipnorm` must be a positive number; received 0.0"),
        ({"global_clipnorm": -1.0}, "`global_clipnorm` .* received -1.0"),
        ({"clipnorm": np.nan}, "`clipnorm` .* received nan"),
        ({"clipnorm": 1.0, "global_clipnorm": 2.0}, "both .* received 1.0 and 2.0"),
    ],
)
def test_options_that_make_no_sense(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


# Clipping.

CLIPPED = pytest.mark.parametrize(
    "options, expected",
    [
        # Of the gradients (3, 4) and (12), whose norms are 5 and 12, together 13.
        ({}, ([3, 4], [12])),
        ({"clipnorm": 2.5}, ([1.5, 2], [2.5])),
        ({"clipnorm": 6.0}, ([3, 4], [6])),
        ({"global_clipnorm": 6.5}, ([1.5, 2], [6])),
        ({"global_clipnorm": 14.0}, ([3, 4], [12])),
    ],
)


@CLIPPED
def test_gradients_are_clipped(options, expected):
    """With the rate 1 a step is the gradient."""
    optimizer = optimizers.sgd(learning_rate=(1.0,), momentum=0.0, **options)
    weights = [keras.Variable([0.0, 0.0]), keras.Variable([0.0])]
    gradients = [tf.constant([3.0, 4.0]), tf.constant([12.0])]
    optimizer.apply_gradients(zip(gradients, weights, strict=True))
    for weight, step in zip(weights, expected, strict=True):
        np.testing.assert_allclose(-weight.numpy(), step, rtol=1e-6)


@CLIPPED
def test_what_is_clipped_is_the_mean_over_the_replicas(options, expected, mirrored):
    """(6, 0), 20 on one and (0, 8), 4 on the other; each hands in its half."""
    with mirrored.scope():
        optimizer = optimizers.sgd(learning_rate=(1.0,), momentum=0.0, **options)
        weights = [keras.Variable([0.0, 0.0]), keras.Variable([0.0])]
        optimizer.build(weights)

    def step():
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        halves = (
            tf.gather([[3.0, 0.0], [0.0, 4.0]], replica),
            tf.gather([[10.0], [2.0]], replica),
        )
        optimizer.apply_gradients(zip(halves, weights, strict=True))

    tf.function(lambda: mirrored.run(step))()
    for weight, taken in zip(weights, expected, strict=True):
        for copy in mirrored.experimental_local_results(weight.value):
            np.testing.assert_allclose(-copy.numpy(), taken, rtol=1e-6)


@pytest.mark.parametrize("option", ["clipnorm", "global_clipnorm"])
@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_a_weight_without_a_gradient_is_not_clipped(option, mirrored):
    with mirrored.scope():
        optimizer = optimizers.sgd(learning_rate=(1.0,), momentum=0.0, **{option: 2.5})
        weights = [keras.Variable([0.0, 0.0]), keras.Variable([1.0])]
        optimizer.build(weights)

    def step():
        gradients = [tf.constant([1.5, 2.0]), None]
        optimizer.apply_gradients(zip(gradients, weights, strict=True))

    tf.function(lambda: mirrored.run(step))()
    moved, other = (weight.numpy().tolist() for weight in weights)
    assert moved == pytest.approx([-1.5, -2.0])
    assert other == [1.0]


# Moving averages of the weights.


def averaging(weight, momentum):
    """w = -1/2, -2, -1 with the rate 1/2 and the gradients 1, 3, -2."""
    optimizer = optimizers.sgd(
        learning_rate=(0.5,), momentum=0.0, ema_momentum=momentum
    )
    optimizer.build([weight])
    return optimizer


@pytest.mark.parametrize(
    "momentum, average",
    [
        # -1/2; then (-1/2 - 2) / 2 = -5/4; then (-5/4 - 1) / 2.
        (0.5, -1.125),
        # -1/2; then -3/8 - 2/4 = -7/8; then -21/32 - 1/4.
        (0.75, -29 / 32),
        (0.0, -1.0),
    ],
)
def test_the_average_over_three_steps(momentum, average):
    weight = keras.Variable([0.0])
    optimizer = averaging(weight, momentum)
    for gradient, after in ((1.0, -0.5), (3.0, -2.0), (-2.0, -1.0)):
        optimizer.apply_gradients([(tf.constant([gradient]), weight)])
        assert weight.numpy() == [after]  # Training knows nothing of the average.
    optimizer.finalize_variable_values([weight])
    assert weight.numpy() == [average]


def test_averaged_gives_the_weights_back():
    weight = keras.Variable([0.0])
    optimizer = averaging(weight, 0.5)
    for gradient in (1.0, 3.0, -2.0):
        optimizer.apply_gradients([(tf.constant([gradient]), weight)])
    with optimizers.averaged(optimizer, [weight]):
        assert weight.numpy() == [-1.125]
    assert weight.numpy() == [-1.0]
    with pytest.raises(ZeroDivisionError), optimizers.averaged(optimizer, [weight]):
        raise ZeroDivisionError
    assert weight.numpy() == [-1.0]


def test_averaged_without_an_average():
    weight = keras.Variable([0.0])
    optimizer = averaging(weight, None)
    optimizer.apply_gradients([(tf.constant([1.0]), weight)])
    with optimizers.averaged(optimizer, [weight]):
        assert weight.numpy() == [-0.5]
    optimizer.finalize_variable_values([weight])
    assert weight.numpy() == [-0.5]


def test_replicas_average_what_one_device_does(mirrored):
    """The gradients 1, 3, -2 are those of two replicas together."""
    with mirrored.scope():
        weight = keras.Variable([0.0])
        optimizer = averaging(weight, 0.5)

    def step(gradient):
        optimizer.apply_gradients([([gradient / 2], weight)])

    one_step = tf.function(lambda gradient: mirrored.run(step, args=(gradient,)))
    for gradient in (1.0, 3.0, -2.0):
        one_step(tf.constant(gradient))

    def copies():
        found = mirrored.experimental_local_results(weight.value)
        return [copy.numpy().item() for copy in found]

    with optimizers.averaged(optimizer, [weight]):
        assert copies() == [-1.125, -1.125]
    assert copies() == [-1.0, -1.0]


@EVERY
def test_a_copy_of_an_optimizer_is_like_it(make):
    """As a defence makes it that gives every network one."""
    options = {"decay_rate": 0.5, "decay_steps": 1, "clipnorm": 0.5}
    optimizer = make(**options, ema_momentum=0.5)
    copy = type(optimizer).from_config(optimizer.get_config())
    assert (copy.use_ema, copy.ema_momentum) == (True, 0.5)
    gradients = [1.0, 3.0, -2.0]
    assert steps_taken(copy, gradients) == steps_taken(optimizer, gradients)
    assert steps_taken(make(), gradients) != steps_taken(make(**options), gradients)


def test_get():
    assert optimizers.get("adam") is optimizers.adam
    with pytest.raises(UsageError, match="unknown optimizer 'adm'; did you mean"):
        optimizers.get("adm")
