"""Which images of a batch become adversarial, at which eps, and which are stored."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.defenses import softmax_regression
from tests.defenses.softmax_regression import (
    W,
    X,
    Y,
    craft,
    flat,
    step,
    weights,
)
from tfadv import attacks
from tfadv.attacks import eps_laws
from tfadv.defenses import Kurakin, MixedBatch, UnifiedEmbedding
from tfadv.training import train

EPS = 0.2
STORED = 1 - X[:2]
BOTH = pytest.mark.parametrize("factory", [Kurakin, UnifiedEmbedding])


def make(factory=Kurakin, **options):
    options = {"attack": attacks.StepLL(eps=EPS)} | options
    defense = softmax_regression.make(factory, **options)
    defense.build((None, 2, 2, 1))
    return defense


class Recorder(keras.layers.Layer):
    """Passes images on, and keeps those of training passes."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def call(self, x, training=None):
        if training and tf.executing_eagerly():
            self.seen.append(x.numpy())
        return x


# Sizes.


@BOTH
@pytest.mark.parametrize("law", ["truncated", "clipped", "uniform"])
def test_every_adversarial_image_has_an_eps_of_its_own_in_every_step(factory, law):
    recorder = Recorder()
    defense = make(factory, eps_law=law, k=4, seed=7, layers=[recorder])
    drawn = []
    for n in range(2):
        eps = eps_laws.draw(law, EPS, 4, defense.step_seed(1)).numpy()
        np.testing.assert_array_equal(defense.draw_eps(4), eps)
        x_adv = craft("step_ll", weights(defense), flat(X[:4]), Y[:4], eps[:, :, 0, 0])
        step(defense)
        np.testing.assert_allclose(flat(recorder.seen[n][:4]), x_adv, atol=1e-6)
        drawn.append(eps.ravel())
    assert len(np.unique(drawn)) == 8
    assert np.max(drawn) <= EPS


def test_sizes_depend_on_run_seed_step_and_replica_and_nothing_else():
    def sizes(seed, at, replica):
        defense = make(seed=seed, eps_law="uniform")
        defense.optimizer.iterations.assign(at)
        return tuple(defense.draw_eps(4, replica=replica).numpy().ravel())

    first = sizes(1, 0, 0)
    assert first == sizes(1, 0, 0) == sizes(1, 0, None)
    assert len({first, sizes(2, 0, 0), sizes(1, 1, 0), sizes(1, 0, 1)}) == 4


# Stored images.


@pytest.mark.parametrize(
    ("stored", "batch_size", "replicas", "positions"),
    [
        (0, 6, 1, []),
        (2, 6, 1, [2, 3]),
        (4, 6, 1, [0, 1, 2, 3]),
        # Three images a replica, of which the first two become adversarial.
        (2, 6, 2, [1, 4]),
        (4, 6, 2, [0, 1, 3, 4]),
    ],
)
def test_stored_positions_by_hand(stored, batch_size, replicas, positions):
    defense = make(k=4, stored=stored)
    assert defense.stored_positions(batch_size, replicas) == positions


@pytest.mark.parametrize(
    ("factory", "positions"), [(Kurakin, [1, 2]), (UnifiedEmbedding, [4, 5])]
)
def test_stored_positions_of_the_default_k(factory, positions):
    """Half of six, or all of them."""
    assert make(factory, stored=2).stored_positions(6) == positions


@BOTH
@pytest.mark.parametrize("stored", [1, 2, 4])
def test_stored_images_are_trained_on_as_they_are(factory, stored):
    """k = 4: those at `stored_positions` are as given, the ones before are crafted."""
    given = 1 - X[:stored]
    recorder = Recorder()
    options = {"eps_law": "constant", "layers": [recorder]}
    defense = make(factory, k=4, stored=stored, **options)
    step(defense, (X, given))
    (seen,) = recorder.seen
    np.testing.assert_array_equal(seen[defense.stored_positions(6)], given)
    own = slice(0, 4 - stored)
    x_adv = craft("step_ll", W, flat(X[own]), Y[own], EPS)
    np.testing.assert_allclose(flat(seen[own]), x_adv, atol=1e-6)
    np.testing.assert_array_equal(seen[4:], X[4:] if factory is Kurakin else X)


@BOTH
def test_a_delay_with_stored_images_compiles(factory):
    """Where the size of a batch is known, the sizes of its parts are not."""
    defense = make(factory, k=4, stored=2, delay=1)
    step = tf.function(defense.train_step)
    batch = (tf.constant(X), tf.constant(STORED)), tf.constant(Y)
    logs = [step(batch) for _ in range(2)][-1]
    assert all(np.isfinite(value) for value in logs.values())


@BOTH
def test_stored_images_wait_for_the_end_of_the_delay(factory):
    recorder = Recorder()
    defense = make(factory, k=4, stored=2, delay=1, layers=[recorder])
    for _ in range(2):
        step(defense, (X, STORED))
    delayed, mixed = recorder.seen
    np.testing.assert_array_equal(delayed[:4], X[:4])
    np.testing.assert_array_equal(mixed[2:4], STORED)


@BOTH
def test_the_loop_takes_batches_with_stored_images(factory):
    """Compiled, as the same steps by hand."""
    options = {"eps_law": "constant", "k": 4, "stored": 2}
    looped, stepped = make(factory, **options), make(factory, **options)
    data = tf.data.Dataset.from_tensors(((X, STORED), Y)).repeat()
    train(looped, data.skip, steps=3, steps_per_epoch=3)
    for _ in range(3):
        step(stepped, (X, STORED))
    assert not np.allclose(weights(looped), W, atol=1e-3)
    np.testing.assert_allclose(weights(looped), weights(stepped), atol=1e-6)


@BOTH
def test_replicas_share_the_stored_images(factory, mirrored):
    """Three images, two adversarial, one of those stored: [0 2 4] and [1 3 5] with the
    stored ones of 2 and 3 are one device's [0 1 | 2 3 | 4 5]."""
    options = {"eps_law": "constant", "k": 4, "stored": 2}
    one = make(factory, **options)
    with mirrored.scope():
        two = make(factory, **options)
    order = [0, 2, 4, 1, 3, 5]
    assert [order[i] for i in two.stored_positions(6, replicas=2)] == [2, 3]
    assert one.stored_positions(6) == [2, 3]
    for defense, images, labels in ((one, X, Y), (two, X[order], Y[order])):
        data = tf.data.Dataset.from_tensors(((images, STORED), labels)).repeat()
        train(defense, data.skip, steps=2, steps_per_epoch=2)
    np.testing.assert_allclose(weights(two), weights(one), atol=1e-6)


def test_stored_images_that_are_missing_or_of_another_number():
    defense = make(k=4, stored=2)
    with pytest.raises(ValueError, match=r"`stored` = 2 needs batches .* received \(x"):
        step(defense)
    with pytest.raises(ValueError, match=r"expected 2 stored images .* received 1"):
        step(defense, (X, STORED[:1]))
    with pytest.raises(ValueError, match=r"expected 0 stored images .* received 2"):
        step(make(k=4), (X, STORED))


# What fits.


@pytest.mark.parametrize(
    ("factory", "k", "batch_size", "replicas", "each"),
    [
        (Kurakin, None, 128, 1, 64),
        (Kurakin, None, 128, 2, 32),
        (UnifiedEmbedding, None, 64, 1, 64),
        (UnifiedEmbedding, None, 64, 2, 32),
        (Kurakin, 6, 8, 2, 3),
        (UnifiedEmbedding, 6, 8, 2, 3),
        (Kurakin, 8, 8, 2, 4),
    ],
)
def test_check_batch_gives_the_share_of_a_replica(
    factory, k, batch_size, replicas, each
):
    assert make(factory, k=k).check_batch(batch_size, replicas) == each


@pytest.mark.parametrize(
    ("options", "batch_size", "replicas", "message"),
    [
        ({"k": 9}, 8, 1, "`k` must be at most the batch size 8; received 9"),
        ({"k": 3}, 8, 2, "`k` must be a multiple of the 2 replicas; received 3"),
        ({}, 6, 2, "`k` must be a multiple of the 2 replicas; received 3"),
        ({"k": 2}, 7, 2, "batch size must be a multiple of the 2 replicas; received 7"),
        ({"stored": 5}, 8, 1, "`stored` must be at most the 4 .* received 5"),
        (
            {"k": 4, "stored": 3},
            8,
            2,
            "`stored` must be a multiple of the 2 replicas; received 3",
        ),
    ],
)
def test_check_batch_rejects_what_does_not_fit(options, batch_size, replicas, message):
    with pytest.raises(ValueError, match=message):
        make(**options).check_batch(batch_size, replicas)


@BOTH
def test_k_beyond_the_batch_is_an_error_of_the_step(factory):
    with pytest.raises(ValueError, match="at most the batch size 6; received 7"):
        step(make(factory, k=7))


@BOTH
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "`k` must be at least 1; received 0"),
        ({"k": -1}, "`k` must be at least 1; received -1"),
        ({"adversarial_weight": -0.1}, "`adversarial_weight` .* received -0.1"),
        ({"delay": -1}, "`delay` must not be negative; received -1"),
        ({"stored": -1}, "`stored` must not be negative; received -1"),
        ({"k": 2, "stored": 3}, "`stored` must be at most `k`, 2; received 3"),
        ({"eps_law": "truncate"}, "'truncate'"),
    ],
)
def test_rejected_options(factory, options, message):
    with pytest.raises(ValueError, match=message):
        make(factory, **options)


def test_k_has_no_default_of_its_own():
    with pytest.raises(NotImplementedError):
        make(MixedBatch).check_batch(6)
