"""Kurakin, Goodfellow, Bengio 2017: adversarial machine learning at scale."""

import math
from typing import Literal

import keras
import tensorflow as tf

from tfadv.attacks import core
from tfadv.defenses.base import with_features
from tfadv.defenses.mixed_batch import MixedBatch
from tfadv.models.auxiliary import auxiliary_head


class Kurakin(MixedBatch):
    """Algorithm 1: part of every batch is replaced by its adversarial images.

        read m images, of which the first k become adversarial (current weights)
        L = [sum_clean J(x, y) + lambda * sum_adv J(x_adv, y)] / [(m - k) + lambda * k]
        one step on L, the m images in one batch

    Every adversarial image gets an eps of its own, drawn by `eps_law` up to the
    attack's eps. J takes the true label throughout. Clean and adversarial images share
    the batch statistics; crafting uses the moving ones.

    On several replicas `k` and the batch size count all of them together, and each
    replica replaces its own first k / replicas images. The paper's m and k are those of
    one machine: its 50 with m = 32 and k = 16 are a batch of 1600 and `k` = 800, here.
    L comes out the same in both readings, because all replicas have the same
    normaliser. Batch statistics are of each replica's images, as on its machines;
    `train.sync_bn` takes those of all.

    With `auxiliary_layer` a second classifier, `models.auxiliary_head`, judges the
    features of this layer, and every example, clean or adversarial, has the loss

        J(x, y) + auxiliary_weight * J_auxiliary(x, y)

    in the place of J(x, y), with the same weight and label smoothing. Its weights are
    moved by the same optimizer, are in the checkpoints and are saved beside the
    classifier, which does without it; its weight decay counts, too. For the paper's
    undefended Inception, which has such a head as well, let `delay` be all the steps.

    Images to train on are made in inference mode, along the loss that `craft_on` says:

    | craft_on      | true labels | other labels (least likely, ..) | the head        |
    |---------------|-------------|---------------------------------|-----------------|
    | logits        | smoothed    | not smoothed                    | does not count  |
    | training_loss | smoothed    | smoothed                        | has its weight  |

    What is measured while it trains is accuracy under attacks on the logits.

    Args:
        classifier, attack, k, adversarial_weight, eps_law, delay, stored,
            label_smoothing, seed: see `MixedBatch`; k defaults to half of the batch,
            the law to the `"truncated"` one of this paper.
        auxiliary_layer: name of a layer of the classifier whose output is maps
            [n, h, w, c], as "mixed_6e" of `inception_v3`; None for no head.
        auxiliary_weight: not negative.
        auxiliary_width, auxiliary_activation: `width` and `activation` of the head. The
            momentum of its batch normalisation and its weight decay are those of the
            classifier's last layers that have such.
        craft_on: `"logits"` or `"training_loss"`, see above; the same where there is
            neither label smoothing nor a head.

    Raises:
        ValueError: as `MixedBatch`; a weight that is negative or not finite; a
            classifier that is not functional or lacks the layer, features that are no
            maps, options that the head refuses; another `craft_on`.

    Source: Kurakin et al. 2017, Algorithm 1 (m = 32, k = 16, lambda = 0.3, 10,000
    steps of delay); Na et al. 2018, section 2 (m = 128, k = 64). The second classifier
    is that of Szegedy et al. 2016, weight .4; that lambda scales its loss, too, is our
    reading, because Algorithm 1 knows one loss an example. The paper does not say what
    its training images are made on; its code attacks the training loss to evaluate.
    """

    def __init__(
        self,
        classifier,
        *,
        attack,
        k: int | None = None,
        adversarial_weight: float = 0.3,
        eps_law: str = "truncated",
        delay: int = 0,
        stored: int = 0,
        auxiliary_layer: str | None = None,
        auxiliary_weight: float = 0.4,
        auxiliary_width: float = 1.0,
        auxiliary_activation: str = "relu",
        craft_on: Literal["logits", "training_loss"] = "logits",
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
        if not 0 <= auxiliary_weight < math.inf:
            raise ValueError(
                "`auxiliary_weight` must be finite and not negative; received "
                f"{auxiliary_weight}"
            )
        if craft_on not in ("logits", "training_loss"):
            raise ValueError(
                f"`craft_on` must be 'logits' or 'training_loss'; received {craft_on!r}"
            )
        self.craft_on = craft_on
        self.auxiliary_layer = auxiliary_layer
        self.auxiliary_weight = auxiliary_weight
        self.auxiliary = None
        if auxiliary_layer is not None:
            self._with_features, features = with_features(
                classifier,
                lambda network: network.get_layer(auxiliary_layer).output,
                lambda names: (
                    "`auxiliary_layer` names a layer of a functional classifier; "
                    f"received {auxiliary_layer!r}. Layers: {names}"
                ),
            )
            self.auxiliary = _head(
                classifier,
                features,
                auxiliary_layer,
                width=auxiliary_width,
                activation=auxiliary_activation,
            )

    def default_k(self, m):
        return m // 2

    @property
    def trained_variables(self):
        own = super().trained_variables
        return own if self.auxiliary is None else own + self.auxiliary.trainable_weights

    @property
    def companions(self):
        return {} if self.auxiliary is None else {"auxiliary": self.auxiliary}

    def crafted_on(self, x):
        if self.craft_on == "logits":
            return self.logits(x)
        logits, auxiliary = self.judge(x, training=False)
        return core.Judged(
            logits, auxiliary, self.auxiliary_weight, self.label_smoothing
        )

    @property
    def continued(self):
        own = super().continued
        return own if self.auxiliary is None else own | {"auxiliary": self.auxiliary}

    def train_step(self, data):
        x, y = self.unpack(data)
        _, k = self.split(x)
        delayed = self.delayed()
        x_adv = self.craft(data, k, delayed)
        with tf.GradientTape() as tape:
            logits, auxiliary = self.judge(tf.concat([x_adv, x[k:]], 0))
            loss = self.mean_loss(y, logits, k, delayed)
            if auxiliary is not None:
                loss += self.auxiliary_weight * self.mean_loss(y, auxiliary, k, delayed)
            loss = self.regularized(loss)
        self.descend(tape, loss)
        return self.finish(
            loss,
            clean=(y[k:], logits[k:]),
            adversarial=(y[:k], logits[:k]),
            adversarial_weight=1.0 - tf.cast(delayed, tf.float32),
        )

    def judge(self, x, training=True):
        """Logits [n, K] and those of the head, or None without one."""
        if self.auxiliary is None:
            return self.classifier(x, training=training), None
        logits, features = self._with_features(x, training)
        return logits, self.auxiliary(features, training=training)

    def regularized(self, loss):
        """As `Defense.regularized`, with the regularisers of the head."""
        loss = super().regularized(loss)
        if self.auxiliary is None:
            return loss
        return tf.add_n([loss, *self.auxiliary.losses])


def _head(classifier, features, layer, **options):
    """The auxiliary head for these features, with the classifier's BN and decay."""
    options["weight_decay"] = 0.0
    for one in classifier.layers:
        if isinstance(one, keras.layers.BatchNormalization):
            options["bn_momentum"] = one.momentum
        regularizer = getattr(one, "kernel_regularizer", None)
        if isinstance(regularizer, keras.regularizers.L2):
            options["weight_decay"] = 2 * float(regularizer.l2)
    classes = classifier.output_shape[-1]
    try:
        return auxiliary_head(features.shape[1:], classes, **options)
    except ValueError as error:
        raise ValueError(f"the head of `auxiliary_layer` {layer!r}: {error}") from error
