"""The attacks that look for the closest adversarial image: FAB, C&W and DeepFool."""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf

from tfadv import attacks, losses

SHAPE = (2, 3, 2)
N, CLASSES = 8, 5
RNG = np.random.default_rng(4)
WEIGHTS = RNG.normal(size=[12, CLASSES])
# Grey images, so that nothing is clipped on the way to a near boundary.
X = RNG.uniform(0.4, 0.6, [N, 12])
OFFSET = -X.mean(axis=0) @ WEIGHTS
LOGITS = X @ WEIGHTS + OFFSET
Y = LOGITS.argmax(axis=1)

# Fields and by how much more than the closest image they may need, as a share.
FAB = {"steps": 10, "targets": 4}
CLOSEST = {
    "fab_t": ("linf", FAB, 2e-3),
    "fab_t in l2": ("l2", {**FAB, "norm": "l2"}, 2e-3),
    # The overshoot is 2 %.
    "deepfool": ("l2", {}, 0.021),
    "cw_l2": (
        "l2",
        {"steps": 300, "search_steps": 6, "initial_c": 0.1, "learning_rate": 3e-3},
        0.02,
    ),
}
every = pytest.mark.parametrize("name", CLOSEST)


def predict(x):
    flat = tf.reshape(x, [-1, 12])
    return flat @ tf.constant(WEIGHTS, tf.float32) + tf.constant(OFFSET, tf.float32)


def images(x=X):
    return tf.constant(np.reshape(x, [-1, *SHAPE]), tf.float32)


@functools.cache
def compiled(name, **fields):
    """(x, y, eps) -> x_adv, traced once for all tests."""
    attack = attacks.get(name.split()[0])(eps=1.0, **CLOSEST[name][1] | fields)

    def call(x, y, eps):
        return dataclasses.replace(attack, eps=eps)(predict, x, y, seed=0)

    return tf.function(call)


def run(name, eps, y=Y, **fields):
    eps = tf.broadcast_to(tf.cast(eps, tf.float32), [N, 1, 1, 1])
    return compiled(name, **fields)(images(), tf.constant(y), eps)


def size(moved, norm):
    return np.linalg.norm(
        np.reshape(moved, [len(moved), -1]), axis=1, ord={"linf": np.inf, "l2": 2}[norm]
    )


def distances(norm, reached=None):
    """Of each image to its nearest boundary: |f_k| / |w_k|_q, q = 1 or 2.

    Or to that of the class it `reached`.
    """
    lead = LOGITS[np.arange(N), Y][:, None] - LOGITS
    normals = WEIGHTS[:, None, :] - WEIGHTS[:, Y, None]
    lengths = np.linalg.norm(normals, axis=0, ord={"linf": 1, "l2": 2}[norm])
    with np.errstate(invalid="ignore"):
        far = lead / lengths
    return np.nanmin(far, axis=1) if reached is None else far[np.arange(N), reached]


@every
def test_the_closest_image_of_a_linear_model(name):
    """C&W, which descends to the leading class, may miss a nearer boundary."""
    norm, _, tolerance = CLOSEST[name]
    x_adv = run(name, 1.0)
    reached = np.argmax(predict(x_adv), axis=1)
    assert np.all(reached != Y)
    expected = distances(norm, reached if name == "cw_l2" else None)
    assert np.all((X - expected[:, None] > 0) & (X + expected[:, None] < 1))
    found = size(x_adv - images(), norm)
    assert np.all(found >= expected * (1 - 1e-5))
    np.testing.assert_allclose(found, expected, rtol=tolerance)


@every
def test_an_image_beyond_eps_was_not_found(name):
    """Each example of its own eps, in the middle between the closest two."""
    norm, _, _ = CLOSEST[name]
    expected = np.sort(distances(norm))
    eps = (expected[3] + expected[4]) / 2
    assert expected[4] / expected[3] > 1.1
    x_adv = run(name, float(eps))
    moved = size(x_adv - images(), norm)
    near = distances(norm) < eps
    np.testing.assert_array_equal(moved > 0, near)
    assert moved.max() <= eps
    own = tf.reshape(tf.where(near, 0.0, 1.0), [N, 1, 1, 1])
    np.testing.assert_array_equal(size(run(name, own) - images(), norm) > 0, ~near)


@every
def test_a_misclassified_image_is_its_own_closest(name):
    y = np.where(np.arange(N) % 2, Y, (Y + 1) % CLASSES)
    moved = size(run(name, 1.0, y=y) - images(), "l2")
    np.testing.assert_array_equal(moved > 0, np.arange(N) % 2 == 1)


@every
def test_one_search_serves_all_sizes(name):
    norm, fields, _ = CLOSEST[name]
    attack = attacks.get(name.split()[0])(eps=1.0, **fields)
    sizes = [1.0, 0.0, float(np.median(distances(norm)))]
    swept = tf.function(lambda x: attack.sweep(predict, x, tf.constant(Y), sizes))
    for x_adv, eps in zip(swept(images()), sizes, strict=True):
        np.testing.assert_allclose(x_adv, run(name, eps), atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_fab_goes_round_the_edge_of_the_range(linear, norm):
    """Class 0 is left by raising pixel 0, which is white, and lowering pixel 1.

    w = (3, -4), w . x = 3 - 4 * .85 = -.4, so pixel 1 alone must fall by .1.
    """
    x = tf.reshape(tf.constant([1.0, 0.85]), [1, 1, 2, 1])
    attack = attacks.FABTargeted(eps=0.2, norm=norm, steps=20)
    moved = np.ravel(attack(linear[0], x, [0]) - x)
    assert moved[0] == pytest.approx(0, abs=1e-6)
    assert -0.1005 < moved[1] < -0.1


def test_restarts_of_fab_never_lose_an_image():
    once, more = (
        size(run("fab_t", 1.0, restarts=r, steps=3) - images(), "linf") for r in (1, 3)
    )
    assert np.all(more <= once + 1e-6) and np.all(more > 0)


def test_carlini_wagner_asks_for_a_margin(linear):
    """kappa = 1 is a distance of |w . x - 1| / 5 from w . x = -.5."""
    x = tf.reshape(tf.constant([0.5, 0.5]), [1, 1, 2, 1])
    attack = attacks.CarliniWagner(
        eps=1.0, kappa=1.0, steps=200, search_steps=6, learning_rate=3e-3, initial_c=0.1
    )
    x_adv = tf.function(lambda x: attack(linear[0], x, [0]))(x)
    assert losses.margin([0], linear[0](x_adv))[0] >= 1
    assert size(x_adv - x, "l2")[0] == pytest.approx(1.5 / 5, rel=0.03)


def test_deepfool_takes_one_step_on_a_linear_model(linear):
    """x + 1.02 * .5 / 25 * w."""
    x = np.array([0.5, 0.5])
    attack = attacks.DeepFool(eps=1.0, steps=1)
    x_adv = attack(linear[0], tf.constant(x.reshape(1, 1, 2, 1), tf.float32), [0])
    np.testing.assert_allclose(
        np.ravel(x_adv), x + 1.02 * 0.5 / 25 * np.array([3, -4]), rtol=1e-6
    )


@pytest.mark.parametrize(
    "factory, fields, message",
    [
        (attacks.FABTargeted, {"steps": 0}, "`steps` must be at least 1"),
        (attacks.FABTargeted, {"targets": 0}, "`targets` must be at least 1"),
        (attacks.FABTargeted, {"eta": 0.5}, r"`eta` must be in \[1, inf\]"),
        (attacks.FABTargeted, {"alpha_max": 2}, r"`alpha_max` must be in \[0, 1\]"),
        (attacks.DeepFool, {"classes": 1}, "`classes` must be at least 2; received 1"),
        (attacks.DeepFool, {"overshoot": -1}, "`overshoot` must not be negative"),
        (attacks.CarliniWagner, {"kappa": -1}, "`kappa` must not be negative"),
        (attacks.CarliniWagner, {"initial_c": 0}, "`initial_c` must be positive"),
        (attacks.CarliniWagner, {"search_steps": 0}, "`search_steps` must be at"),
    ],
)
def test_fields_out_of_range_are_refused(factory, fields, message):
    with pytest.raises(ValueError, match=message):
        factory(eps=0.1, **fields)
