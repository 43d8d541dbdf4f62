"""What every attack promises, whatever it computes."""

import dataclasses
import tempfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfadv import attacks, losses
from tfadv.attacks import core

# A new attack earns this whole file by one row; its key is the name of the attack, and
# words behind it tell variants of one attack apart.
#   fields  constructor arguments besides eps;
#   norm    of the ball its images stay in, "linf" or "l2";
#   raises  which loss of its starting point it raises: the cross-entropy of the true or
#           the predicted label, the probability of the least likely or a random one,
#           the entropy, "both" (least likely, then true), or how different from the
#           clean one the prediction is; None for noise; "unknown" where another
#           network decides; "margin" of the true label, by how much others lead;
#   tolerance  between compiled and eager, where rounding decides;
#   stays   whether an image that is misclassified, or that nothing is found for, is
#           left where it is.
FOLDER = tempfile.TemporaryDirectory()
ROWS = {
    "step_fgsm": {"raises": "true"},
    "fgsm_pred": {"raises": "predicted"},
    "step_ll": {"raises": "least_likely"},
    "step_both": {"raises": "both"},
    "step_rnd": {"raises": "random"},
    "fast_entropy": {"raises": "entropy"},
    "fast_grad_l2": {"raises": "true", "norm": "l2"},
    "fast_grad_linf": {"raises": "true"},
    "random_sign": {"raises": None},
    "random_normal": {"raises": None},
    "r_fgsm": {"raises": "true"},
    "r_step_ll": {"raises": "least_likely"},
    "virtual": {"raises": "difference"},
    "generator": {
        "raises": "unknown",
        "fields": {"generator": FOLDER.name + "/g.keras"},
    },
    "iter_fgsm": {"raises": "true"},
    "iter_ll": {"raises": "least_likely"},
    "ifgsm": {"raises": "true"},
    "pgd": {"raises": "true"},
    "pgd with restarts": {"raises": "true", "fields": {"restarts": 2}},
    "pgd in l2": {"raises": "true", "norm": "l2", "fields": {"norm": "l2"}},
    "mi_fgsm": {"raises": "true"},
    "apgd": {"raises": "true", "fields": {"steps": 3}},
    "apgd in l2": {
        "raises": "true",
        "norm": "l2",
        "fields": {"steps": 3, "norm": "l2", "restarts": 2},
        # Near the summit of a sphere images have one loss to the last digit, but are
        # themselves as far apart: which is kept, rounding decides.
        "tolerance": 3e-3,
    },
    "apgd_t": {"raises": "margin", "fields": {"steps": 3, "targets": 2}},
    "fab_t": {"raises": "margin", "stays": True, "fields": {"steps": 3, "targets": 3}},
    "fab_t in l2": {
        "raises": "margin",
        "norm": "l2",
        "stays": True,
        "fields": {"steps": 3, "norm": "l2", "restarts": 2, "targets": 2},
    },
    "square": {"raises": "margin", "fields": {"queries": 15}},
    "square in l2": {
        "raises": "margin",
        "norm": "l2",
        "fields": {"queries": 15, "norm": "l2"},
    },
    "autoattack": {
        "raises": "margin",
        "stays": True,
        "fields": {"steps": 3, "queries": 10, "targets": 2},
    },
    "cw_l2": {
        "raises": "margin",
        "norm": "l2",
        "stays": True,
        "fields": {
            "steps": 40,
            "search_steps": 2,
            "initial_c": 5.0,
            "learning_rate": 0.1,
        },
    },
    "deepfool": {
        "raises": "margin",
        "norm": "l2",
        "stays": True,
        "fields": {"steps": 20},
    },
}
EPS = 8 / 255
SEED = (3, 1)
SHAPE = (4, 4, 2)
N, CLASSES = 6, 5

RAISING = [name for name in ROWS if ROWS[name]["raises"] not in (None, "unknown")]


def save_generator(path):
    """tanh(4 x - 1.8), for images of any size."""
    image = keras.Input((None, None, None), name="image")
    x = keras.layers.Rescaling(4.0, -1.8)(image)
    keras.Model(image, keras.layers.Activation("tanh")(x)).save(path)


save_generator(ROWS["generator"]["fields"]["generator"])

every_attack = pytest.mark.parametrize("name", ROWS)

# What takes longest: searches, whose parts are rows of their own or tested apart.
DEAR = ("autoattack", "fab_t", "fab_t in l2", "square in l2", "cw_l2", "deepfool")
but_the_dear = pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if n in DEAR else []) for n in ROWS],
)


def factory(name):
    return attacks.get(name.split()[0])


def make(name, eps=EPS):
    return factory(name)(eps=eps, **ROWS[name].get("fields", {}))


def large_allowed(name):
    """Whether eps may exceed 1: in l2, but for the single step measured in l2."""
    return ROWS[name].get("norm") == "l2" and name != "fast_grad_l2"


def linear(shape=SHAPE):
    """x -> logits of a linear model with CLASSES classes."""
    weights = np.random.default_rng(1).normal(size=[np.prod(shape), CLASSES])
    weights = tf.constant(weights, tf.float32)
    return lambda x: tf.reshape(x, [-1, weights.shape[0]]) @ weights


def network():
    """A Keras model with batch normalisation, its statistics away from (0, 1)."""
    model = keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Conv2D(4, 3, padding="same"),
            keras.layers.BatchNormalization(),
            keras.layers.Activation("softplus"),
            keras.layers.Flatten(),
            keras.layers.Dense(CLASSES),
        ]
    )
    model(batch()[0], training=True)
    return model


PREDICTS = {
    "linear": linear,
    "network": lambda: (lambda model: lambda x: model(x, training=False))(network()),
}


def batch(n=N, shape=SHAPE):
    """Images and labels; a fifth of the pixels are black and a fifth are white."""
    rng = np.random.default_rng(2)
    x = np.clip(rng.uniform(-1 / 3, 4 / 3, [n, *shape]), 0, 1)
    return tf.constant(x, tf.float32), tf.constant(np.arange(n) % CLASSES, tf.int32)


def sizes(x_adv, x, norm="linf"):
    """|x_adv - x| of every example."""
    difference = np.reshape(np.subtract(x_adv, x), [x.shape[0], -1])
    return np.linalg.norm(difference, axis=1, ord={"l2": 2, "linf": np.inf}[norm])


def stays(name, x_adv, x):
    """Which examples an attack of this row may leave, and leaves, where they are."""
    return (sizes(x_adv, x) == 0) & ROWS[name].get("stays", False)


def same(actual, expected, atol=1e-6):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)


def test_there_is_a_row_for_every_attack():
    assert {name.split()[0] for name in ROWS} == set(attacks.ATTACKS)


def test_every_attack_is_of_one_kind():
    kinds = [*attacks.NOISE, *attacks.ITERATIVE, *attacks.ONE_STEP]
    assert sorted(kinds) == sorted(attacks.ATTACKS)
    assert set(attacks.NOISE) == {n for n in ROWS if ROWS[n]["raises"] is None}


def test_an_unknown_name_gives_the_nearest():
    with pytest.raises(ValueError, match=r"attack 'stepll'; did you mean 'step_ll'"):
        attacks.get("stepll")


@every_attack
@pytest.mark.parametrize("eps", [1 / 255, 16 / 255, 64 / 255])
def test_images_stay_in_the_ball_and_in_the_range(name, eps):
    x, y = batch()
    x_adv = make(name, eps)(linear(), x, y, seed=SEED)
    assert np.min(x_adv) >= 0 and np.max(x_adv) <= 1
    moved = sizes(x_adv, x, ROWS[name].get("norm", "linf"))
    assert np.all(moved <= eps + 1e-6)
    # It is an attack: no example is left where it was, but for a reason.
    assert np.all((moved > eps / 10) | stays(name, x_adv, x))


@every_attack
@pytest.mark.parametrize("n, shape", [(1, (1, 1, 1)), (2, (5, 3, 1)), (3, (2, 2, 3))])
def test_shape_and_dtype_are_kept(name, n, shape):
    x, y = batch(n, shape)
    x_adv = make(name)(linear(shape), x, y, seed=SEED)
    assert x_adv.shape == x.shape
    assert x_adv.dtype == tf.float32


@every_attack
@pytest.mark.parametrize("eps", [0, 0.0, tf.zeros([N, 1, 1, 1])], ids=str)
def test_an_eps_of_zero_is_the_identity(name, eps):
    x, y = batch()
    np.testing.assert_array_equal(make(name, eps)(linear(), x, y, seed=SEED), x)


@every_attack
@pytest.mark.parametrize("eps, hint", [(16, r"Write '16/255'\?"), (-0.1, "-0.1")])
def test_an_eps_outside_the_unit_interval_is_refused(name, eps, hint):
    """In l2, where a norm may exceed 1, only a negative one."""
    if not large_allowed(name):
        with pytest.raises(ValueError, match=rf"`eps` must be in \[0, 1\].*{hint}"):
            make(name, eps)
    elif eps < 0:
        with pytest.raises(ValueError, match=rf"`eps` must be .* at least 0.*{hint}"):
            make(name, eps)
    else:
        assert make(name, eps).eps == eps


@every_attack
def test_no_gradient_flows_through_the_images(name):
    x, y = batch()
    kernel = tf.Variable(tf.random.stateless_normal([32, CLASSES], [0, 0]))
    attack = make(name)
    with tf.GradientTape() as tape:
        tape.watch(x)
        x_adv = attack(lambda x: tf.reshape(x, [-1, 32]) @ kernel, x, y, seed=SEED)
        total = tf.reduce_sum(x_adv**2)
    assert tape.gradient(total, [x, kernel]) == [None, None]


@every_attack
def test_no_variable_changes(name):
    model = network()
    before = [v.numpy() for v in model.variables]
    x, y = batch()
    x_adv = make(name)(lambda x: model(x, training=False), x, y, seed=SEED)
    assert np.all(np.isfinite(x_adv))
    assert len(before) == 8  # kernel, bias; scale, offset, mean, variance; kernel, bias
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


@but_the_dear
def test_compiled_equals_eager(name):
    """With a known batch size; sweeps are compiled without."""
    predict = linear()
    x, y = batch()
    attack = make(name)
    compiled = tf.function(lambda x, y, seed: attack(predict, x, y, seed))
    actual = compiled(x, y, tf.constant(SEED))
    assert actual.shape == x.shape
    same(actual, attack(predict, x, y, SEED), ROWS[name].get("tolerance", 1e-6))


@every_attack
def test_compiled_equals_eager_with_an_eps_of_each_example(name):
    """And with a batch size that is not known, of a network."""
    predict = PREDICTS["network"]()
    x, y = batch()
    eps = tf.constant([1.0, 2, 3, 4, 8, 16])[:, None, None, None] / 255

    def run(x, y, eps, seed):
        return make(name, eps)(predict, x, y, seed)

    compiled = tf.function(
        run,
        input_signature=[
            tf.TensorSpec([None, *SHAPE]),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([None, 1, 1, 1]),
            tf.TensorSpec([2], tf.int32),
        ],
    )
    arguments = x, y, eps, tf.constant(SEED)
    actual, expected = compiled(*arguments), run(*arguments)
    assert actual.shape == x.shape
    same(actual, expected, ROWS[name].get("tolerance", 1e-6))


@every_attack
def test_a_constant_tensor_of_eps_equals_the_number(name):
    x, y = batch()
    attack = make(name)
    own = dataclasses.replace(attack, eps=tf.fill([N, 1, 1, 1], EPS))
    same(own(linear(), x, y, seed=SEED), attack(linear(), x, y, seed=SEED))


@every_attack
def test_every_example_gets_its_own_eps(name):
    """Row i is what the attack with the number eps_i makes of it."""
    x, y = batch()
    eps = [pixels / 255 for pixels in (0, 1, 2.5, 4, 8, 16)]
    own = make(name, tf.constant(eps)[:, None, None, None])
    x_adv = own(linear(), x, y, seed=SEED)
    for i in range(N):
        same(x_adv[i], make(name, eps[i])(linear(), x, y, seed=SEED)[i])


@pytest.mark.parametrize("name", RAISING)
def test_labels_may_be_probabilities(name):
    """Certain ones are the labels themselves; others decide where images go."""
    x, y = batch()
    certain = tf.one_hot(y, CLASSES)
    attack, predict = make(name), linear()
    expected = attack(predict, x, y, seed=SEED)
    same(attack(predict, x, certain, seed=SEED), expected)
    smooth = losses.soft_labels(y, CLASSES, 0.9)
    moved = attack(predict, x, smooth, seed=SEED) - expected
    assert np.any(moved) == (ROWS[name]["raises"] in ("true", "both"))


@but_the_dear
def test_a_sweep_equals_one_eps_after_the_other(name):
    """In any order, twice, none, parts of a pixel; compiled, as in evaluation."""
    predict = PREDICTS["network"]()
    x, y = batch()
    sizes = [pixels / 255 for pixels in (4, 0, 2.5, 4)]
    sweep = tf.function(
        lambda x, y, seed: core.sweep(make(name), predict, x, y, sizes, seed),
        input_signature=[
            tf.TensorSpec([None, *SHAPE]),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([2], tf.int32),
        ],
    )
    swept = sweep(x, y, tf.constant(SEED))
    assert len(swept) == len(sizes)
    expected = {e: make(name, e)(predict, x, y, seed=SEED) for e in set(sizes)}
    for x_adv, eps in zip(swept, sizes, strict=True):
        same(x_adv, expected[eps], ROWS[name].get("tolerance", 1e-6))


@every_attack
def test_the_sizes_of_a_sweep_are_checked_as_eps_is(name):
    x, y = batch()
    for eps in [-1] if large_allowed(name) else [-1, 16]:
        with pytest.raises(ValueError, match=rf"`eps` must be .*received {eps}"):
            core.sweep(make(name), linear(), x, y, [EPS, eps], SEED)


@every_attack
def test_a_sweep_gives_constants(name):
    x, y = batch()
    with tf.GradientTape() as tape:
        tape.watch(x)
        swept = core.sweep(make(name), linear(), x, y, [EPS, 2 * EPS], SEED)
        total = tf.add_n([tf.reduce_sum(x_adv**2) for x_adv in swept])
    assert tape.gradient(total, x) is None


@every_attack
def test_the_other_examples_of_the_batch_do_not_matter(name):
    x, y = batch()
    attack, predict = make(name), linear()
    # Example 2 keeps its place, and so its noise; all others change.
    others = tf.reshape(tf.range(N) != 2, [N, 1, 1, 1])
    x_other = tf.where(others, 0.02 * (1 - x), x)
    y_other = tf.where(others[:, 0, 0, 0], (y + 1) % CLASSES, y)
    first = attack(predict, x, y, seed=SEED)
    second = attack(predict, x_other, y_other, seed=SEED)
    same(second[2], first[2])
    assert np.all(sizes(second, first)[[0, 1, 3, 4, 5]] > 0.1)


@every_attack
def test_the_result_is_a_function_of_the_seed(name):
    """Attacks that draw nothing need no seed; the others say what is missing."""
    x, y = batch()
    attack, predict = make(name), linear()
    first = attack(predict, x, y, seed=SEED)
    np.testing.assert_array_equal(first, attack(predict, x, y, seed=SEED))
    try:
        unseeded = attack(predict, x, y)
    except ValueError as error:
        assert "`seed`" in str(error)
    else:
        np.testing.assert_array_equal(unseeded, first)


def height(raises, predict, x, y, labels):
    """What an attack of this row raises, [n]."""
    logits = predict(x)
    if raises == "entropy":
        return losses.entropy(logits)
    if raises == "true":
        return losses.cross_entropy(y, logits)
    if raises == "margin":
        return losses.margin(y, logits)
    if raises == "predicted":
        return losses.cross_entropy(labels.argmax(axis=1), logits)
    if raises == "least_likely":
        return -losses.cross_entropy(labels.argmin(axis=1), logits)
    if raises == "both":
        reach = height("least_likely", predict, x, y, labels)
        leave = height("true", predict, x, y, labels)
        return tf.concat([reach[: N // 2], leave[N // 2 :]], 0)
    if raises == "difference":
        return losses.dissimilarity(labels, logits)
    drawn = core.choose_labels("random", logits, y, SEED)
    return -losses.cross_entropy(drawn, logits)


@pytest.mark.parametrize("kind", PREDICTS)
@pytest.mark.parametrize("name", RAISING)
def test_attacks_raise_what_they_ascend(name, kind):
    """Labels to leave become less likely, labels to reach become more likely.

    On a linear model the cross-entropy is convex in x: an ascent step raises it
    strictly, however long. The other heights are followed for a short step. Once an
    image is misclassified, its margin need not rise.
    """
    predict = PREDICTS[kind]()
    x, y = batch()
    x_adv = make(name, 1 / 255)(predict, x, y, seed=SEED)
    clean = predict(x).numpy()
    before, after = (
        height(ROWS[name]["raises"], predict, z, y, clean).numpy() for z in (x, x_adv)
    )
    won = (after > 0) & (ROWS[name]["raises"] == "margin")
    assert np.all((after > before) | stays(name, x_adv, x) | won)


@pytest.mark.parametrize("eps", [1 / 255, 8 / 255, 64 / 255])
@pytest.mark.parametrize("name", [n for n in ROWS if ROWS[n]["raises"] == "true"])
def test_untargeted_attacks_raise_the_true_loss_of_a_linear_model(name, eps):
    predict = linear()
    x, y = batch()
    before, after = (
        losses.cross_entropy(y, predict(z)).numpy()
        for z in (x, make(name, eps)(predict, x, y, seed=SEED))
    )
    assert np.all(after > before)


@pytest.mark.parametrize(
    "name", [n for n in ROWS if ROWS[n]["raises"] in ("true", "margin")]
)
def test_a_lead_of_the_true_label_shrinks(name):
    """That of a linear model, of every image, in a ball that holds other classes."""
    predict = linear()
    x, _ = batch()
    y = tf.argmax(predict(x), axis=1, output_type=tf.int32)
    eps = 2.0 if large_allowed(name) else 64 / 255
    before, after = (
        losses.margin(y, predict(z)).numpy()
        for z in (x, make(name, eps)(predict, x, y, seed=SEED))
    )
    assert np.all(after > before)
    if ROWS[name].get("stays"):
        assert np.all(after > 0)


@every_attack
def test_an_attack_is_a_frozen_dataclass_of_keywords(name):
    attack = make(name)
    with pytest.raises(dataclasses.FrozenInstanceError):
        attack.eps = 0.5
    with pytest.raises(TypeError):
        factory(name)(EPS)
    # The name in a report is the call that makes the attack again.
    assert eval(repr(attack), vars(attacks).copy()) == attack
    wider = dataclasses.replace(attack, eps=2 * EPS)
    assert wider == make(name, 2 * EPS) != attack
