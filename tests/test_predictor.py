import keras
import numpy as np
import pytest
import tensorflow as tf

from tfadv import attacks, models, predictor
from tfadv.errors import RunError, UsageError
from tfadv.export import export
from tfadv.predictor import Adapter


@pytest.fixture
def classifier():
    return models.small_cnn((8, 8, 1), 10, width=2)


@pytest.fixture
def x():
    return tf.constant(np.random.default_rng(0).random((4, 8, 8, 1), np.float32))


def save_keras(model, path):
    path = path.with_suffix(".keras")
    model.save(path)
    return path


def save_h5(model, path):
    path = path.with_suffix(".h5")
    model.save(path)
    return path


def export_tfadv(model, path):
    export(model, path)
    return path


def export_keras(model, path):
    model.export(path, verbose=False)
    return path


def export_module(model, path):
    """A SavedModel by hand: one signature with names of its own."""
    module = tf.Module()
    module.model = model
    spec = tf.TensorSpec([None, *model.input_shape[1:]], tf.float32, name="pixels")
    function = tf.function(lambda pixels: {"scores": model(pixels)})
    signature = function.get_concrete_function(spec)
    tf.saved_model.save(module, str(path), signatures={"score": signature})
    return path


SAVERS = [save_keras, save_h5, export_tfadv, export_keras, export_module]


@pytest.mark.parametrize("save", SAVERS)
def test_every_kind_of_file_gives_the_logits(classifier, x, tmp_path, save):
    predict = predictor.load(save(classifier, tmp_path / "model"))
    np.testing.assert_allclose(predict(x), classifier(x), atol=1e-6)
    predictor.check_outputs(predict, x, 10)
    # An attack sees the same gradients.
    y = tf.constant([0, 1, 2, 3])
    attack = attacks.StepFGSM(eps=0.1)
    np.testing.assert_array_equal(attack(predict, x, y), attack(classifier, x, y))


# layers.Rescaling undoes what the adapter does: 255 x, 2 x - 1.
@pytest.mark.parametrize("save", SAVERS)
@pytest.mark.parametrize(
    ("input_range", "scale", "offset"),
    [((0.0, 255.0), 1 / 255, 0.0), ((-1.0, 1.0), 0.5, 0.5)],
)
def test_input_range(classifier, x, tmp_path, save, input_range, scale, offset):
    rescale = keras.layers.Rescaling(scale, offset)
    foreign = keras.Sequential([keras.Input((8, 8, 1)), rescale, classifier])
    path = save(foreign, tmp_path / "model")
    predict = predictor.load(path, Adapter(input_range=input_range))
    np.testing.assert_allclose(predict(x), classifier(x), atol=1e-5)
    assert np.abs(predictor.load(path)(x) - classifier(x)).max() > 0.01


@pytest.mark.parametrize("save", [save_keras, export_keras, export_module])
def test_probabilities(classifier, x, tmp_path, save):
    foreign = keras.Sequential([classifier, keras.layers.Softmax()])
    path = save(foreign, tmp_path / "model")
    with pytest.raises(UsageError, match="--outputs=probabilities"):
        predictor.check_outputs(predictor.load(path), x, 10)
    predict = predictor.load(path, Adapter(outputs="probabilities"))
    predictor.check_outputs(predict, x, 10)
    # log p = z - log sum exp z.
    z = classifier(x).numpy().astype(np.float64)
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(predict(x), log_p, atol=1e-5)


def test_a_probability_of_zero_has_a_finite_logit():
    predict = Adapter(outputs="probabilities").wrap(lambda x: x)
    np.testing.assert_allclose(predict([[0.0, 1.0]]), [[np.log(1e-12), 0.0]], rtol=1e-6)


@pytest.mark.parametrize(
    "arguments",
    [
        {"input_range": (1.0, 1.0)},
        {"input_range": (255.0, 0.0)},
        {"input_range": (0.0,)},
        {"input_range": (0.0, 1.0, 2.0)},
        {"outputs": "scores"},
    ],
)
def test_adapter_refuses(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        Adapter(**arguments)


@pytest.mark.parametrize("name", ["absent.keras", "absent", "absent/model.keras"])
def test_nothing_there(tmp_path, name):
    with pytest.raises(UsageError, match=f"no model at .*{name}"):
        predictor.load(tmp_path / name)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def scramble(path):
    path.write_bytes(bytes(path.stat().st_size))


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("save", "part"),
    [
        (save_keras, ""),
        (export_tfadv, "saved_model.pb"),
        (export_tfadv, "variables/variables.index"),
        (export_tfadv, "variables/variables.data-00000-of-00001"),
    ],
)
@pytest.mark.parametrize("damage", [cut, scramble, empty])
def test_damaged_files(classifier, tmp_path, save, part, damage):
    path = save(classifier, tmp_path / "model")
    damage(path / part)
    with pytest.raises(RunError, match=f"cannot load the model {path}: .") as caught:
        predictor.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", ["saved_model.pb", "variables"])
def test_missing_parts(classifier, tmp_path, part):
    path = export_tfadv(classifier, tmp_path / "model")
    (path / part).rename(tmp_path / "elsewhere")
    with pytest.raises(RunError, match=f"cannot load the model {path}: ."):
        predictor.load(path)


def test_an_empty_directory_is_no_model(tmp_path):
    with pytest.raises(RunError, match="cannot load the model"):
        predictor.load(tmp_path)


def test_signatures_that_cannot_serve(tmp_path):
    module = tf.Module()
    module.serve = tf.function(
        lambda image: tf.cast(image, tf.float32)[:, 0, 0],
        input_signature=[tf.TensorSpec([None, 8, 8, 1], tf.uint8)],
    )
    tf.saved_model.save(module, str(tmp_path), signatures={"pixels": module.serve})
    with pytest.raises(UsageError, match=r"one float image tensor.*Signatures: pixels"):
        predictor.load(tmp_path)


@pytest.mark.parametrize(
    ("predict", "message"),
    [
        (lambda x: tf.zeros([len(x), 7]), r"returns \(4, 7\); expected \[n, 10\]"),
        (lambda x: tf.zeros([len(x)]), r"returns \(4,\); expected \[n, 10\]"),
        (lambda x: tf.fill([len(x), 10], 0.1), "--outputs=probabilities"),
        (
            lambda x: tf.matmul(tf.reshape(x, [len(x), -1]), tf.zeros([5, 10])),
            r"does not take images of shape \(8, 8, 1\)",
        ),
    ],
)
def test_check_outputs_refuses(x, predict, message):
    with pytest.raises(UsageError, match=message):
        predictor.check_outputs(predict, x, 10)


@pytest.mark.parametrize("save", SAVERS)
@pytest.mark.parametrize("size", [9, 12])
def test_check_outputs_refuses_other_sizes(classifier, tmp_path, save, size):
    # The max pool takes 9 to 4 as it takes 8, so the arithmetic alone would let 9 pass.
    predict = predictor.load(save(classifier, tmp_path / "model"))
    message = rf"does not take images of shape \({size}, {size}, 1\)"
    with pytest.raises(UsageError, match=message):
        predictor.check_outputs(predict, tf.zeros([2, size, size, 1]), 10)


def test_check_outputs_takes_positive_logits(x):
    predictor.check_outputs(lambda x: tf.fill([len(x), 10], 1.0), x, 10)
