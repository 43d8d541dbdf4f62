import keras
import numpy as np
import pytest
from keras import layers

from tests.models.test_imagenet import block, inception_v3_parameters
from tests.models.test_inception import HE
from tests.models.test_residual import (
    after,
    assert_truncated_normal,
    before,
    of_type,
)
from tfadv import models
from tfadv.models.inception_v3 import (
    applications_names,
    from_applications,
    to_applications,
)


@pytest.fixture(scope="module", autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="module")
def full():
    """As in the paper."""
    return models.inception_v3((299, 299, 3), 1000)


@pytest.fixture(scope="module")
def applications():
    return keras.applications.InceptionV3(weights=None, classifier_activation=None)


@pytest.fixture(scope="module")
def narrow():
    """Small and with every option."""
    return models.inception_v3(
        (75, 76, 3),
        6,
        width=0.3,
        activation="relu_decay_0.01",
        extra_blocks=2,
        dropout=0.0,
        bn_momentum=0.9,
        weight_decay=0.1,
    )


def images(height, width):
    """One of large squares and a black one: random networks see nothing in noise."""
    squares = np.random.default_rng(0).uniform(size=(height // 16 + 1, width // 16 + 1))
    x = np.kron(squares, np.ones((16, 16)))[:height, :width, None] * [1, 0.5, 0.2]
    return np.stack([x, np.zeros_like(x)]).astype(np.float32)


def moved(model, seed):
    """`model` with new kernels, and statistics and biases not those of a new one."""
    rng = np.random.default_rng(seed)
    for v in model.weights:
        if v.name == "kernel":
            std = np.sqrt(2 / np.prod(v.shape[:-1]))
            value = rng.normal(scale=std, size=v.shape)
        elif v.name == "moving_variance":
            value = rng.uniform(0.5, 2, size=v.shape)
        else:
            value = rng.normal(scale=0.3, size=v.shape)
        v.assign(value.astype(np.float32))
    return model


def values(model, *names):
    return [v.numpy() for name in names for v in model.get_layer(name).weights]


def assert_same(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_parameters(full, applications):
    """Of every convolution kernel, beta, mean and variance; dense with a bias."""
    total, features = inception_v3_parameters()
    assert total == 21_802_784 and features == 2048
    total += (features + 1) * 1000
    assert full.count_params() == applications.count_params() == total == 23_851_784


def test_shapes(full):
    """At 299: halving is VALID, (n - 1) // 2 for 3x3."""
    expected = {
        "normalize": (299, 299, 3),
        "conv_1a_3x3": (149, 149, 32),
        "conv_2a_3x3": (147, 147, 32),
        "conv_2b_3x3": (147, 147, 64),
        "pool_3a": (73, 73, 64),
        "conv_3b_1x1": (73, 73, 80),
        "conv_4a_3x3": (71, 71, 192),
        "pool_5a": (35, 35, 192),
        "mixed_5b": (35, 35, 256),
        "mixed_5c": (35, 35, 288),
        "mixed_5d": (35, 35, 288),
        "mixed_6a": (17, 17, 768),
        "mixed_6b": (17, 17, 768),
        "mixed_6c": (17, 17, 768),
        "mixed_6d": (17, 17, 768),
        "mixed_6e": (17, 17, 768),
        "mixed_7a": (8, 8, 1280),
        "mixed_7b": (8, 8, 2048),
        "mixed_7c": (8, 8, 2048),
        "avg_pool": (2048,),
        "avg_pool_dropout": (2048,),
        "embedding": (1000,),
    }
    for name, shape in expected.items():
        assert full.get_layer(name).output.shape == (None, *shape)
    assert len(of_type(full, layers.Concatenate)) == 11


def test_the_network_of_keras(full, applications):
    """In both directions equal weights are equal logits, and others are not."""
    x = images(299, 299)
    inputs = keras.applications.inception_v3.preprocess_input(255 * x)

    def logits(model, x):
        return np.asarray(model(x, training=False))

    expected = logits(moved(applications, 1), inputs)
    size = np.abs(expected).max()
    assert np.ptp(expected, axis=0).max() > 0.02 * size
    assert from_applications(full, applications) == ()
    np.testing.assert_allclose(logits(full, x), expected, rtol=1e-4, atol=1e-4 * size)

    expected = logits(moved(full, 2), x)
    size = np.abs(expected).max()
    before = logits(applications, inputs)
    assert np.abs(before - expected).max() > 0.1 * size
    to_applications(full, applications)
    np.testing.assert_allclose(
        logits(applications, inputs), expected, rtol=1e-4, atol=1e-4 * size
    )


@pytest.mark.parametrize("classes", [None, 6])
def test_another_top(full, applications, classes):
    """Where there is none, or other classes, the logits stay as they are."""
    x = applications.get_layer("avg_pool").output
    if classes:
        x = layers.Dense(classes, name="predictions")(x)
    other = keras.Model(applications.input, x)
    moved(full, 3)
    kept = values(full, "embedding")
    assert from_applications(full, other) == ("embedding",)
    assert_same(values(full, "embedding"), kept)
    # The last convolution is taken, that behind the last average pool.
    names = [layer.name for layer in other.layers if layer.weights]
    theirs = {own: name for name, own in applications_names(full, names).items()}
    for own in ("conv_1a_3x3", "mixed_7c_3b_1x1", "mixed_7c_3b_1x1_bn"):
        assert_same(values(full, own), values(other, theirs[own]))


def test_names_of_applications(full):
    """Numbered from wherever a process was; 9 comes before 10, whatever the order."""
    convolutions = [f"conv2d_{i}" for i in range(7, 101)]
    norms = ["batch_normalization", *(f"batch_normalization_{i}" for i in range(1, 94))]
    found = applications_names(full, [*sorted(norms), *sorted(convolutions), "fc"])
    assert len(found) == 188 == len(set(found.values()))
    for number, name in {
        7: "conv_1a_3x3",
        9: "conv_2b_3x3",
        10: "conv_3b_1x1",
        11: "conv_4a_3x3",
        12: "mixed_5b_0a_1x1",
        13: "mixed_5b_1a_1x1",
        14: "mixed_5b_1b_5x5",
        18: "mixed_5b_3b_1x1",
        19: "mixed_5c_0a_1x1",
        # 5 of the stem and 7 of three blocks are before it.
        7 + 5 + 3 * 7: "mixed_6a_0a_3x3",
        100: "mixed_7c_3b_1x1",
    }.items():
        assert found[f"conv2d_{number}"] == name
    assert found["batch_normalization"] == "conv_1a_3x3_bn"
    assert found["batch_normalization_93"] == "mixed_7c_3b_1x1_bn"
    for logits in ("predictions", "embedding"):
        names = [*convolutions, logits, *norms]
        assert applications_names(full, names) == found | {logits: "embedding"}


def test_names_of_other_networks(full, applications):
    """Those of this network itself, and of one with a convolution too many."""
    own = [layer.name for layer in full.layers if layer.weights]
    theirs = [layer.name for layer in applications.layers if layer.weights]
    assert applications_names(full, own) == {}
    assert applications_names(full, [*theirs, "conv2d_2000"]) == {}
    assert applications_names(full, []) == {}
    assert applications_names(applications, theirs) == {}
    assert applications_names(applications, ["predictions"]) == {}


def test_another_network_is_refused(full):
    other = models.small_cnn((8, 8, 1), 10, width=1)
    kept = values(full, "conv_1a_3x3", "embedding")
    message = "`other` must be a keras.applications.InceptionV3.*; received small_cnn"
    for copy in (from_applications, to_applications):
        with pytest.raises(ValueError, match=message):
            copy(full, other)
    assert_same(values(full, "conv_1a_3x3", "embedding"), kept)


def test_another_width_is_refused(narrow, applications):
    kept = [v.numpy() for v in narrow.weights]
    message = r"conv_1a_3x3 of inception_v3 .*\(3, 3, 3, 16\).*\(3, 3, 3, 32\).*width=1"
    with pytest.raises(ValueError, match=message):
        from_applications(narrow, applications)
    assert_same([v.numpy() for v in narrow.weights], kept)


def test_width_multiplies_every_convolution(full, narrow):
    for conv in of_type(full, layers.Conv2D):
        expected = max(int(conv.filters * 0.3), 16)
        assert narrow.get_layer(conv.name).filters == expected
    assert full.get_layer("conv_3b_1x1").filters == 80
    assert narrow.get_layer("conv_3b_1x1").filters == 24
    assert narrow.get_layer("conv_2a_3x3").filters == 16
    assert narrow.output_shape == (None, 6)


def test_extra_blocks(full):
    """Two of the kind of mixed_6e, between it and mixed_7a; it stays what it is."""
    deeper = models.inception_v3((75, 75, 3), 2, extra_blocks=2)
    double = [(1, 192), *[(7, 192)] * 4]
    each, filters = block(768, [(1, 192)], double[:3], double, [(1, 192)])
    assert filters == 768
    total, features = inception_v3_parameters()
    assert deeper.count_params() == total + (features + 1) * 2 + 2 * each

    def inputs(name):
        return set(before(deeper.get_layer(name)))

    def ends(name):
        return {end.name.removesuffix("_relu") for end in inputs(name)}

    assert ends("extra_2") == {
        "extra_2_0a_1x1",
        "extra_2_1c_7x1",
        "extra_2_2e_1x7",
        "extra_2_3b_1x1",
    }
    assert after_names(deeper, "mixed_6e") == {
        "extra_1_0a_1x1",
        "extra_1_1a_1x1",
        "extra_1_2a_1x1",
        "extra_1_3a_pool",
    }
    assert "mixed_7a_0a_1x1" in after_names(deeper, "extra_2")
    assert len(after_names(deeper, "extra_1")) == 4

    # Extra blocks have no twins in keras.applications.
    moved(full, 4)
    other = keras.applications.InceptionV3(
        weights=None, include_top=False, input_shape=(75, 75, 3)
    )
    to_applications(full, other)
    left = from_applications(deeper, other)
    assert len(left) == 2 * 2 * 10 + 1 and "embedding" in left
    assert all(name.startswith("extra_") for name in left if name != "embedding")
    shared = ("mixed_6e_2e_1x7", "mixed_6e_2e_1x7_bn", "mixed_7a_0a_1x1")
    assert_same(values(deeper, *shared), values(full, *shared))


def after_names(model, name):
    return {layer.name for layer in after(model.get_layer(name))}


def test_the_auxiliary_head_fits(narrow):
    """What a defence does to see both classifiers."""
    features = narrow.get_layer("mixed_6e").output
    # 4 * int(192 * 0.3); 75 -> 37 -> 35 -> 17 -> 15 -> 7 -> 3.
    assert features.shape == (None, 3, 3, 4 * 57)
    both = keras.Model(narrow.input, [narrow.output, features])
    head = models.auxiliary_head(features.shape[1:], 6, width=0.3)
    x = images(75, 76)
    logits, maps = both(x, training=False)
    np.testing.assert_array_equal(logits, narrow(x, training=False))
    assert head(maps).shape == (2, 6)


def test_defaults(full):
    norms = of_type(full, layers.BatchNormalization)
    assert len(norms) == len(of_type(full, layers.Conv2D)) == 94
    for norm in norms:
        assert (norm.momentum, norm.epsilon) == (0.9997, 1e-3)
        assert norm.center and not norm.scale
    assert not any(conv.use_bias for conv in of_type(full, layers.Conv2D))
    assert len(of_type(full, layers.ReLU)) == 94
    (drop,) = of_type(full, layers.Dropout)
    assert drop.rate == 0.2
    embedding = full.get_layer("embedding")
    assert before(drop) == [full.get_layer("avg_pool")] and after(drop) == [embedding]
    assert embedding.output is full.output
    assert embedding.activation is keras.activations.linear


def test_only_kernels_decay(full, narrow):
    for model, decay in ((full, 4e-5), (narrow, 0.1)):
        kernels = [v for v in model.trainable_variables if v.name == "kernel"]
        assert len(model.losses) == len(kernels)
        squares = sum(np.sum(np.square(k, dtype=np.float64)) for k in kernels)
        assert float(sum(model.losses)) == pytest.approx(decay / 2 * squares, rel=1e-4)


def test_options(narrow):
    """Relu decay is a ReLU and a division behind each of 94 + 20 convolutions."""
    relus = of_type(narrow, layers.ReLU)
    assert len(relus) == 94 + 20
    divided = [o for o in narrow.operations if o.name.startswith("true_divide")]
    assert len(divided) == 94 + 20
    assert {norm.momentum for norm in of_type(narrow, layers.BatchNormalization)} == {
        0.9
    }
    assert of_type(narrow, layers.Dropout) == []


def test_initial_kernels(narrow):
    """He normal, by the fan in; that of the logits as well."""
    for name in ("mixed_7b_2b_3x3", "mixed_6b_1b_1x7", "embedding"):
        kernel = values(narrow, name)[0]
        std = np.sqrt(2 / np.prod(kernel.shape[:-1]))
        assert_truncated_normal(kernel, std, 2 * std * HE)


def test_the_first_layer(narrow):
    x = np.array([0, 0.25, 1], np.float32)
    np.testing.assert_allclose(narrow.layers[1](x), [-1, -0.5, 1])
    assert narrow.layers[1].name == "normalize"
    assert before(narrow.get_layer("conv_1a_3x3")) == [narrow.layers[1]]


def test_a_saved_network_is_the_same(narrow, tmp_path):
    narrow.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = images(75, 76)
    np.testing.assert_array_equal(loaded(x, training=False), narrow(x, training=False))


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((74, 299, 3), {}, "inception_v3 takes .* 75 or more; received 74x299x3"),
        ((299, 74, 3), {}, "received 299x74x3"),
        ((299, 299, 1), {}, "received 299x299x1"),
        ((75, 75, 3), {"dropout": 1.0}, "`dropout` must be a rate"),
        ((75, 75, 3), {"width": 0.0}, "`width` must be a positive number"),
        ((75, 75, 3), {"activation": "swish"}, "unknown activation 'swish'"),
        ((75, 75, 3), {"extra_blocks": -1}, "`extra_blocks` must be 0 or more; .* -1"),
    ],
)
def test_impossible_arguments(shape, options, message):
    with pytest.raises(ValueError, match=message):
        models.inception_v3(shape, 10, **options)


def test_a_name_gets_it():
    assert models.get("inception_v3") is models.inception_v3
