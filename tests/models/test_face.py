import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tests.models.test_residual import after, before, count, of_type, scrambled
from tfadv import models
from tfadv.models.face import RESNET_MEAN, VGG_MEAN

VGG = [("conv1", 2, 64), ("conv2", 2, 128), ("conv3", 3, 256), ("conv4", 3, 512)]
VGG = [*VGG, ("conv5", 3, 512)]
# Stage, blocks, filters of reduce and 3x3, of increase and projection.
RESNET = [(2, 3, 64, 256), (3, 4, 128, 512), (4, 6, 256, 1024), (5, 3, 512, 2048)]
MAKERS = {"vgg16_face": models.vgg16_face, "resnet50_face": models.resnet50_face}
MEANS = {
    "vgg16_face": (93.5940, 104.7624, 129.1863),
    "resnet50_face": (91.4953, 103.8827, 131.0912),
}
both = pytest.mark.parametrize("name", MAKERS)


@pytest.fixture(scope="module")
def small():
    """Both networks for 32x32 and 8 classes, with biases and moving statistics.

    Kernels of the one without batch normalisation grow from Glorot's to He's, or
    little but biases would reach its logits.
    """
    keras.utils.set_random_seed(0)
    made = {name: scrambled(make((32, 32, 3), 8)) for name, make in MAKERS.items()}
    for kernel in (v for v in made["vgg16_face"].variables if v.name == "kernel"):
        kernel.assign(np.sqrt(2) * kernel)
    return made


@pytest.fixture(scope="module")
def tuned():
    """The same with decay, dropout and, where there is any, other batch norms."""
    both = {"weight_decay": 0.1, "dropout": 0.5}
    return {
        "vgg16_face": models.vgg16_face((32, 32, 3), 8, **both),
        "resnet50_face": models.resnet50_face((5, 5, 3), 8, bn_momentum=0.9, **both),
    }


def images(n=2, side=32):
    return np.random.default_rng(0).uniform(size=(n, side, side, 3)).astype(np.float32)


def sizes(model):
    """(name, output shape, parameters) of the layers with weights and of all pools."""
    pools = layers.MaxPooling2D | layers.GlobalAveragePooling2D
    return [
        (layer.name, tuple(layer.output.shape[1:]), count(layer.weights))
        for layer in model.layers
        if layer.weights or isinstance(layer, pools)
    ]


def vgg_table(side, classes):
    """3x3 kernels and biases; the pools halve; dense 4096, 4096, K."""
    table, channels = [], 3
    for block, (name, convs, filters) in enumerate(VGG, start=1):
        for i in range(1, convs + 1):
            parameters = (9 * channels + 1) * filters
            table.append((f"{name}_{i}", (side, side, filters), parameters))
            channels = filters
        side //= 2
        table.append((f"pool{block}", (side, side, filters), 0))
    flat = side * side * 512
    for name, fan_in, units in (
        ("fc6", flat, 4096),
        ("fc7", 4096, 4096),
        ("embedding", 4096, classes),
    ):
        table.append((name, (units,), (fan_in + 1) * units))
    return table


def resnet_table(side, classes):
    """Kernels without bias; of each filter gamma, beta, mean and variance."""
    table = []

    def conv_bn(name, side, size, channels, filters):
        shape = (side, side, filters)
        table.append((name, shape, size * size * channels * filters))
        table.append((f"{name}_bn", shape, 4 * filters))

    side = -(-side // 2)
    conv_bn("conv1_7x7_s2", side, 7, 3, 64)
    side = (side - 3) // 2 + 1
    table.append(("pool1", (side, side, 64), 0))
    channels = 64
    for stage, blocks, filters, increased in RESNET:
        side = side if stage == 2 else -(-side // 2)
        for block in range(1, blocks + 1):
            name = f"conv{stage}_{block}"
            conv_bn(f"{name}_1x1_reduce", side, 1, channels, filters)
            conv_bn(f"{name}_3x3", side, 3, filters, filters)
            conv_bn(f"{name}_1x1_increase", side, 1, filters, increased)
            if block == 1:
                conv_bn(f"{name}_1x1_proj", side, 1, channels, increased)
            channels = increased
    table.append(("avg_pool", (2048,), 0))
    table.append(("embedding", (classes,), (2048 + 1) * classes))
    return table


def test_the_layers_of_vgg(small):
    assert sizes(small["vgg16_face"]) == vgg_table(32, 8)


def test_the_layers_of_vgg_at_the_size_of_the_paper():
    """7x7x512 is left for fc6."""
    model = models.vgg16_face((224, 224, 3), 8)
    table = vgg_table(224, 8)
    assert ("pool5", (7, 7, 512), 0) in table
    assert sizes(model) == table
    assert sum(row[2] for row in table) == model.count_params() == 134_293_320


@pytest.mark.parametrize("side", [5, 32, 224])
def test_the_layers_of_resnet(small, tuned, side):
    """In any order: Keras puts those of a projection between those beside it."""
    if side == 224:
        model = models.resnet50_face((side, side, 3), 8)
    else:
        model = {5: tuned, 32: small}[side]["resnet50_face"]
    table = resnet_table(side, 8)
    if side == 224:
        assert ("pool1", (55, 55, 64), 0) in table
        assert table[-3][:2] == ("conv5_3_1x1_increase_bn", (7, 7, 2048))
    assert sorted(sizes(model)) == sorted(table)
    moving = sum(row[2] for row in table if row[0].endswith("_bn")) // 2
    trained = sum(row[2] for row in table) - moving
    assert count(model.trainable_variables) == trained == 23_524_424
    assert count(model.non_trainable_weights) == moving


def features(x, name):
    """NumPy: 255 x, reversed, less the means of B, G, R."""
    assert {"vgg16_face": VGG_MEAN, "resnet50_face": RESNET_MEAN} == MEANS
    return (255 * x.astype(np.float64))[..., ::-1] - MEANS[name]


@both
def test_preprocessing(small, name):
    """What the first convolution is given, to the last bits of float32."""
    model, x = small[name], images()
    first = of_type(model, layers.Conv2D)[0]
    given = keras.Model(model.input, first.input)(x)
    expected = features(x, name)
    np.testing.assert_allclose(given, expected, rtol=0, atol=3e-5)
    assert np.ptp(expected.mean((0, 1, 2))) > 10
    assert model.layers[1].name == "normalize"


@both
def test_the_gradient_of_the_preprocessing(small, name):
    """Of B + 2 G + 3 R of what the first convolution is given, with respect to RGB."""
    first = of_type(small[name], layers.Conv2D)[0]
    normalize = keras.Model(small[name].input, first.input)
    x = tf.constant(images(1))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(normalize(x) * [1.0, 2.0, 3.0])
    expected = np.broadcast_to([3 * 255, 2 * 255, 255], x.shape)
    np.testing.assert_array_equal(tape.gradient(y, x), expected)


def conv(x, kernel, strides=1):
    """NumPy: SAME. Where the zeros are of odd number, the one more is at the end."""
    n, h, w, _ = x.shape
    size, out = kernel.shape[0], [-(-h // strides), -(-w // strides)]
    sides = zip(out, (h, w), strict=True)
    zeros = [max((o - 1) * strides + size - side, 0) for o, side in sides]
    x = np.pad(x, [(0, 0), *((z // 2, z - z // 2) for z in zeros), (0, 0)])
    y = np.zeros([n, *out, kernel.shape[3]])
    for i in range(size):
        for j in range(size):
            part = x[:, i:, j:][:, ::strides, ::strides][:, : out[0], : out[1]]
            y += part @ kernel[i, j]
    return y


def max_pool(x, size, strides):
    """NumPy: VALID."""
    out = [(side - size) // strides + 1 for side in x.shape[1:3]]
    parts = [
        x[:, i:, j:][:, ::strides, ::strides][:, : out[0], : out[1]]
        for i in range(size)
        for j in range(size)
    ]
    return np.max(parts, axis=0)


def test_vgg_in_numpy(small):
    model, x = small["vgg16_face"], images()
    weights = {name: model.get_layer(name).get_weights() for name, *_ in sizes(model)}
    h = features(x, "vgg16_face")
    for name, convs, _ in VGG:
        for i in range(1, convs + 1):
            kernel, bias = weights[f"{name}_{i}"]
            h = np.maximum(conv(h, kernel) + bias, 0)
        h = max_pool(h, 2, 2)
    h = h.reshape(len(x), -1)
    for name in ("fc6", "fc7"):
        kernel, bias = weights[name]
        h = np.maximum(h @ kernel + bias, 0)
    kernel, bias = weights["embedding"]
    expected = h @ kernel + bias
    logits = model(x, training=False)
    size = np.abs(expected - bias).max()
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4 * size)
    assert np.ptp(expected, axis=0).min() > 0.01 * size
    # What a domain classifier takes by name is behind the ReLU.
    taken = keras.Model(model.input, model.get_layer("fc7").output)
    np.testing.assert_allclose(taken(x), h, rtol=1e-3, atol=1e-4 * h.max())


def test_resnet_in_numpy(small):
    model, x = small["resnet50_face"], images()

    def conv_bn(x, name, strides=1):
        (kernel,) = model.get_layer(name).get_weights()
        gamma, beta, mean, variance = model.get_layer(f"{name}_bn").get_weights()
        x = (conv(x, kernel, strides) - mean) / np.sqrt(variance + 1e-3)
        return gamma * x + beta

    def relu(x):
        return np.maximum(x, 0)

    h = relu(conv_bn(features(x, "resnet50_face"), "conv1_7x7_s2", 2))
    h = max_pool(h, 3, 2)
    for stage, blocks, *_ in RESNET:
        for block in range(1, blocks + 1):
            name = f"conv{stage}_{block}"
            strides = 2 if block == 1 and stage > 2 else 1
            shortcut = h
            if block == 1:
                shortcut = conv_bn(h, f"{name}_1x1_proj", strides)
            h = relu(conv_bn(h, f"{name}_1x1_reduce", strides))
            h = relu(conv_bn(h, f"{name}_3x3"))
            h = relu(shortcut + conv_bn(h, f"{name}_1x1_increase"))
    h = h.mean((1, 2))
    kernel, bias = model.get_layer("embedding").get_weights()
    expected = h @ kernel + bias
    size = np.abs(expected).max()
    np.testing.assert_allclose(
        model(x, training=False), expected, rtol=1e-3, atol=1e-3 * size
    )
    taken = keras.Model(model.input, model.get_layer("avg_pool").output)
    np.testing.assert_allclose(taken(x), h, rtol=1e-3, atol=1e-3 * h.max())


@both
def test_the_logits_are_the_embedding(small, name):
    model = small[name]
    last = model.get_layer("embedding")
    assert last.output is model.output and model.name == name
    assert last.activation is keras.activations.linear
    assert model.output_shape == (None, 8)


@both
def test_only_kernels_decay(tuned, name):
    model = tuned[name]
    kernels = [v for v in model.trainable_variables if v.name == "kernel"]
    assert len(kernels) == {"vgg16_face": 16, "resnet50_face": 54}[name]
    assert len(model.losses) == len(kernels)
    expected = 0.1 / 2 * sum(np.sum(np.square(k, dtype=np.float64)) for k in kernels)
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-4)


@both
def test_dropout(tuned, name):
    """Behind fc6 and fc7, or behind the mean."""
    drops = of_type(tuned[name], layers.Dropout)
    behind = {"vgg16_face": ["fc6", "fc7"], "resnet50_face": ["avg_pool"]}[name]
    assert [before(drop)[0].name for drop in drops] == behind
    assert [drop.rate for drop in drops] == [0.5] * len(behind)
    assert all(after(drop) for drop in drops)


@both
def test_neither_by_default(small, name):
    assert small[name].losses == []
    assert of_type(small[name], layers.Dropout) == []


def test_every_batch_norm_is_told(small, tuned):
    for made, momentum in ((small, 0.99), (tuned, 0.9)):
        norms = of_type(made["resnet50_face"], layers.BatchNormalization)
        assert len(norms) == 1 + 3 * 16 + 4
        assert {(norm.momentum, norm.epsilon) for norm in norms} == {(momentum, 1e-3)}


@both
def test_a_saved_network_needs_no_tfadv(small, name, tmp_path):
    model = small[name]
    model.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        assert b"tfadv" not in archive.read("config.json")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = images()
    np.testing.assert_array_equal(loaded(x, training=False), model(x, training=False))


@pytest.mark.slow
@both
def test_a_pass_at_the_size_of_the_paper(name):
    model = MAKERS[name]((224, 224, 3), 8)
    logits = np.asarray(model(images(1, 224), training=False))
    assert logits.shape == (1, 8) and np.isfinite(logits).all()
    assert np.ptp(logits) > 0


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("vgg16_face", (31, 224, 3), "sides of 32 or more; received 31x224x3"),
        ("vgg16_face", (224, 31, 3), "sides of 32 or more; received 224x31x3"),
        ("vgg16_face", (32, 32, 1), "received 32x32x1"),
        ("resnet50_face", (4, 5, 3), "sides of 5 or more; received 4x5x3"),
        ("resnet50_face", (32, 32, 4), "received 32x32x4"),
        ("resnet50_face", (32, 32), "received 32x32$"),
    ],
)
def test_impossible_images(name, shape, message):
    with pytest.raises(ValueError, match=f"{name} takes .*{message}"):
        MAKERS[name](shape, 8)


@both
@pytest.mark.parametrize("dropout", [-0.1, 1.0, float("nan")])
def test_impossible_rates(name, dropout):
    with pytest.raises(ValueError, match=f"`dropout` must be .* received {dropout}"):
        MAKERS[name]((32, 32, 3), 8, dropout=dropout)


@both
def test_a_name_gets_its_network(name):
    assert models.get(name) is MAKERS[name]
