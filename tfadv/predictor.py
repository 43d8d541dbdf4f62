"""Any saved classifier as `predict: x -> logits`, trained by tfadv or not."""

import dataclasses
import pathlib
from collections.abc import Callable

import keras
import tensorflow as tf

from tfadv.errors import RunError, UsageError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adapter:
    """How a foreign model's interface becomes x in [0, 1] -> logits.

    Args:
        input_range: (lo, hi) of the images the model takes; x becomes
            lo + x * (hi - lo).
        outputs: `"logits"`, or `"probabilities"`, whose logarithm serves as logits.

    Raises:
        ValueError: an empty range, another kind of outputs.
    """

    input_range: tuple[float, float] = (0.0, 1.0)
    outputs: str = "logits"

    def __post_init__(self):
        if len(self.input_range) != 2 or self.input_range[0] >= self.input_range[1]:
            raise ValueError(
                f"`input_range` must be two numbers lo < hi; received {self.input_range}"
            )
        if self.outputs not in ("logits", "probabilities"):
            raise ValueError(
                "`outputs` must be 'logits' or 'probabilities'; received "
                f"{self.outputs!r}"
            )

    def wrap(self, model):
        """x [n, h, w, c] in [0, 1] -> logits [n, K], from `model`'s own convention."""
        lo, hi = self.input_range

        def predict(x):
            out = model(x if (lo, hi) == (0.0, 1.0) else lo + x * (hi - lo))
            if self.outputs == "logits":
                return out
            return tf.math.log(tf.maximum(out, 1e-12))

        return predict


def load(path, adapter=None):
    """A model file or directory as a predict function.

    Args:
        path: a `.keras` or `.h5` file, or a SavedModel directory (of tfadv, of Keras'
            `export`, or any with a signature of one float image tensor).
        adapter: `Adapter`.

    Returns:
        predict: x [n, h, w, c] float32 in [0, 1] -> logits [n, K].

    Raises:
        UsageError: there is nothing at `path`, or no usable signature.
        RunError: it cannot be loaded.
    """
    path = pathlib.Path(path)
    adapter = adapter or Adapter()
    if not path.exists():
        raise UsageError(f"no model at {path}: expected a .keras file or a SavedModel")
    try:
        if path.is_dir():
            model = _from_saved_model(tf.saved_model.load(str(path)), path)
        else:
            keras_model = keras.models.load_model(path, compile=False)

            def model(x):
                return keras_model(x, training=False)

    except (OSError, ValueError, TypeError, tf.errors.OpError) as error:
        if isinstance(error, UsageError):
            raise
        line = str(error).strip().splitlines()[0]
        raise RunError(f"cannot load the model {path}: {line}") from None
    return adapter.wrap(model)


def _from_saved_model(loaded, path):
    signatures = dict(loaded.signatures)
    for name in ("from_float", "serving_default", "serve", *signatures):
        if name not in signatures:
            continue
        signature = signatures[name]
        inputs = signature.structured_input_signature[1]
        if len(inputs) != 1:
            continue
        ((argument, spec),) = inputs.items()
        outputs = signature.structured_outputs
        if spec.dtype.is_floating and ("logits" in outputs or len(outputs) == 1):
            key = "logits" if "logits" in outputs else next(iter(outputs))

            # The closure keeps `loaded` alive: its variables go with it.
            def predict(x, signature=signature, keep=loaded):
                del keep
                return signature(**{argument: x})[key]

            return predict
    raise UsageError(
        f"{path}: no signature takes one float image tensor and returns `logits` or a "
        f"single output. Signatures: {', '.join(signatures) or 'none'}."
    )


def check_outputs(predict, x, num_classes):
    """UsageError where predict's outputs are no logits of `num_classes` classes.

    Args:
        predict: x -> logits.
        x: [n, h, w, c], a few images.
        num_classes: K of the data set.
    """
    try:
        logits = tf.convert_to_tensor(predict(x))
    except (ValueError, TypeError, tf.errors.OpError) as error:
        line = str(error).strip().splitlines()[0]
        raise UsageError(
            f"the model does not take images of shape {tuple(x.shape[1:])}: {line} "
            "(crop with --set data.crop=24, or choose the data set it was trained on)"
        ) from None
    if logits.shape.rank != 2 or logits.shape[1] != num_classes:
        raise UsageError(
            f"the model returns {tuple(logits.shape)}; expected [n, {num_classes}], one "
            "logit for each class of the data set"
        )
    sums = tf.reduce_sum(logits, axis=1)
    if tf.reduce_all(logits >= 0) and tf.reduce_all(tf.abs(sums - 1) < 1e-3):
        raise UsageError(
            "the model returns probabilities where logits are expected: attacks on them "
            "would see vanishing gradients. Pass --outputs=probabilities."
        )
