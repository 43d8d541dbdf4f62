import numpy as np
import pytest
import tensorflow as tf

from tfadv import attacks
from tfadv.attacks import core

EPS = 0.125

# [4 classes, 3 pixels]
W = np.array(
    [[2.0, -1.0, 3.0], [4.0, 2.0, 1.0], [-3.0, 1.0, -2.0], [-1.0, -3.0, -1.5]],
    np.float32,
)


def images(*rows):
    return tf.constant(rows, tf.float32)[:, None, :, None]


def rows(x):
    return np.array(x)[:, 0, :, 0]


def softmax_model(x):
    """Logits W x of images [n, 1, 3, 1]."""
    return tf.matmul(tf.reshape(x, [-1, 3]), W, transpose_b=True)


def probabilities(x):
    e = np.exp(rows(x) @ W.T)
    return e / e.sum(axis=1, keepdims=True)


def leave(x, labels):
    """sign(grad J(x, c)) = sign(W^T (p - onehot(c))), [n, 3]."""
    return np.sign((probabilities(x) - np.eye(4)[labels]) @ W)


def normal_signs(x, seed):
    return np.sign(tf.random.stateless_normal(x.shape, [seed, 0], alg="philox"))


def bowl(x):
    """Logits [0, q], q = 10 |x - 1/2|^2 - 1/2: grad q points away from 1/2."""
    q = 10 * tf.reduce_sum((x - 0.5) ** 2, axis=[1, 2, 3]) - 0.5
    return tf.stack([tf.zeros_like(q), q], axis=1)


# Away from the borders of [0, 1], w = (3, -4): w . x is 0.5 and -1.25, so class 1 is
# predicted for the first image and class 0 for the second. The step that raises
# w . x is d = (1, -1) as a sign, (3, -4) / 5 in l2 and (3, -4) / 4 in l-inf.
X = [(0.5, 0.25), (0.25, 0.5)]
SIGN, L2, LINF = np.array([1, -1]), np.array([0.6, -0.8]), np.array([0.75, -1])

every_direction = pytest.mark.parametrize(
    "name, step",
    [("step_fgsm", SIGN), ("fast_grad_l2", L2), ("fast_grad_linf", LINF)],
)


@pytest.mark.parametrize(
    "name, labels, steps",
    [
        # Leaving class 0 raises w . x, leaving class 1 lowers it.
        ("step_fgsm", [0, 0], [SIGN, SIGN]),
        ("step_fgsm", [1, 0], [-SIGN, SIGN]),
        # Leaving the predicted class, reaching the other: whatever the labels.
        ("fgsm_pred", [0, 0], [-SIGN, SIGN]),
        ("fgsm_pred", [1, 1], [-SIGN, SIGN]),
        ("step_ll", [0, 0], [-SIGN, SIGN]),
        ("step_ll", [1, 1], [-SIGN, SIGN]),
        # The entropy of two classes is largest at w . x = 0.
        ("fast_entropy", [0, 0], [-SIGN, SIGN]),
        ("fast_entropy", [1, 1], [-SIGN, SIGN]),
        ("fast_grad_l2", [0, 1], [L2, -L2]),
        ("fast_grad_linf", [0, 1], [LINF, -LINF]),
    ],
)
def test_two_classes(linear, name, labels, steps):
    predict, _ = linear
    x_adv = attacks.ATTACKS[name](eps=EPS)(predict, images(*X), tf.constant(labels))
    np.testing.assert_allclose(rows(x_adv), X + EPS * np.array(steps), rtol=1e-6)


@pytest.mark.parametrize(
    "name, expected",
    [
        # x + EPS * d, cut at 0 and 1, for x = (1, 0.0625).
        ("step_fgsm", (1, 0)),
        ("fast_grad_l2", (1, 0)),
        ("fast_grad_linf", (1, 0)),
    ],
)
def test_steps_are_clipped_to_the_range(linear, name, expected):
    predict, _ = linear
    attack = attacks.ATTACKS[name](eps=EPS)
    np.testing.assert_array_equal(
        rows(attack(predict, images((1, 0.0625)), [0])), [expected]
    )


def test_a_label_of_each_kind():
    """Four classes, chosen so that all of the labels lead to other directions."""
    x = images((0.5, 0.25, 0.5))
    p = probabilities(x)[0]
    # W x = (2.25, 3, -2.25, -2): the true class 0 is neither first nor last.
    true, predicted, least_likely = 0, 1, 2
    assert (p.argmax(), p.argmin()) == (predicted, least_likely)
    expected = {
        "step_fgsm": leave(x, [true]),
        "fgsm_pred": leave(x, [predicted]),
        "step_ll": -leave(x, [least_likely]),
    }
    assert len({tuple(d[0]) for d in expected.values()}) == 3
    for name, direction in expected.items():
        x_adv = attacks.ATTACKS[name](eps=EPS)(softmax_model, x, [true])
        np.testing.assert_allclose(rows(x_adv), rows(x) + EPS * direction, rtol=1e-6)


def test_step_rnd_moves_to_the_classes_drawn():
    x = images(*[(0.5, 0.25, 0.5)] * 8)
    drawn = tf.random.stateless_uniform(
        [8], [3, 0], 0, 4, tf.int32, alg="philox"
    ).numpy()
    assert set(drawn) == {0, 1, 2, 3}
    x_adv = attacks.ATTACKS["step_rnd"](eps=EPS)(softmax_model, x, [0] * 8, seed=3)
    np.testing.assert_allclose(rows(x_adv), rows(x) - EPS * leave(x, drawn), rtol=1e-6)


def test_fast_entropy_of_four_classes():
    """dH/dz_c = -p_c (log p_c + H), so grad H = W^T of that."""
    x = images((0.5, 0.25, 0.5), (0.25, 0.25, 0.75))
    p = probabilities(x)
    h = -(p * np.log(p)).sum(axis=1, keepdims=True)
    direction = np.sign((-p * (np.log(p) + h)) @ W)
    assert np.any(direction[0] != direction[1])
    x_adv = attacks.ATTACKS["fast_entropy"](eps=EPS)(softmax_model, x, [0, 0])
    np.testing.assert_allclose(rows(x_adv), rows(x) + EPS * direction, rtol=1e-6)


GRADIENT_NAMES = [
    "step_fgsm", "fgsm_pred", "step_ll", "step_rnd", "fast_entropy", "fast_grad_l2",
    "fast_grad_linf",
]  # fmt: skip


@pytest.mark.parametrize("name", GRADIENT_NAMES)
def test_a_gradient_of_zero_moves_nothing(name):
    x = images(*X)
    x_adv = attacks.ATTACKS[name](eps=EPS)(
        lambda x: 0.0 * tf.reshape(x, [-1, 2]), x, [0, 1], seed=0
    )
    np.testing.assert_array_equal(x_adv, x)


@pytest.mark.parametrize("name", ["step_fgsm", "fast_grad_l2", "fast_grad_linf"])
def test_certainty_moves_nothing(linear, name):
    # 1000 w . x = 500: exp(-500) is 0 in float32, and so is 1 - s.
    predict, _ = linear
    x = images((0.5, 0.25))
    x_adv = attacks.ATTACKS[name](eps=EPS)(lambda x: 1000 * predict(x), x, [1])
    np.testing.assert_array_equal(x_adv, x)


@pytest.mark.parametrize("name", GRADIENT_NAMES)
def test_a_pixel_without_gradient_stays(name):
    """sign(0) = 0: the model does not see the last pixel."""
    x = images((0.5, 0.25, 0.5))
    mask = tf.reshape([1.0, 1.0, 0.0], [1, 1, 3, 1])
    x_adv = attacks.ATTACKS[name](eps=EPS)(
        lambda x: softmax_model(x * mask), x, [0], seed=0
    )
    moved = rows(x_adv) != rows(x)
    np.testing.assert_array_equal(moved, [[True, True, False]])


@pytest.mark.parametrize("scale", [1e6, 1e-6, 1e-25])
@pytest.mark.parametrize("name, step", [("fast_grad_l2", L2), ("fast_grad_linf", LINF)])
def test_the_length_of_the_step_does_not_depend_on_that_of_the_gradient(
    linear, name, step, scale
):
    """grad J(x, 0) = s * scale * w has the direction of w, whatever the scale.

    A confident network has gradients whose squares are zero in float32.
    """
    predict, _ = linear
    x_adv = attacks.ATTACKS[name](eps=EPS)(
        lambda x: scale * predict(x), images((0.5, 0.25)), [0]
    )
    np.testing.assert_allclose(rows(x_adv), [(0.5, 0.25) + EPS * step], rtol=1e-5)


@every_direction
def test_every_example_has_an_eps_of_its_own(linear, name, step):
    predict, _ = linear
    eps = np.array([0.0, 0.0625, 0.125], np.float32)
    attack = attacks.ATTACKS[name](eps=tf.reshape(eps, [3, 1, 1, 1]))
    x_adv = attack(predict, images(*[X[0]] * 3), [0, 0, 0])
    np.testing.assert_allclose(rows(x_adv), X[0] + eps[:, None] * step, rtol=1e-6)


@every_direction
def test_a_sweep_takes_one_gradient(linear, name, step):
    calls = []

    def predict(x):
        calls.append(x)
        return linear[0](x)

    attack = attacks.ATTACKS[name](eps=EPS)
    sizes = [0.125, 0.0, 0.0625]
    swept = core.sweep(attack, predict, images(X[0]), [0], sizes)
    assert len(calls) == 1
    np.testing.assert_allclose(
        np.concatenate([rows(x_adv) for x_adv in swept]),
        X[0] + np.outer(sizes, step),
        rtol=1e-6,
    )


@pytest.mark.parametrize("alpha", [None, 0.03125])
def test_r_fgsm_is_a_random_step_and_a_gradient_step(linear, alpha):
    predict, _ = linear
    x = images(*X * 4)
    y = np.array([0, 1] * 4)
    # The sign of grad J is (1, -1) for label 0 and (-1, 1) for label 1 everywhere.
    gradient = np.array([SIGN, -SIGN] * 4)
    first = EPS / 2 if alpha is None else alpha
    expected = rows(x) + first * rows(normal_signs(x, 7)) + (EPS - first) * gradient
    attack = attacks.ATTACKS["r_fgsm"](eps=EPS, alpha=alpha)
    np.testing.assert_allclose(rows(attack(predict, x, y, seed=7)), expected, rtol=1e-6)


def test_r_step_ll_moves_to_the_least_likely_class():
    x = images((0.5, 0.25, 0.5), (0.25, 0.75, 0.25))
    start = x + EPS / 2 * normal_signs(x, 7)
    labels = probabilities(x).argmin(axis=1)
    x_adv = attacks.ATTACKS["r_step_ll"](eps=EPS)(softmax_model, x, [0, 0], seed=7)
    np.testing.assert_allclose(
        rows(x_adv), rows(start) - EPS / 2 * leave(start, labels), rtol=1e-6
    )


@pytest.mark.parametrize("name", ["r_fgsm", "r_step_ll"])
def test_r_steps_take_the_gradient_after_the_random_step(name):
    """At x = 1/2 the bowl is flat; after the random step the gradient of q is noise.

    Both attacks raise q then: r_fgsm leaves class 0, and r_step_ll reaches class 1,
    the least likely of the clean x, where q = -1/2. At x' = 1/2 + EPS/2 n of 16
    pixels q = 10 * 16 / 256 - 1/2 > 0: the least likely class there would be 0.
    """
    x = tf.fill([1, 4, 4, 1], 0.5)
    noise = normal_signs(x, 7)
    assert bowl(x + EPS / 2 * noise)[0, 1] > 0
    x_adv = attacks.ATTACKS[name](eps=EPS)(bowl, x, [0], seed=7)
    np.testing.assert_allclose(x_adv, 0.5 + EPS * noise, rtol=1e-6)


def test_r_fgsm_clips_the_sum_and_not_the_random_step(linear):
    """From x = (1, 0), label 1: a random step out of the range is half way back."""
    predict, _ = linear
    x = images(*[(1.0, 0.0)] * 16)
    noise = rows(normal_signs(x, 7))
    assert {tuple(n) for n in noise} == {(1, 1), (1, -1), (-1, 1), (-1, -1)}
    x_adv = attacks.ATTACKS["r_fgsm"](eps=EPS, alpha=EPS / 4)(predict, x, [1] * 16, 7)
    # 1 + EPS/4 n - 3/4 EPS and 0 + EPS/4 n + 3/4 EPS.
    expected = [1.0, 0.0] + EPS / 4 * noise + 0.75 * EPS * np.array([-1, 1])
    np.testing.assert_allclose(rows(x_adv), expected, rtol=1e-6)
    # A gradient step further out leaves the clean image.
    x_adv = attacks.ATTACKS["r_fgsm"](eps=EPS)(predict, x, [0] * 16, 7)
    np.testing.assert_array_equal(x_adv, x)


@pytest.mark.parametrize("alpha, other", [(0.0, "step_fgsm"), (EPS, "random_sign")])
def test_r_fgsm_at_the_ends_of_alpha(linear, alpha, other):
    predict, _ = linear
    call = (predict, images(*X), tf.constant([0, 1]), 7)
    np.testing.assert_array_equal(
        attacks.ATTACKS["r_fgsm"](eps=EPS, alpha=alpha)(*call),
        attacks.ATTACKS[other](eps=EPS)(*call),
    )


def test_r_fgsm_splits_the_eps_of_every_example(linear):
    predict, _ = linear
    x = images(*[X[0]] * 3)
    eps = np.array([0.0, 0.0625, 0.125], np.float32)
    attack = attacks.ATTACKS["r_fgsm"](eps=tf.reshape(eps, [3, 1, 1, 1]))
    expected = rows(x) + eps[:, None] / 2 * (rows(normal_signs(x, 7)) + SIGN)
    np.testing.assert_allclose(
        rows(attack(predict, x, [0, 0, 0], seed=7)), expected, rtol=1e-6
    )


def test_the_random_step_is_at_most_the_eps_of_an_example(linear):
    predict, _ = linear
    x = images(*[X[0]] * 3)
    eps, alpha = np.array([0.0, 0.0625, 0.125], np.float32), 0.09375
    attack = attacks.ATTACKS["r_fgsm"](eps=tf.reshape(eps, [3, 1, 1, 1]), alpha=alpha)
    first = np.minimum(eps, alpha)[:, None]
    noise = rows(normal_signs(x, 7))
    expected = rows(x) + first * noise + (eps[:, None] - first) * SIGN
    x_adv = attack(predict, x, [0, 0, 0], seed=7)
    np.testing.assert_allclose(rows(x_adv), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"direction": "l3"}, "`direction` must be 'sign' or 'l2' or 'linf'.*'l3'"),
        ({"loss": "entrpy"}, "`loss` must be .*'entrpy'; did you mean 'entropy'?"),
    ],
)
def test_another_direction_or_loss_is_refused(option, message):
    with pytest.raises(ValueError, match=message):
        attacks.SingleStep(eps=0.1, **option)


@pytest.mark.parametrize("alpha", [-0.01, 0.2])
def test_alpha_outside_zero_and_eps_is_refused(alpha):
    with pytest.raises(ValueError, match=rf"`alpha` .*\[0, eps = 0.1\].* {alpha}"):
        attacks.RandomStep(eps=0.1, alpha=alpha)


@pytest.mark.parametrize("name", ["step_rnd", "r_fgsm", "r_step_ll"])
def test_seeds_decide_the_random_numbers(name):
    x = images(*[(0.5, 0.25, 0.5)] * 8)

    def run(seed):
        return attacks.ATTACKS[name](eps=EPS)(softmax_model, x, [0] * 8, seed=seed)

    np.testing.assert_array_equal(run(1), run(1))
    np.testing.assert_array_equal(run(1), run((1, 0)))
    assert np.any(run(1) != run(2))
    with pytest.raises(ValueError, match="`seed`"):
        run(None)


@pytest.mark.parametrize("n", [1, 2, 5, 6])
def test_step_both_is_step_ll_and_then_step_fgsm(n):
    """On the images as they are in the batch; the middle one of an odd number leaves
    its class."""
    random = np.random.default_rng(0)
    x = images(*random.uniform(0.2, 0.8, (n, 3)))
    y = random.integers(0, 4, n)
    half = n // 2
    least_likely = probabilities(x).argmin(axis=1)
    direction = np.concatenate([-leave(x, least_likely)[:half], leave(x, y)[half:]])
    x_adv = attacks.ATTACKS["step_both"](eps=EPS)(softmax_model, x, y)
    np.testing.assert_allclose(rows(x_adv), rows(x) + EPS * direction, rtol=1e-6)
    for name, part in (("step_ll", slice(half)), ("step_fgsm", slice(half, n))):
        own = attacks.ATTACKS[name](eps=EPS)(softmax_model, x[part], y[part])
        np.testing.assert_array_equal(x_adv[part], own)
    # Each half is another attack than the other would be.
    swapped = np.concatenate([leave(x, y)[:half], -leave(x, least_likely)[half:]])
    assert n == 1 or np.any(direction[:half] != swapped[:half])
    assert np.any(direction[half:] != swapped[half:])


def test_step_both_in_a_graph_of_open_size_clips_and_has_an_eps_an_image(linear):
    """Two classes: the least likely of (1, 1/16), where w . x > 0, is class 0, so
    the first image goes along (-1, 1); leaving class 0 goes along (1, -1)."""
    predict, _ = linear
    x = images(*[(1.0, 0.0625)] * 4)
    eps = tf.reshape([0.0625, 0.125, 0.0625, 0.125], [4, 1, 1, 1])

    @tf.function(input_signature=[tf.TensorSpec([None, 1, 2, 1])])
    def craft(x):
        attack = attacks.ATTACKS["step_both"](eps=eps)
        return attack(predict, x, tf.zeros(tf.shape(x)[0], tf.int32))

    np.testing.assert_allclose(
        rows(craft(x)), [(0.9375, 0.125), (0.875, 0.1875), (1, 0), (1, 0)], rtol=1e-6
    )
