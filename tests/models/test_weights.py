import h5py
import keras
import numpy as np
import pytest
from keras import layers

from tests.models.test_inception_v3 import images
from tests.models.test_inception_v3 import moved as initialised
from tests.models.test_residual import scrambled
from tfadv import models
from tfadv.errors import RunError, UsageError
from tfadv.models.weights import load_weights

# How Keras 1 called the variables.
OLD = {"kernel": "W", "bias": "b", "gamma": "gamma", "beta": "beta"}
OLD = {**OLD, "moving_mean": "running_mean", "moving_variance": "running_std"}


def tiny(classes=3, filters=2, side=4):
    """Two convolutions, one with batch normalisation, and two dense layers."""
    inputs = keras.Input((side, side, 3))
    x = layers.Conv2D(filters, 3, name="conv1_1")(inputs)
    x = layers.Conv2D(2, 1, use_bias=False, name="conv2_1")(x)
    x = layers.BatchNormalization(name="conv2_1_bn")(x)
    x = layers.Dense(4, name="fc6")(layers.Flatten()(x))
    x = layers.Dense(classes, name="embedding")(x)
    return keras.Model(inputs, x, name="tiny")


def moved(model, seed=0):
    """`model` with other values everywhere; variances stay positive."""
    rng = np.random.default_rng(seed)
    for v in model.weights:
        v.assign(rng.uniform(0.1, 1, size=v.shape).astype(np.float32))
    return model


def values(model, *names):
    """{(layer, variable): array} of some layers, or of all."""
    return {
        (layer.name, v.name): np.array(v.numpy())
        for layer in model.layers
        for v in layer.weights
        if not names or layer.name in names
    }


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value, err_msg=str(key))


def stored(model, rename=lambda name: name):
    """[(name in the file, {variable: array})]; an empty one for a pool."""
    found = [
        (rename(layer.name), {v.name: np.array(v.numpy()) for v in layer.weights})
        for layer in model.layers
        if layer.weights
    ]
    return [("pool1", {}), *found]


def write(path, layers, *, old=False, inside=None, chunks=1):
    """An HDF5 file of weights as Keras 1 (`old`) or Keras 2 writes it."""
    with h5py.File(path, "w") as file:
        root = file.create_group(inside) if inside else file
        names = np.array([name.encode() for name, _ in layers])
        if chunks == 1:
            root.attrs["layer_names"] = names
        else:
            for i, part in enumerate(np.array_split(names, chunks)):
                root.attrs[f"layer_names{i}"] = part
        for name, variables in layers:
            group = root.create_group(name)
            called = {
                v: f"{name}_{OLD[v]}_1:0" if old else f"{name}/{v}:0" for v in variables
            }
            group.attrs["weight_names"] = np.array(
                [c.encode() for c in called.values()]
            )
            for variable, value in variables.items():
                group.create_dataset(called[variable], data=value)
    return path


def fc8(name):
    return "fc8" if name == "embedding" else name


def vggface(name):
    """A name of ResNet50-Face as keras-vggface has it."""
    if name == "embedding":
        return "classifier"
    name = name.replace("conv1_7x7_s2", "conv1/7x7_s2")
    return f"{name.removesuffix('_bn')}/bn" if name.endswith("_bn") else name


@pytest.fixture(scope="module")
def vgg():
    """Two of them."""
    keras.utils.set_random_seed(0)
    return [scrambled(models.vgg16_face((32, 32, 3), 5)) for _ in range(2)]


@pytest.mark.parametrize("old", [True, False])
def test_vgg_there_and_back(vgg, tmp_path, old):
    """Through both layouts of keras-vggface, whose last layer is fc8."""
    there, back = vgg
    for v in back.weights:
        v.assign(0.9 * v + 0.01)
    x = np.random.default_rng(0).uniform(size=(2, 32, 32, 3)).astype(np.float32)
    assert np.abs(there(x) - back(x)).max() > 0.1
    loaded = load_weights(back, write(tmp_path / "vgg.h5", stored(there, fc8), old=old))
    np.testing.assert_array_equal(back(x), there(x))
    assert len(loaded.taken) == 13 + 3 and loaded.left == ()
    assert loaded.taken[0] == "conv1_1" and loaded.taken[-1] == "embedding"


def test_the_layout(tmp_path):
    """What `write` writes, and so what is read, in words."""
    new, old = tmp_path / "new.h5", tmp_path / "old.h5"
    write(new, stored(tiny()))
    write(old, stored(tiny()), old=True)
    with h5py.File(new) as file:
        assert file["conv1_1/conv1_1/kernel:0"].shape == (3, 3, 3, 2)
        assert file["conv2_1_bn/conv2_1_bn/moving_variance:0"].shape == (2,)
    with h5py.File(old) as file:
        assert file["conv1_1/conv1_1_W_1:0"].shape == (3, 3, 3, 2)
        assert file["conv2_1_bn/conv2_1_bn_running_std_1:0"].shape == (2,)


def test_resnet_and_its_slashes(tmp_path):
    """Groups nest: conv1/7x7_s2/bn is within conv1/7x7_s2."""
    there = moved(models.resnet50_face((5, 5, 3), 2))
    path = write(tmp_path / "resnet.h5", stored(there, vggface))
    with h5py.File(path) as file:
        nested = "conv1/7x7_s2/bn/conv1/7x7_s2/bn/gamma:0"
        assert file[nested].shape == (64,)
        assert "conv2_1_1x1_reduce/bn/conv2_1_1x1_reduce/bn/gamma:0" in file
    back = models.resnet50_face((5, 5, 3), 3)
    before = values(back, "embedding")
    loaded = load_weights(back, path)
    assert loaded.left == ("embedding",) and len(loaded.taken) == 2 * 53
    assert_equal(values(back, *loaded.taken), values(there, *loaded.taken))
    assert_equal(values(back, "embedding"), before)


@pytest.mark.parametrize("logits", ["fc8", "classifier", "predictions", "embedding"])
@pytest.mark.parametrize("classes", [3, 7])
def test_the_logits(tmp_path, logits, classes):
    """Taken under every name where they fit, left where there are other classes."""
    there, back = moved(tiny(classes)), tiny()
    before = values(back, "embedding")
    layers = stored(there, lambda name: logits if name == "embedding" else name)
    loaded = load_weights(back, write(tmp_path / "w.h5", layers))
    others = ("conv1_1", "conv2_1", "conv2_1_bn", "fc6")
    if classes == 3:
        assert loaded == ((*others, "embedding"), ())
        assert_equal(values(back), values(there))
    else:
        assert loaded == (others, ("embedding",))
        assert_equal(values(back, *others), values(there, *others))
        assert_equal(values(back, "embedding"), before)


def test_a_file_without_the_top(tmp_path):
    there, back = moved(tiny()), tiny()
    before = values(back, "fc6", "embedding")
    loaded = load_weights(back, write(tmp_path / "notop.h5", stored(there)[:-2]))
    assert loaded.taken == ("conv1_1", "conv2_1", "conv2_1_bn")
    assert loaded.left == ("fc6", "embedding")
    assert_equal(values(back, "fc6", "embedding"), before)


@pytest.mark.parametrize(
    "options", [{"inside": "model_weights"}, {"chunks": 3}, {"chunks": 2, "old": True}]
)
def test_other_ways_in_which_keras_writes(tmp_path, options):
    """A model that was saved whole; names that are too long for one attribute."""
    there, back = moved(tiny()), tiny()
    load_weights(back, write(tmp_path / "w.h5", stored(there), **options))
    assert_equal(values(back), values(there))


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_a_file_that_keras_wrote(tmp_path):
    there, back = moved(tiny()), tiny()
    there.save(tmp_path / "model.h5")
    assert load_weights(back, tmp_path / "model.h5").left == ()
    assert_equal(values(back), values(there))


def test_the_spelling_of_the_first_release(tmp_path):
    there, back = moved(tiny()), tiny()
    layers = stored(there, lambda name: name.replace("conv2", "conc2"))
    loaded = load_weights(back, write(tmp_path / "w.h5", layers, old=True))
    assert "conv2_1" in loaded.taken and loaded.left == ()
    assert_equal(values(back), values(there))


@pytest.mark.parametrize("classes", [3, 7])
def test_a_keras_file(tmp_path, classes):
    there, back = moved(tiny(classes)), tiny()
    before = values(back, "embedding")
    there.save(tmp_path / "model.keras")
    loaded = load_weights(back, str(tmp_path / "model.keras"))
    assert_equal(values(back, *loaded.taken), values(there, *loaded.taken))
    if classes == 3:
        assert loaded.left == () and len(loaded.taken) == 5
    else:
        assert loaded.left == ("embedding",) and len(loaded.taken) == 4
        assert_equal(values(back, "embedding"), before)


def unnamed():
    """Three convolutions and their normalisations, called as Keras does."""
    x = inputs = keras.Input((4, 4, 2))
    for _ in range(3):
        x = layers.Conv2D(2, 1)(x)
        x = layers.BatchNormalization()(x)
    x = layers.Dense(3, name="embedding")(layers.Flatten()(x))
    return keras.Model(inputs, x)


def assert_same(model, other):
    """In order, whatever the layers are called."""
    for found, expected in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_names_that_keras_made(tmp_path):
    """They count on in a process."""
    there, back = moved(unnamed()), unnamed()
    names = [layer.name for layer in back.layers]
    assert names[1:3] == ["conv2d_3", "batch_normalization_3"]
    there.save(tmp_path / "model.keras")
    assert load_weights(back, tmp_path / "model.keras").left == ()
    assert_same(back, there)


def test_names_that_another_keras_made(tmp_path):
    """Keras 2 begins with conv2d_1; here conv2d_1 is the second."""
    there = moved(unnamed())
    keras.backend.clear_session()
    back = unnamed()
    assert [layer.name for layer in back.layers][1:4:2] == ["conv2d", "conv2d_1"]
    layers = stored(there)
    for i in range(3):
        layers[1 + 2 * i] = (f"conv2d_{i + 1}", layers[1 + 2 * i][1])
        layers[2 + 2 * i] = (f"batch_normalization_{i + 1}", layers[2 + 2 * i][1])
    assert load_weights(back, write(tmp_path / "w.h5", layers)).left == ()
    assert_same(back, there)


def test_nothing_happens_where_something_does_not_fit(tmp_path):
    there, back = moved(tiny(filters=5)), tiny()
    before = values(back)
    path = write(tmp_path / "w.h5", stored(there))
    with pytest.raises(UsageError) as error:
        load_weights(back, path)
    for part in (
        f"{path}: the layer conv1_1 has ",
        "kernel (3, 3, 3, 5), bias (5,) in the file",
        "kernel (3, 3, 3, 2), bias (2,) in tiny",
        "size of images",
    ):
        assert part in str(error.value)
    assert_equal(values(back), before)


def test_another_size_of_images(tmp_path):
    """fc6 takes 2x2x2 of 4x4, 4x4x2 of 6x6; convolutions before it fit."""
    back = tiny()
    before = values(back)
    moved(tiny(side=6)).save(tmp_path / "w.keras")
    message = r"fc6 has kernel \(32, 4\), bias \(4,\) in the file and kernel \(8, 4\)"
    with pytest.raises(UsageError, match=message):
        load_weights(back, tmp_path / "w.keras")
    assert_equal(values(back), before)


def test_a_variable_is_missing(tmp_path):
    layers = stored(tiny())
    del layers[1][1]["bias"]
    with pytest.raises(UsageError, match=r"conv1_1 has kernel \(3, 3, 3, 2\) in the"):
        load_weights(tiny(), write(tmp_path / "w.h5", layers))


@pytest.mark.parametrize("name", ["none.keras", "none.h5", "."])
def test_no_file(tmp_path, name):
    with pytest.raises(UsageError) as error:
        load_weights(tiny(), tmp_path / name)
    message = str(error.value)
    assert message.startswith(f"no weights at {tmp_path / name}: expected")
    for part in (
        "tfadv downloads nothing",
        "rcmalli_vggface_tf_vgg16.h5",
        "rcmalli_vggface_tf_resnet50.h5",
        "releases page of keras-vggface",
    ):
        assert part in message


def test_no_layer_fits(tmp_path):
    named = write(tmp_path / "w.h5", stored(tiny(), lambda name: f"other_{name}"))
    message = r"none of its layers \(other_conv1_1, other_conv2_1, other_conv2_1_bn, "
    message += r"\.\.\) fits one of tiny \(conv1_1, conv2_1, conv2_1_bn, \.\.\)"
    with pytest.raises(UsageError, match=message):
        load_weights(tiny(), named)
    models.small_cnn((8, 8, 1), 5, width=1).save(tmp_path / "w.keras")
    with pytest.raises(UsageError, match="none of its layers"):
        load_weights(tiny(), tmp_path / "w.keras")


def test_hdf5_that_is_not_of_weights(tmp_path):
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["conv1_1"] = np.zeros(3)
    with pytest.raises(UsageError, match=r"none of its layers \(none\) fits"):
        load_weights(tiny(), tmp_path / "data.h5")


def damage(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_half_a_file(tmp_path, suffix):
    path, back = tmp_path / f"w.{suffix}", tiny()
    before = values(back)
    if suffix == "keras":
        tiny().save(path)
    else:
        write(path, stored(tiny()))
    damage(path)
    with pytest.raises(RunError, match=f"cannot .*{path}"):
        load_weights(back, path)
    assert_equal(values(back), before)


def test_a_file_of_another_kind(tmp_path):
    (tmp_path / "notes.h5").write_text("no weights")
    with pytest.raises(RunError, match=r"cannot read the weights .*notes\.h5: "):
        load_weights(tiny(), tmp_path / "notes.h5")


def test_a_layer_is_missing(tmp_path):
    path = write(tmp_path / "w.h5", stored(tiny()))
    with h5py.File(path, "a") as file:
        del file["fc6"]
    with pytest.raises(RunError, match=r"cannot read the weights .*w\.h5: .*fc6"):
        load_weights(tiny(), path)


@pytest.fixture(scope="module")
def inception():
    """That of keras.applications without a top; names are numbered from anywhere."""
    keras.utils.set_random_seed(0)
    model = keras.applications.InceptionV3(
        weights=None, include_top=False, pooling="avg", input_shape=(75, 75, 3)
    )
    return initialised(model, 0)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize(
    ("network", "suffix"),
    [
        ("inception_v3", "h5"),
        ("inception_v3", "weights"),
        ("inception_v3_imagenet", "keras"),
    ],
)
def test_files_of_applications(tmp_path, inception, suffix, network):
    """Whole models, and the layout of the weights that Keras publishes."""
    path = tmp_path / f"inception.{'h5' if suffix == 'weights' else suffix}"
    if suffix == "weights":
        layers = stored(inception)
        order = np.random.default_rng(0).permutation(len(layers))
        if network == "inception_v3":
            layers = [layers[i] for i in order]
        write(path, layers)
    else:
        inception.save(path)
    model = models.get(network)((75, 75, 3), 3)
    loaded = load_weights(model, path)
    assert loaded.left == ("embedding",) and len(loaded.taken) == 2 * 94
    x = images(75, 75)
    maps = keras.Model(model.input, model.get_layer("avg_pool").output)
    expected = np.asarray(inception(2 * x - 1, training=False))
    size = np.abs(expected).max()
    assert np.ptp(expected[0]) > 0.1 and size < 1e3
    np.testing.assert_allclose(
        maps(x, training=False), expected, rtol=1e-4, atol=1e-5 * size
    )
