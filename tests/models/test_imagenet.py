import keras
import numpy as np
import pytest
from keras import layers

from tests.models.test_residual import after, before, of_type
from tfadv import models

MAKERS = {
    "resnet50": models.resnet50,
    "resnet101": models.resnet101,
    "inception_v3_imagenet": models.inception_v3_imagenet,
    "inception_resnet_v2": models.inception_resnet_v2,
}
LEAST = {
    "resnet50": 32,
    "resnet101": 32,
    "inception_v3_imagenet": 75,
    "inception_resnet_v2": 75,
}
FEATURES = {
    "resnet50": 2048,
    "resnet101": 2048,
    "inception_v3_imagenet": 2048,
    "inception_resnet_v2": 1536,
}
RESNETS = ("resnet50", "resnet101")
every_network = pytest.mark.parametrize("name", MAKERS)


@pytest.fixture(scope="module")
def made():
    """Each for the smallest images and six classes, with decay and dropout."""
    keras.utils.set_random_seed(0)
    options = {"weight_decay": 0.1, "dropout": 0.5}
    return {
        name: make((LEAST[name], LEAST[name] + 1, 3), 6, **options)
        for name, make in MAKERS.items()
    }


def images(model):
    rng = np.random.default_rng(0)
    return rng.uniform(size=(2, *model.input_shape[1:])).astype(np.float32)


def resnet_parameters(third_stage):
    """Kernels and biases; of each filter gamma, beta, mean and variance."""

    def conv_bn(size, channels, filters):
        return (size * size * channels + 1 + 4) * filters

    total, channels = conv_bn(7, 3, 64), 64
    for blocks, filters in ((3, 64), (4, 128), (third_stage, 256), (3, 512)):
        total += conv_bn(1, channels, 4 * filters)
        for _ in range(blocks):
            total += conv_bn(1, channels, filters) + conv_bn(3, filters, filters)
            total += conv_bn(1, filters, 4 * filters)
            channels = 4 * filters
    return total


def convs(channels, *sizes):
    """Of a chain of (kernel's area, filters): no bias; beta, mean and variance.

    Returns the parameters and the number of filters at the end.
    """
    total = 0
    for area, filters in sizes:
        total += (area * channels + 3) * filters
        channels = filters
    return total, channels


def block(channels, *branches, keep=0):
    """Of branches side by side, whose filters are put together with `keep` others."""
    ends = [convs(channels, *branch) for branch in branches]
    return sum(e[0] for e in ends), sum(e[1] for e in ends) + keep


def inception_v3_parameters():
    """Szegedy et al. 2016; the third branch of the pools keeps what it takes."""
    total, c = convs(3, (9, 32), (9, 32), (9, 64), (1, 80), (9, 192))

    def add(parameters, filters):
        nonlocal total, c
        total, c = total + parameters, filters

    for pool in (32, 64, 64):
        double = [(1, 64), (9, 96), (9, 96)]
        add(*block(c, [(1, 64)], [(1, 48), (25, 64)], double, [(1, pool)]))
    add(*block(c, [(9, 384)], [(1, 64), (9, 96), (9, 96)], keep=c))
    for d in (128, 160, 160, 192):
        single = [(1, d), (7, d), (7, 192)]
        double = [(1, d), (7, d), (7, d), (7, d), (7, 192)]
        add(*block(c, [(1, 192)], single, double, [(1, 192)]))
    wide = [(1, 192), (7, 192), (7, 192), (9, 192)]
    add(*block(c, [(1, 192), (9, 320)], wide, keep=c))
    for _ in range(2):
        # 1x3 and 3x1 side by side, of the 384 filters before them.
        split = 2 * convs(384, (3, 384))[0]
        parameters, filters = block(
            c, [(1, 320)], [(1, 384)], [(1, 448), (9, 384)], [(1, 192)]
        )
        add(parameters + 2 * split, filters + 2 * 384)
    return total, c


def inception_resnet_v2_parameters():
    """Szegedy et al. 2017; a block ends in a 1x1 convolution with bias, without BN."""
    total, c = convs(3, (9, 32), (9, 32), (9, 64), (1, 80), (9, 192))

    def add(parameters, filters):
        nonlocal total, c
        total, c = total + parameters, filters

    def residual(times, *branches):
        parameters, filters = block(c, *branches)
        add(times * (parameters + (filters + 1) * c), c)

    double = [(1, 64), (9, 96), (9, 96)]
    add(*block(c, [(1, 96)], [(1, 48), (25, 64)], double, [(1, 64)]))
    residual(10, [(1, 32)], [(1, 32), (9, 32)], [(1, 32), (9, 48), (9, 64)])
    add(*block(c, [(9, 384)], [(1, 256), (9, 256), (9, 384)], keep=c))
    residual(20, [(1, 192)], [(1, 128), (7, 160), (7, 192)])
    single, other = [(1, 256), (9, 384)], [(1, 256), (9, 288)]
    add(*block(c, single, other, [(1, 256), (9, 288), (9, 320)], keep=c))
    residual(10, [(1, 192)], [(1, 192), (3, 224), (3, 256)])
    add(*convs(c, (1, 1536)))
    return total, c


def test_parameters(made):
    expected = {
        "resnet50": (resnet_parameters(6), 2048),
        "resnet101": (resnet_parameters(23), 2048),
        "inception_v3_imagenet": inception_v3_parameters(),
        "inception_resnet_v2": inception_resnet_v2_parameters(),
    }
    stated = {
        "resnet50": 23_587_712,
        "resnet101": 42_658_176,
        "inception_v3_imagenet": 21_802_784,
        "inception_resnet_v2": 54_336_736,
    }
    for name, model in made.items():
        total, filters = expected[name]
        assert total == stated[name] and filters == FEATURES[name]
        assert model.count_params() == total + (filters + 1) * 6


@every_network
def test_preprocessing(made, name):
    """BGR less the means of ImageNet, or 2 x - 1; in the first layer."""
    model = made[name]
    assert model.layers[1].name == "normalize"
    first = model.layers[2]
    kind = layers.ZeroPadding2D if name in RESNETS else layers.Conv2D
    assert isinstance(first, kind)
    x = images(model)
    given = keras.Model(model.input, first.input)(x)
    if name in RESNETS:
        expected = 255 * x.astype(np.float64)
        expected = expected[..., ::-1] - (103.939, 116.779, 123.68)
        np.testing.assert_allclose(given, expected, rtol=0, atol=3e-5)
    else:
        np.testing.assert_allclose(given, 2 * x - 1, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "module", "make"),
    [
        ("resnet50", "resnet", "ResNet50"),
        ("resnet101", "resnet", "ResNet101"),
        ("inception_v3_imagenet", "inception_v3", "InceptionV3"),
    ],
)
def test_the_network_of_keras(made, name, module, make):
    """Behind `preprocess_input`, before the mean and the dense layer."""
    model = made[name]
    base = getattr(keras.applications, make)(
        include_top=False, weights=None, input_shape=model.input_shape[1:]
    )
    *inner, kernel, bias = model.get_weights()
    base.set_weights(inner)
    x = images(model)
    preprocess = getattr(keras.applications, module).preprocess_input
    maps = np.asarray(base(preprocess(255 * x), training=False))
    expected = maps.mean((1, 2)) @ kernel + bias
    size = np.abs(expected).max()
    np.testing.assert_allclose(
        model(x, training=False), expected, rtol=1e-3, atol=1e-3 * size
    )
    assert np.ptp(expected, axis=0).min() > 1e-6 * size


@every_network
def test_the_head(made, name):
    """The mean over the positions, dropout, logits."""
    model = made[name]
    pool, embedding = model.get_layer("avg_pool"), model.get_layer("embedding")
    assert pool.output.shape == (None, FEATURES[name])
    (drop,) = of_type(model, layers.Dropout)
    assert drop.rate == 0.5
    assert before(drop) == [pool] and after(drop) == [embedding]
    assert embedding.output is model.output and model.output_shape == (None, 6)
    assert embedding.activation is keras.activations.linear
    assert model.name == name


@every_network
def test_only_kernels_decay(made, name):
    model = made[name]
    kernels = [v for v in model.trainable_variables if v.name == "kernel"]
    convolutions = {
        "resnet50": 1 + 3 * 16 + 4,
        "resnet101": 1 + 3 * 33 + 4,
        "inception_v3_imagenet": 94,
        "inception_resnet_v2": 5 + 7 + 10 * 7 + 4 + 20 * 5 + 7 + 10 * 5 + 1,
    }
    assert len(model.losses) == len(kernels) == convolutions[name] + 1
    expected = 0.1 / 2 * sum(np.sum(np.square(k, dtype=np.float64)) for k in kernels)
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-4)


def test_neither_by_default():
    model = models.inception_v3_imagenet((75, 75, 3), 1000)
    assert model.losses == [] and of_type(model, layers.Dropout) == []
    assert model.count_params() == 21_802_784 + 2049 * 1000


def test_a_saved_network_is_the_same(made, tmp_path):
    """Its decay comes back with it."""
    model = made["inception_v3_imagenet"]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = images(model)
    np.testing.assert_array_equal(loaded(x, training=False), model(x, training=False))
    losses = [float(loss) for loss in model.losses]
    assert [float(loss) for loss in loaded.losses] == losses


@pytest.mark.slow
@every_network
def test_a_pass_at_the_size_of_imagenet(name):
    side = 224 if name in RESNETS else 299
    model = MAKERS[name]((side, side, 3), 8)
    logits = np.asarray(model(images(model), training=False))
    assert logits.shape == (2, 8) and np.isfinite(logits).all()
    assert np.ptp(logits) > 0


@every_network
def test_impossible_images(name):
    least = LEAST[name]
    message = f"{name} takes .* sides of {least} or more; received"
    for h, w, c in ((least - 1, 299, 3), (299, least - 1, 3), (299, 299, 1)):
        with pytest.raises(ValueError, match=f"{message} {h}x{w}x{c}"):
            MAKERS[name]((h, w, c), 6)


@every_network
def test_impossible_rates(name):
    with pytest.raises(ValueError, match="`dropout` must be a rate"):
        MAKERS[name]((299, 299, 3), 6, dropout=2)


@every_network
def test_a_name_gets_its_network(name):
    assert models.get(name) is MAKERS[name]
