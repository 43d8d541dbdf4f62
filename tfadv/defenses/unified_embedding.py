"""Na, Ko, Mukhopadhyay 2018: adversarial training with a unified embedding."""

from typing import Literal

import keras
import tensorflow as tf

from tfadv import losses
from tfadv.defenses.mixed_batch import MixedBatch


class UnifiedEmbedding(MixedBatch):
    """Adversarial images are added to the batch and pulled to their clean twins.

        read n images, add the adversarial images of the first k (current weights)
        L = [sum_clean J(x, y) + lambda * sum_adv J(x_adv, y)] / [n + lambda * k]
            + lambda2 * sum_{i < k} d(E(x_adv_i), E(x_i))
        one step on L, the n + k images in one batch

    The second term is a **sum** over the pairs of the whole batch and over the
    components of the embedding E, so lambda2 means another thing for another k.

    | mode               | which embedding moves                                     |
    |--------------------|-----------------------------------------------------------|
    | `bidirectional`    | both                                                      |
    | `pivot`            | the adversarial one: E(x) is a pivot, held in a           |
    |                    | non-trainable variable that each step assigns             |
    | `pivot_released`   | both: the authors' code loses the variable again, so what |
    |                    | it calls pivot is `bidirectional`                         |

    A bare pivot runs away: adversarial embeddings are the shorter ones, the pull
    lengthens them, and with the shared weights it lengthens the clean ones too, which
    pull all the more. `cap_pivot` takes just that away: an adversarial embedding is
    pulled to the direction of its pivot, and towards its length only if that is less,

        p_i = E(x_i) * min(1, |E(x_adv_i)| / |E(x_i)|),  a constant.

    Args:
        classifier, attack, k, adversarial_weight, eps_law, delay, stored,
            label_smoothing, seed: see `MixedBatch`; k defaults to the whole batch, the
            law to the `"clipped"` one of this paper.
        mode: see above.
        embedding_weight: lambda2.
        norm, distance_half: of d; see `losses.embedding_distance`.
        cap_pivot: whether `pivot` pulls to p_i, which is stable, or to E(x_i), the bare
            formula.
        embedding: name of the layer whose output is E; None means the logits.

    Raises:
        ValueError: as `MixedBatch`; a negative lambda2, no such layer.

    Source: Na et al. 2018, section 3.2, eq. 3 and footnote 4 (n = k = 64, lambda =
    0.3, lambda2 = 1e-4).
    """

    def __init__(
        self,
        classifier,
        *,
        attack,
        mode: Literal["bidirectional", "pivot", "pivot_released"] = "pivot",
        embedding_weight: float = 1e-4,
        norm: Literal[1, 2] = 2,
        distance_half: bool = True,
        cap_pivot: bool = True,
        embedding: str | None = None,
        k: int | None = None,
        adversarial_weight: float = 0.3,
        eps_law: str = "clipped",
        delay: int = 0,
        stored: int = 0,
        label_smoothing: float = 0.0,
        seed: int = 0,
        name=None,
    ):
        super().__init__(
            classifier,
            attack=attack,
            k=k,
            adversarial_weight=adversarial_weight,
            eps_law=eps_law,
            delay=delay,
            stored=stored,
            label_smoothing=label_smoothing,
            seed=seed,
            name=name,
        )
        if embedding_weight < 0:
            raise ValueError(
                f"`embedding_weight` must not be negative; received {embedding_weight}"
            )
        self.mode = mode
        self.embedding_weight = embedding_weight
        self.norm = norm
        self.distance_half = distance_half
        self.cap_pivot = cap_pivot
        self.embedding = embedding
        # `fit` calls no `build`; a classifier without shapes has to wait for one.
        if classifier.built:
            self.build(classifier.input_shape)

    def default_k(self, m):
        return m

    def build(self, input_shape):
        super().build(input_shape)
        self._embed, shape = _embedder(self.classifier, self.embedding)
        if self.mode == "pivot":
            # Its length is that of the batch; its values live for one step.
            self.pivot = tf.Variable(
                tf.zeros([1, *shape]), shape=[None, *shape], trainable=False
            )

    def train_step(self, data):
        x, y = self.unpack(data)
        _, k = self.split(x)
        delayed = self.delayed()
        x_adv = self.craft(data, k, delayed)
        y_both = tf.concat([y[:k], y], 0)
        with tf.GradientTape() as tape:
            logits, embedding = self._embed(tf.concat([x_adv, x], 0), training=True)
            distance = losses.embedding_distance(
                embedding[:k],
                self._target(embedding[k : 2 * k], embedding[:k]),
                norm=self.norm,
                half=self.distance_half,
            )
            # `descend` averages over the replicas; this is the sum over all of them.
            replicas = self.distribute_strategy.num_replicas_in_sync
            loss = self.regularized(
                self.mean_loss(y_both, logits, k, delayed)
                + self.embedding_weight * replicas * tf.reduce_sum(distance)
            )
        self.descend(tape, loss)
        return self.finish(
            loss,
            clean=(y, logits[k:]),
            adversarial=(y[:k], logits[:k]),
            adversarial_weight=1.0 - tf.cast(delayed, tf.float32),
        )

    def _target(self, clean, adversarial):
        """What the adversarial embeddings are pulled to."""
        if self.mode != "pivot":
            return clean
        self.pivot.assign(clean)
        pivot = self.pivot.read_value()
        if not self.cap_pivot:
            return pivot
        ratio = tf.math.divide_no_nan(_length(adversarial), _length(pivot))
        return pivot * tf.stop_gradient(tf.minimum(ratio, 1.0))


def _length(embedding):
    """|E| of each example, [n, 1, ...]."""
    axes = list(range(1, embedding.shape.rank))
    return tf.sqrt(tf.reduce_sum(tf.square(embedding), axis=axes, keepdims=True))


def _embedder(classifier, layer):
    """A function (x, training) -> (logits, embedding), and the embedding's shape.

    A function and not a model, which Keras would count among the defence's layers.
    """
    if layer is None:

        def logits_only(x, training):
            logits = classifier(x, training=training)
            return logits, logits

        return logits_only, classifier.output_shape[1:]
    names = [one.name for one in classifier.layers]
    if layer not in names:
        raise ValueError(
            f"`embedding` names a layer of the classifier; received {layer!r}. "
            f"Layers: {', '.join(names)}"
        )
    output = classifier.get_layer(layer).output
    both = keras.Model(classifier.inputs, [classifier.outputs[0], output])
    return lambda x, training: both(x, training=training), output.shape[1:]
