import keras
import numpy as np
import pytest
from keras import layers

from tfadv import folding, models
from tfadv.predictor import innermost

SHAPE = (6, 6, 3)


def norms(model):
    found = innermost(model)
    return [one for one in found if isinstance(one, layers.BatchNormalization)]


def settle(model):
    """Gives all normalisations statistics, centres and scales of their own."""
    random = np.random.default_rng(0)
    for norm in norms(model):
        for variable in norm.weights:
            low, high = (0.5, 2) if "var" in variable.path else (-1, 1)
            variable.assign(random.uniform(low, high, variable.shape))
    return model


def model_of(body, shape=SHAPE):
    inputs = keras.Input(shape)
    return settle(keras.Model(inputs, body(inputs)))


def check(model, left=0):
    """The logits of `folded(model)`, with `left` normalisations, are the model's."""
    folded = folding.folded(model)
    assert len(norms(folded)) == left
    x = np.random.default_rng(1).random((4, *model.input_shape[1:]), np.float32)
    expected = np.asarray(model(x, training=False))
    found = np.asarray(folded(x, training=False))
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    return folded


def test_kernel_and_bias_by_hand():
    """s = 3 / sqrt(3.75 + 0.25) = 1.5: 2 s = 3 and (1 - 5) s - 1 = -7."""
    conv, norm = layers.Conv2D(1, 1), layers.BatchNormalization(epsilon=0.25)
    inputs = keras.Input((1, 1, 1))
    model = keras.Model(inputs, norm(conv(inputs)))
    conv.set_weights([np.full((1, 1, 1, 1), 2.0), np.array([1.0])])
    norm.set_weights([np.array([value]) for value in (3.0, -1.0, 5.0, 3.75)])
    kernel, bias = folding.folded(model).get_weights()
    np.testing.assert_allclose(kernel, [[[[3.0]]]], rtol=1e-6)
    np.testing.assert_allclose(bias, [-7.0], rtol=1e-6)
    # The model is as it was.
    assert norms(model) == [norm]
    assert conv.get_weights()[0].item() == 2.0


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize(
    "layer",
    [
        lambda **kw: layers.Conv2D(4, 3, strides=2, padding="same", **kw),
        lambda **kw: layers.Conv2D(6, 3, groups=3, **kw),
        lambda **kw: layers.DepthwiseConv2D(3, depth_multiplier=2, **kw),
        lambda **kw: layers.Dense(5, **kw),
    ],
    ids=["conv", "groups", "depthwise", "dense"],
)
def test_kinds_of_layers(layer, use_bias, scale, center):
    norm = layers.BatchNormalization(scale=scale, center=center)
    check(model_of(lambda x: layers.ReLU()(norm(layer(use_bias=use_bias)(x)))))


def test_several_in_a_row_and_models_in_models():
    inner = keras.Sequential(
        [keras.Input(SHAPE), layers.Conv2D(3, 1), layers.BatchNormalization()],
        name="inner",
    )

    def body(x):
        x = layers.BatchNormalization()(layers.Conv2D(3, 3, padding="same")(x))
        x = layers.BatchNormalization()(inner(inner(layers.ReLU()(x))))
        return layers.Dense(2)(layers.Flatten()(x))

    # The one behind `inner` follows no layer but a model.
    folded = check(model_of(body), left=1)
    assert folded.get_layer("inner") is not inner


def test_a_sequential_model():
    conv, norm = layers.Conv2D(3, 3), layers.BatchNormalization()
    check(settle(keras.Sequential([keras.Input(SHAPE), conv, norm, layers.ReLU()])))


def shared_layer(x):
    conv = layers.Conv2D(3, 1)
    return layers.BatchNormalization()(conv(conv(x)))


def shared_norm(x):
    norm = layers.BatchNormalization()
    return norm(layers.ReLU()(norm(layers.Conv2D(3, 1)(x))))


def used_twice(x):
    x = layers.Conv2D(3, 1)(x)
    return layers.Add()([x, layers.BatchNormalization()(x)])


def also_returned(x):
    x = layers.Conv2D(3, 1)(x)
    return [x, layers.BatchNormalization()(x)]


@pytest.mark.parametrize(
    "body",
    [
        lambda x: layers.Conv2D(3, 1)(layers.ReLU()(layers.BatchNormalization()(x))),
        lambda x: layers.BatchNormalization()(
            layers.Conv2D(3, 1, activation="relu")(x)
        ),
        lambda x: layers.BatchNormalization(axis=1)(layers.Conv2D(3, 1)(x)),
        lambda x: layers.BatchNormalization()(layers.Conv2D(3, 1)(x), training=True),
        lambda x: layers.BatchNormalization()(layers.SeparableConv2D(3, 1)(x)),
        shared_layer,
        shared_norm,
        used_twice,
        also_returned,
    ],
    ids=[
        "pre-activation",
        "activation between",
        "other axis",
        "training",
        "separable",
        "shared layer",
        "shared norm",
        "used twice",
        "also returned",
    ],
)
def test_what_cannot_be_folded_is_the_model_itself(body):
    model = model_of(body)
    assert folding.folded(model) is model


def test_a_subclass_is_itself():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = layers.Conv2D(3, 1), layers.BatchNormalization()

        def call(self, x):
            return self.norm(self.conv(x))

    model = Own()
    model(np.zeros((1, *SHAPE), np.float32))
    assert folding.folded(model) is model


@pytest.mark.parametrize(
    ("name", "shape", "options"),
    [
        ("resnet20", (16, 16, 3), {"width": 0.25}),
        ("wang_resnet", (28, 28, 1), {}),
        pytest.param(
            *("inception_v3", (75, 75, 3), {"width": 0.1}), marks=pytest.mark.slow
        ),
    ],
)
def test_networks_of_tfadv_keep_none(name, shape, options):
    model = settle(models.get(name)(shape, 10, **options))
    assert norms(model)
    check(model)


def test_a_network_without_any_is_itself():
    model = models.small_cnn((8, 8, 1), 10)
    assert folding.folded(model) is model
