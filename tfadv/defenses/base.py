"""What the defences share. One can do without: any `train_step` is a defence."""

import keras
import tensorflow as tf

from tfadv import losses
from tfadv.attacks import core

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        "tfadv trains on keras with the TensorFlow backend; received the backend "
        f"{keras.backend.backend()!r}. Unset KERAS_BACKEND, or set it to 'tensorflow'."
    )


class MeanOrNaN(keras.metrics.Mean):
    """A mean that is NaN while nothing was counted, where Keras would say 0."""

    def result(self):
        return tf.cast(self.total, tf.float32) / tf.cast(self.count, tf.float32)


class Defense(keras.Model):
    """A training rule for a classifier, as a Keras model.

    A subclass overrides `train_step` with the paper's algorithm. The parts it is made
    of: `unpack` for the batch, `logits` to craft on, `regularized` to complete a loss
    under the tape, `descend` for the update, `finish` for the metrics. `compile`, `fit`
    and `evaluate` are Keras' own; the loss is the defence's, so `compile` takes none.

    Under `tf.distribute` a step sees the batch of one replica, its losses are means
    over it, and the gradients are averaged over the replicas.

    Args:
        classifier: `keras.Model` from x [n, h, w, c] in [0, 1] to logits [n, K].
            What is saved and served; the defence itself is needed in training only.
        attack: the attack that the defence trains against, and that `evaluate`
            measures, or None.
        label_smoothing: s of `losses.soft_labels`, in training only; 0 for hard
            labels. The label gets 1 - s + s / K: papers that give it 1 - delta mean
            s = delta K / (K - 1), so 3/4 of 10 classes is "5/18".
        seed: int; the noise of a step is a function of (seed, step, replica).

    Attributes:
        keeps_classifier: whether the classifier is a finished one, which stays as it
            is while something else is trained.
    """

    keeps_classifier = False

    def __init__(
        self,
        classifier,
        *,
        attack=None,
        label_smoothing: float = 0.0,
        seed: int = 0,
        name=None,
    ):
        super().__init__(name=name)
        if not 0 <= label_smoothing < 1:
            raise ValueError(
                f"`label_smoothing` must be in [0, 1); received {label_smoothing}"
            )
        self.classifier = classifier
        self.attack = attack
        self.label_smoothing = label_smoothing
        self.seed = seed
        self.accuracy = MeanOrNaN(name="accuracy")
        if attack is not None:
            self.adversarial_accuracy = MeanOrNaN(name="adversarial_accuracy")

    def build(self, input_shape):
        if not self.classifier.built:
            self.classifier.build(input_shape)

    def call(self, x, training=None):
        return self.classifier(x, training=training)

    def compile(self, optimizer="sgd", *, metrics=None, jit_compile=False, **kwargs):
        """As `keras.Model.compile`, without `loss`: a defence brings its own.

        XLA stays off unless asked for: on CPUs it makes these steps slower.
        """
        if kwargs.get("loss") is not None:
            raise ValueError(
                f"{type(self).__name__} defines its own loss: leave `loss` out of "
                f"`compile`; received {kwargs['loss']!r}"
            )
        super().compile(
            optimizer=optimizer, metrics=metrics, jit_compile=jit_compile, **kwargs
        )

    def unpack(self, data):
        """x [n, h, w, c] float32 and y [n] int32 of a batch.

        Raises:
            ValueError: sample weights, images that are not floating point, or labels
                that are not one integer an image.
        """
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if sample_weight is not None:
            raise ValueError(
                f"{type(self).__name__} weighs examples itself: pass (x, y) without "
                "sample or class weights"
            )
        if not x.dtype.is_floating:
            raise ValueError(
                f"images must be floating point in [0, 1]; received {x.dtype.name} "
                "(divide by 255)"
            )
        if y is None or (y.shape.rank > 1 and y.shape[-1] != 1):
            raise ValueError(
                "labels must be integers of shape [n]; received "
                f"{None if y is None else y.shape} "
                "(of one-hot labels take the argmax)"
            )
        return tf.cast(x, tf.float32), tf.cast(tf.reshape(y, [-1]), tf.int32)

    @property
    def networks(self):
        """All networks that are trained, `classifier` first: list of `keras.Model`."""
        return [self.classifier]

    @property
    def trained_variables(self):
        """What `optimizer` moves."""
        return self.classifier.trainable_variables

    @property
    def continued(self):
        """dict from attribute to the networks that `train.init_from` takes along.

        All that `optimizer` moves must be in it: its slots are taken, too.
        """
        return {"classifier": self.classifier}

    @property
    def moved(self):
        """[(optimizer, what it moves)] of all optimizers."""
        return [(self.optimizer, self.trained_variables)]

    @property
    def companions(self):
        """dict from name to the other networks that training leaves to be saved."""
        return {}

    @property
    def needs_float32(self):
        """Why it cannot be trained in lower precision, in words, or None."""
        return None

    def crafting(self, data):
        """What `craft` returns in a step on this batch, which a profile times apart.

        None where a step has no such part, or where it cannot be told from the rest.
        """
        return None

    def check_batch(self, batch_size, replicas=1):
        """ValueError where the defence cannot train on batches of this size.

        Args:
            batch_size: int, images in a step over all replicas.
            replicas: int.
        """
        if batch_size % replicas:
            raise ValueError(
                f"the batch size must be a multiple of the {replicas} replicas; "
                f"received {batch_size}"
            )

    def logits(self, x):
        """Logits in inference mode: what attacks see. Moves no statistics."""
        return self.classifier(x, training=False)

    def step_seed(self, purpose, replica=None):
        """A seed [2] for one purpose in this step, on this replica (or the given)."""
        if replica is None:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        seed = core.fold((self.seed, purpose), self.optimizer.iterations)
        return core.fold(seed, replica)

    def targets(self, x, y):
        """The labels trained on: y [n], or with label smoothing `soft_labels` [n, K].

        For attacks that leave or reach what the loss calls true.
        """
        if not self.label_smoothing:
            return y
        # Not `compute_output_shape`, which subclassed models lack.
        outputs = self.classifier.compute_output_spec(keras.KerasTensor(x.shape))
        classes = outputs.shape[-1]
        return losses.soft_labels(y, classes, self.label_smoothing)

    def cross_entropy(self, y, logits):
        """J(y, z) [n], with the defence's label smoothing."""
        if self.label_smoothing:
            y = losses.soft_labels(y, logits.shape[-1], self.label_smoothing)
        return losses.cross_entropy(y, logits)

    def regularized(self, loss):
        """`loss` and the regularisers of the layers (weight decay)."""
        return tf.add_n([loss, *self.classifier.losses])

    def descend(self, tape, loss, variables=None, optimizer=None):
        """One optimizer step on the mean of `loss` over the replicas."""
        optimizer = optimizer or self.optimizer
        variables = variables or self.trained_variables
        # Keras' optimizers sum over replicas.
        replicas = self.distribute_strategy.num_replicas_in_sync
        share = None if replicas == 1 else tf.constant(1 / replicas, loss.dtype)
        gradients = tape.gradient(loss, variables, output_gradients=share)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))

    def finish(self, loss, *, clean=None, adversarial=None, adversarial_weight=1.0):
        """Updates the metrics and returns them by name.

        Args:
            loss: scalar.
            clean: (y, logits) of clean examples, or None.
            adversarial: (y, logits) of adversarial ones, or None.
            adversarial_weight: 0 where those are not adversarial yet.
        """
        tracker = next(m for m in self.metrics if m.name == "loss")
        tracker.update_state(loss)
        if adversarial is not None:
            # One weight an image: Keras reads a scalar as the weight of a batch.
            correct = _is_correct(*adversarial)
            self.adversarial_accuracy.update_state(
                correct, sample_weight=adversarial_weight * tf.ones_like(correct)
            )
        if clean is not None:
            self.accuracy.update_state(_is_correct(*clean))
        # The metrics of `compile` count what was trained on if nothing was clean.
        return self.compute_metrics(None, *(clean or adversarial))

    def validation_loss(self, x, y):
        """Scalar, in inference mode: what early stopping watches. Here mean J(x, y)."""
        return tf.reduce_mean(losses.cross_entropy(y, self.logits(x)))

    def test_step(self, data):
        """Loss and accuracy on clean images, and accuracy under `attack`."""
        x, y = self.unpack(data)
        logits = self.logits(x)
        adversarial = None
        if self.attack is not None:
            x_adv = self.attack(self.logits, x, y, seed=(self.seed, 0))
            adversarial = (y, self.logits(x_adv))
        loss = losses.cross_entropy(y, logits)
        return self.finish(loss, clean=(y, logits), adversarial=adversarial)


def with_features(classifier, find, refusal):
    """The classifier as a function that tells inner features, too, and those.

    A function and not a model, which Keras would count among a defence's layers.

    Args:
        classifier: functional `keras.Model`.
        find: (classifier) -> its symbolic features.
        refusal: (names of its layers) -> what to say where it is not functional or has
            no such layer.

    Returns:
        ((x, training=True) -> (logits, features); the symbolic features).

    Raises:
        ValueError: `refusal`.
    """
    try:
        features = find(classifier)
        # As a list of one it warns of images that are no list.
        both = keras.Model(classifier.inputs[0], [classifier.outputs[0], features])
    except (AttributeError, ValueError):
        names = ", ".join(layer.name for layer in classifier.layers)
        raise ValueError(refusal(names or "(none yet)")) from None
    return lambda x, training=True: both(x, training=training), features


def _is_correct(y, logits):
    predicted = tf.argmax(logits, axis=-1, output_type=tf.int32)
    # Not `==`, which loses the rank where only one of the two sizes is known.
    return tf.cast(tf.equal(predicted, tf.cast(y, tf.int32)), tf.float32)
