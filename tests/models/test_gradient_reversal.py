import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfadv.models import GradientReversal

X, W = np.array([3.0, -4.0], np.float32), np.array([2.0, 5.0], np.float32)


def gradients(*layers, x=X):
    """Of sum(w * R(x)) with respect to x and w; without R they are w and x."""
    x, w = tf.constant(x), tf.constant(W)
    with tf.GradientTape() as tape:
        tape.watch([x, w])
        h = x
        for layer in layers:
            h = layer(h)
        y = tf.reduce_sum(w * h)
    return tape.gradient(y, [x, w])


def test_a_product():
    """Before the layer the gradient is turned, behind it and forward nothing is."""
    dx, dw = gradients(GradientReversal())
    np.testing.assert_array_equal(dx, [-2, -5])
    np.testing.assert_array_equal(dw, X)


def test_the_factor():
    dx, dw = gradients(GradientReversal(factor=0.5))
    np.testing.assert_array_equal(dx, [-1, -2.5])
    np.testing.assert_array_equal(dw, X)


def test_two_in_a_row():
    """(-1)(-1) = 1 and (-.5)(-3) = 1.5."""
    dx, _ = gradients(GradientReversal(), GradientReversal())
    np.testing.assert_array_equal(dx, W)
    dx, _ = gradients(GradientReversal(factor=0.5), GradientReversal(factor=3.0))
    np.testing.assert_array_equal(dx, 1.5 * W)


def test_nothing_passes_by_a_factor_of_zero():
    dx, dw = gradients(GradientReversal(factor=0.0))
    np.testing.assert_array_equal(dx, [0, 0])
    np.testing.assert_array_equal(dw, X)


@pytest.mark.parametrize("shape", [(), (3,), (2, 1, 4, 3)])
def test_the_identity(shape):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    y = GradientReversal(factor=0.3)(x)
    np.testing.assert_array_equal(y, x)
    assert y.shape == shape


def test_the_identity_of_what_is_not_finite():
    x = np.array([np.inf, -np.inf, np.nan, 3e38], np.float32)
    np.testing.assert_array_equal(GradientReversal(factor=2.0)(x), x)


def test_a_schedule_in_a_compiled_function():
    """One trace sees what is assigned after it."""
    layer, traces = GradientReversal(), []

    @tf.function
    def compiled(x):
        traces.append(1)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.reduce_sum(W * layer(x))
        return tape.gradient(y, x)

    for factor in (1.0, 0.25, 0.0):
        layer.factor.assign(factor)
        np.testing.assert_array_equal(compiled(tf.constant(X)), -factor * W)
    assert len(traces) == 1


def small_model(factor=1.0):
    """x -> w R(v x) with v = 3 and w = 2."""

    def times(value):
        start = keras.initializers.Constant(value)
        return keras.layers.Dense(1, use_bias=False, kernel_initializer=start)

    inputs = keras.Input((1,))
    h = GradientReversal(factor=factor, name="reversal")(times(3.0)(inputs))
    return keras.Model(inputs, times(2.0)(h))


def test_fit():
    """Loss (w v)^2: dL/dw = 2 (w v) v = 36; of dL/dv = 2 (w v) w = 24 -1/2 arrives."""
    model = small_model(0.5)
    model.compile(keras.optimizers.SGD(0.01), "mse")
    model.fit(np.ones((1, 1)), np.zeros((1, 1)), verbose=0)
    v, w = (float(np.squeeze(k)) for k in model.trainable_variables)
    assert w == pytest.approx(2 - 0.01 * 36, rel=1e-6)
    assert v == pytest.approx(3 + 0.01 * 12, rel=1e-6)
    assert float(model.get_layer("reversal").factor) == 0.5


def test_the_factor_is_a_variable_that_is_not_trained():
    layer = GradientReversal(factor=0.5)
    assert layer.trainable_variables == []
    (factor,) = layer.non_trainable_variables
    assert (factor.shape, factor.dtype, float(factor)) == ((), "float32", 0.5)


def test_reloaded(tmp_path):
    """What was assigned comes back; the configuration keeps the first value."""
    model = small_model(0.5)
    model.get_layer("reversal").factor.assign(0.25)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert float(loaded.get_layer("reversal").factor) == 0.25
    assert loaded.get_layer("reversal").get_config()["factor"] == 0.5
    x = tf.constant([[5.0]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = loaded(x)
    # w v = 6.
    np.testing.assert_allclose(y, [[30]])
    np.testing.assert_allclose(tape.gradient(y, x), [[-0.25 * 6]])


LOAD = """
import sys
sys.modules["tfadv"] = None  # From here on, importing it fails.
import numpy as np, tensorflow as tf
loaded = tf.saved_model.load(sys.argv[1])
x = tf.constant([[5.0]])
with tf.GradientTape() as tape:
    tape.watch(x)
    y = loaded.serve(x)
np.save(sys.argv[2], [float(y[0, 0]), float(tape.gradient(y, x)[0, 0])])
"""


def test_a_saved_model_needs_no_tfadv(tmp_path):
    """Its gradient is turned, too, by the factor at the time of the export."""
    model = small_model(0.5)
    model.get_layer("reversal").factor.assign(0.25)
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        "serve", lambda x: model(x), [tf.TensorSpec((None, 1), tf.float32)]
    )
    archive.write_out(str(tmp_path / "saved"), verbose=False)
    command = [sys.executable, "-c", LOAD, tmp_path / "saved", tmp_path / "found.npy"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), [30, -0.25 * 6])


def test_half_precision():
    """The factor stays float32 when the images are not."""
    layer = GradientReversal(factor=0.5, dtype="mixed_float16")
    x = tf.constant(X, tf.float16)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    assert y.dtype == tf.float16
    gradient = tape.gradient(y, x)
    assert gradient.dtype == tf.float16
    np.testing.assert_array_equal(gradient, [-0.5, -0.5])
    assert layer.factor.dtype == "float32"


def test_two_replicas(mirrored):
    with mirrored.scope():
        layer = GradientReversal()
    layer.factor.assign(0.25)

    @tf.function
    def step():
        x = tf.constant(X)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.reduce_sum(W * layer(x))
        return tape.gradient(y, x)

    found = mirrored.experimental_local_results(mirrored.run(step))
    assert len(found) == 2
    for gradient in found:
        np.testing.assert_array_equal(gradient, -0.25 * W)


@pytest.mark.parametrize("factor", [-1.0, -1e-9, float("inf"), float("nan")])
def test_impossible_factors(factor):
    with pytest.raises(ValueError, match=f"`factor` must be finite.*received {factor}"):
        GradientReversal(factor=factor)
