"""The layer between features and a classifier that they are to confuse."""

import math

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="tfadv")
class GradientReversal(keras.layers.Layer):
    """The identity, whose gradient is turned round: R(x) = x, dR/dx = -factor I.

    A classifier behind it learns to tell apart what the network before it learns to
    make alike, both by descent on one loss. In Liao 2018 it stands between the features
    of a network and a classifier of their domain, clean or adversarial.

    `factor` is a float32 variable that is not trained. `layer.factor.assign` changes
    it, for a schedule, in compiled functions as well; it is saved with the weights. The
    configuration of the layer keeps the first value.

    A model with this layer is loaded after `import tfadv.models`; exported as a
    SavedModel it needs no tfadv.

    Args:
        factor: 0 or more; 0 lets no gradient pass.
        **kwargs: of `keras.layers.Layer`.

    Call: x of any shape and any floating type -> x.

    Raises:
        ValueError: a factor that is negative, infinite or NaN. What is assigned later
            is not checked.

    Source: Ganin & Lempitsky 2015, eq. 7 and 8 (there factor is lambda).
    """

    def __init__(self, *, factor: float = 1.0, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= factor < math.inf:
            raise ValueError(
                "`factor` must be finite and not negative, because the layer itself "
                f"turns the sign of the gradient; received {factor}"
            )
        self.first_factor = float(factor)
        self.factor = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(self.first_factor),
            dtype="float32",
            trainable=False,
            autocast=False,
            name="factor",
        )
        self.supports_masking = True

    def call(self, inputs):
        factor = tf.convert_to_tensor(self.factor)

        @tf.custom_gradient
        def reverse(x):
            def gradient(upstream):
                return -tf.cast(factor, upstream.dtype) * upstream

            return tf.identity(x), gradient

        return reverse(inputs)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "factor": self.first_factor}
