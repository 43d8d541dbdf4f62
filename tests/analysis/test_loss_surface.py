import numpy as np
import pytest
import tensorflow as tf

from tests.analysis.test_directions import random_model
from tfadv import attacks
from tfadv.analysis import loss_surface
from tfadv.attacks import core

RNG = np.random.default_rng(0)
X = RNG.uniform(0.3, 0.7, (5, 2, 3, 1)).astype(np.float32)
Y = RNG.integers(0, 4, 5).astype(np.int32)
FGSM = attacks.StepFGSM(eps=0.2)


def cross_entropy(predict, x, y):
    logits = np.asarray(predict(tf.constant(x, tf.float32)), np.float64)
    logits -= logits.max(1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return -log_p[np.arange(len(y)), y]


def test_coordinates_by_hand():
    """Along (1, 1) the vector (3, 1) goes twice, along (1, -1) once, along 0 never."""
    d = np.array([[3, 1], [3, 1], [3, 1]]).reshape(3, 1, 2, 1)
    g = np.array([[1, 1], [1, -1], [0, 0]]).reshape(3, 1, 2, 1)
    assert loss_surface.coordinate(d, g).tolist() == [2, 1, 0]


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_the_plane(batch_size):
    """Its first axis is the attack's sign, its second a random sign made orthogonal."""
    predict = random_model(6, 4)
    g1, g2 = loss_surface.plane(predict, X, Y, FGSM, seed=3, batch_size=batch_size)
    x_adv = FGSM(predict, tf.constant(X), tf.constant(Y)).numpy()
    np.testing.assert_allclose(x_adv, X + 0.2 * g1, atol=1e-6)
    r = np.sign(core.uniform(X, 3))
    assert set(r.ravel()) == {-1, 1}
    for a, b, noise in zip(g1, g2, r, strict=True):
        # Six signs of length sqrt 6: what is left is orthogonal and r again with g1.
        share = (noise * a).sum() / 6
        np.testing.assert_allclose(b, noise - share * a, atol=1e-6)
        assert (a * b).sum() == pytest.approx(0, abs=1e-5)


def test_rounding_and_vanished_gradients_are_no_direction():
    """The first image moves by 1e-7 where it moves, the second not at all."""
    moves = np.zeros_like(X[:3])
    moves[0, 0, 0], moves[2, 1, 1] = 1e-7, -0.2

    def attack(predict, x, y):
        return x + moves

    g1, g2 = loss_surface.plane(None, X[:3], Y[:3], attack, seed=0, batch_size=3)
    np.testing.assert_array_equal(g1[:2], 0)
    assert g1[2].ravel().tolist() == [0, 0, 0, 0, -1, 0]
    np.testing.assert_array_equal(np.abs(g2[:2]), 1)


def test_the_second_axis_starts_from_the_same_noise_for_every_model():
    def noise(model):
        predict = random_model(6, 4, model)
        g1, g2 = loss_surface.plane(predict, X, Y, FGSM, seed=0, batch_size=5)
        return (
            g2
            + loss_surface.coordinate(np.sign(core.uniform(X, 0)), g1).reshape(
                [-1, 1, 1, 1]
            )
            * g1
        )

    np.testing.assert_allclose(noise(1), noise(2), atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 3, 5, 64])
def test_the_surface(batch_size):
    """At every pair of lengths the losses of all images, summed, nothing clipped."""
    predict = random_model(6, 4)
    g1, g2 = RNG.choice([-1, 1], (2, 5, 2, 3, 1)).astype(np.float32)
    grid = np.array([0.0, 0.5, 1.5])
    found = loss_surface.surface(predict, X, Y, g1, g2, grid, batch_size=batch_size)
    expected = [
        [cross_entropy(predict, X + t1 * g1 + t2 * g2, Y).sum() for t2 in grid]
        for t1 in grid
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    # The axes are not one another.
    assert abs(found - found.T).max() > 0.1


def test_the_path():
    """FGSM ends at (0.2, 0), as nothing is clipped; the next step leaves the plane."""
    predict = random_model(6, 4)
    g1, g2 = loss_surface.plane(predict, X, Y, FGSM, seed=0, batch_size=2)
    entropy = attacks.SingleStep(eps=0.1, loss="entropy")
    clean, first, second = loss_surface.path(
        predict, X, Y, g1, g2, (FGSM, entropy), batch_size=5
    )
    losses = [cross_entropy(predict, z, Y).sum() for z in (X, X + 0.2 * g1)]
    assert clean == pytest.approx({"t1": 0, "t2": 0, "loss": losses[0]}, abs=1e-5)
    assert first == pytest.approx({"t1": 0.2, "t2": 0, "loss": losses[1]}, abs=1e-5)
    moved = entropy(predict, tf.constant(X + 0.2 * g1), None).numpy() - X
    expected = {
        "t1": np.mean([(d * g).sum() / 6 for d, g in zip(moved, g1, strict=True)]),
        "t2": np.mean(
            [(d * g).sum() / (g**2).sum() for d, g in zip(moved, g2, strict=True)]
        ),
        "loss": cross_entropy(predict, X + moved, Y).sum(),
    }
    assert second == pytest.approx(expected, abs=1e-5)
    assert abs(second["t2"]) > 1e-3


def test_the_path_does_not_hang_on_the_batches():
    predict = random_model(6, 4)
    g1, g2 = loss_surface.plane(predict, X, Y, FGSM, seed=0, batch_size=2)
    ways = [
        loss_surface.path(predict, X, Y, g1, g2, (FGSM, FGSM), batch_size=n)
        for n in (1, 5)
    ]
    for a, b in zip(*ways, strict=True):
        assert a == pytest.approx(b, abs=1e-5)
