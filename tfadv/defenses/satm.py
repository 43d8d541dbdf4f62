"""Liao 2018: networks trained side by side, each on the others' adversarial images."""

import functools
import math

import keras
import tensorflow as tf

from tfadv import losses
from tfadv.defenses.base import Defense, MeanOrNaN, with_features
from tfadv.models.gradient_reversal import GradientReversal


class SATM(Defense):
    """The simultaneous adversarial training method: learn from others' mistakes.

    For every batch, with the weights as they are before it:

        x_adv_i = attack(network i, x, y)                                  for all i
        L_i = mean J_i(x, y) + r_adv * mean J_i(x_adv_j, y) + r_da_i * DA_i,   j != i
        one step of every network i on L_i, by an optimizer of its own

    x_adv_j is a constant for network i, which thus never learns from its own images
    and cannot weaken them by hiding its gradient. Clean and adversarial images are one
    batch of 2n, half of it clean. Of two networks each takes the other's images; of K
    network i takes those of j = i + 1 + (step mod (K - 1)), counted round: it has each
    of the others in turn, and every network's images are used once in a step.

    DA_i keeps the features f of the two halves alike:

        DA_i = mean of H(d, sigmoid(B_i(R(f))))   over the 2n images,
               d = 0 for clean and 1 for adversarial ones
        H    = -d log s - (1 - d) log(1 - s)
        B_i  = Dense(domain_units, ReLU), Dense(1)

    f is what enters the layer `embedding` (flattened); R is `GradientReversal`. So B_i
    goes down r_da_i * DA_i, and the network below it up `reversal` times that. With
    `reversal_warmup` the factor of R in a step is

        reversal * (2 / (1 + exp(-10 p)) - 1),   p = min(1, step / reversal_warmup)

    (0 at first, 0.9999 of `reversal` in the end).

    `networks` are the classifier and the partners. The metrics of partner i are
    `accuracy_<i>` and `adversarial_accuracy_<i>`, in training those on the images of
    the network whose turn it was, in `evaluate` under the attack on the network itself.
    `loss` is the sum over the networks.

    With two networks of the same structure **and the same weights**, which so learn
    from white-box images of themselves, the paper saw training diverge (5.5). Here
    their images and steps are equal bit for bit where nothing is drawn for each (no
    dropout, no domain block, an attack without noise): they stay one network, trained
    on images of its own, and its loss falls. Noise or dropout take them apart, and on
    the digits such a pair (`r_fgsm`) learned like any other. What they lose is the
    point of the method: the other's images are their own, or nearly.

    In print eq. 3 is called R+Step-LL, but goes up for the true label; that is the
    attack `r_fgsm`. Left open there: r_adv, r_da, the width of B, its layer, how R
    begins and batch statistics, so these are ours. Lines 7 to 15 of Algorithm 1 are
    illegible in the copy we read: L_i, its step and their order come from what is left
    of them, Figure 2 and sections 4.1 and 4.2. The paper clips no image, our attacks
    do. It trains two networks and says of more only that they take turns.

    Args:
        classifier, label_smoothing, seed: see `Defense`. The attacks take the labels
            that are trained on.
        attack: on every network; noise of its own for each.
        partners: list of the other networks, `keras.Model`s as the classifier is one.
        adversarial_weight: r_adv, not negative.
        domain_weights: r_da, one number for all networks or one for each, the
            classifier's first; 0 for a network without B.
        reversal: the factor of R, not negative.
        reversal_warmup: steps until it is reached; 0 for from the start.
        domain_units: width of B.

    Raises:
        ValueError: no partner, a network or variable in two places, unequal numbers of
            classes, an argument out of range, r_da > 0 for a network that is not
            functional or has no layer `embedding`; by `compile`, another number of
            optimizers than of partners, or one optimizer twice.

    Source: Liao 2018, Algorithm 1, sections 4.1 to 4.3 and Figure 2; Ganin & Lempitsky
    2015, section 4, for `reversal_warmup`.
    """

    def __init__(
        self,
        classifier,
        *,
        attack,
        partners,
        adversarial_weight: float = 1.0,
        domain_weights: tuple[float, ...] = (0.1,),
        reversal: float = 1.0,
        reversal_warmup: int = 0,
        domain_units: int = 1024,
        label_smoothing: float = 0.0,
        seed: int = 0,
        name=None,
    ):
        super().__init__(
            classifier,
            attack=attack,
            label_smoothing=label_smoothing,
            seed=seed,
            name=name,
        )
        if isinstance(partners, keras.Model) or not partners:
            raise ValueError(
                "`partners` must be a list of one network or more that the classifier "
                f"is trained with; received {partners!r}"
            )
        self.partners = list(partners)
        _check_networks(self.networks)
        for option, value in (
            ("adversarial_weight", adversarial_weight),
            ("reversal", reversal),
            ("reversal_warmup", reversal_warmup),
            *[("domain_weights", weight) for weight in domain_weights],
        ):
            if not 0 <= value < math.inf:
                raise ValueError(
                    f"`{option}` must be finite and not negative; received {value}"
                )
        count = len(self.networks)
        if len(domain_weights) not in (1, count):
            raise ValueError(
                "`domain_weights` must hold one number, or one for each of the "
                f"{count} networks, the classifier's first; received "
                f"{len(domain_weights)} numbers"
            )
        if domain_units < 1:
            raise ValueError(
                f"`domain_units` must be at least 1; received {domain_units}"
            )
        if len(domain_weights) == 1:
            domain_weights = tuple(domain_weights) * count
        self.adversarial_weight = adversarial_weight
        self.domain_weights = tuple(domain_weights)
        self.reversal = reversal
        self.reversal_warmup = reversal_warmup
        self.partner_accuracy = [
            MeanOrNaN(name=f"accuracy_{i}") for i in range(1, count)
        ]
        self.partner_adversarial_accuracy = [
            MeanOrNaN(name=f"adversarial_accuracy_{i}") for i in range(1, count)
        ]
        self.partner_optimizers = []
        # Of a network without B, functions and blocks are None.
        self._both, self.domain_blocks = [], []
        for i, (network, weight) in enumerate(
            zip(self.networks, self.domain_weights, strict=True)
        ):
            both = features = None
            if weight:
                both, features = _with_features(network, i)
            self._both.append(both)
            block = (
                None if features is None else _block(features, domain_units, reversal)
            )
            self.domain_blocks.append(block)
        # TensorFlow's checkpoints leave out lists of a Keras model.
        blocks = [block for block in self.domain_blocks if block is not None]
        self._kept = tf.train.Checkpoint(partners=list(self.partners), blocks=blocks)

    @property
    def networks(self):
        """The classifier and the partners: list of `keras.Model`."""
        return [self.classifier, *self.partners]

    @property
    def optimizers(self):
        """Those of the networks, in their order."""
        return [self.optimizer, *self.partner_optimizers]

    @property
    def trained_variables(self):
        return self.variables_of(0)

    @property
    def moved(self):
        return [(one, self.variables_of(i)) for i, one in enumerate(self.optimizers)]

    def variables_of(self, i):
        """What the optimizer of network i moves: its weights and those of its block."""
        block = self.domain_blocks[i]
        own = list(self.networks[i].trainable_variables)
        return own if block is None else own + block.trainable_variables

    def build(self, input_shape):
        for network in self.networks:
            if not network.built:
                network.build(input_shape)
        self._build_optimizers()

    def compile(self, optimizer="sgd", *, partner_optimizers=None, **kwargs):
        """As `Defense.compile`, with an optimizer for each partner.

        Args:
            optimizer: of the classifier.
            partner_optimizers: list of one for each partner; None for copies of
                `optimizer` as it was made.
        """
        optimizer = keras.optimizers.get(optimizer)
        if partner_optimizers is None:
            partner_optimizers = [_copy(optimizer) for _ in self.partners]
        others = [keras.optimizers.get(other) for other in partner_optimizers]
        if len(others) != len(self.partners):
            raise ValueError(
                "`partner_optimizers` must hold one optimizer for each of the "
                f"{len(self.partners)} partners; received {len(others)}"
            )
        if len({id(one) for one in (optimizer, *others)}) <= len(others):
            raise ValueError(
                "`partner_optimizers` must be different objects, none of them the "
                "classifier's: an optimizer keeps the momenta of one network; "
                "received one twice"
            )
        super().compile(optimizer, **kwargs)
        self.partner_optimizers = others
        self._kept_optimizers = tf.train.Checkpoint(optimizers=others)
        self._build_optimizers()

    def _build_optimizers(self):
        """So that those of the partners can be restored."""
        for i, optimizer in enumerate(self.partner_optimizers, start=1):
            if self.networks[i].built and not optimizer.built:
                optimizer.build(self.variables_of(i))

    def crafting(self, data):
        return self.craft(*self.unpack(data))

    def train_step(self, data):
        x, y = self.unpack(data)
        self.warm_up()
        total, logits, logits_adv = [], [], []
        for i, x_adv in enumerate(self.exchange(self.craft(x, y))):
            with tf.GradientTape() as tape:
                both, domain_loss = self.judge(i, tf.concat([x, x_adv], 0))
                clean, adversarial = tf.split(both, 2)
                loss = tf.add_n(
                    [
                        tf.reduce_mean(self.cross_entropy(y, clean)),
                        self.adversarial_weight
                        * tf.reduce_mean(self.cross_entropy(y, adversarial)),
                        self.domain_weights[i] * domain_loss,
                        *self.networks[i].losses,
                    ]
                )
            self.descend(tape, loss, self.variables_of(i), self.optimizers[i])
            total.append(loss)
            logits.append(clean)
            logits_adv.append(adversarial)
        return self.finish_all(tf.add_n(total), y, logits, logits_adv)

    def logits(self, x, i=0):
        """Logits of network i in inference mode: what attacks see."""
        return self.networks[i](x, training=False)

    @property
    def predicts(self):
        """`logits` of every network."""
        return [functools.partial(self.logits, i=i) for i in range(len(self.networks))]

    def craft(self, x, y):
        """[x_adv of every network], each by its own weights as they are."""
        y = self.targets(x, y)
        return [
            self.attack(predict, x, y, seed=self.step_seed(i))
            for i, predict in enumerate(self.predicts)
        ]

    def exchange(self, images):
        """[what every network trains on] of what was made for each; never its own."""
        turn = tf.convert_to_tensor(self.optimizer.iterations) % len(self.partners)
        return tf.unstack(tf.roll(tf.stack(images), -1 - turn, axis=0))

    def judge(self, i, x):
        """Logits of network i in training mode, and DA of clean and other images.

        Args:
            i: int.
            x: [2n, h, w, c], n clean and n adversarial images.

        Returns:
            ([2n, K], scalar); the scalar is 0 without a domain block.
        """
        if self.domain_blocks[i] is None:
            return self.networks[i](x, training=True), 0.0
        logits, features = self._both[i](x)
        domain_logits = self.domain_blocks[i](features, training=True)
        return logits, _domain_loss(domain_logits)

    def warm_up(self):
        """Sets the factors of the reversal to those of this step."""
        if not self.reversal_warmup:
            return
        step = tf.cast(tf.convert_to_tensor(self.optimizer.iterations), tf.float32)
        p = tf.minimum(1.0, step / self.reversal_warmup)
        factor = self.reversal * (2 / (1 + tf.exp(-10 * p)) - 1)
        for block in self.domain_blocks:
            if block is not None:
                block.get_layer("reversal").factor.assign(factor)

    def finish_all(self, loss, y, logits, logits_adv):
        """`finish` with the logits [n, K] of every network on what it was shown."""
        for metrics, found in (
            (self.partner_accuracy, logits[1:]),
            (self.partner_adversarial_accuracy, logits_adv[1:]),
        ):
            for metric, one in zip(metrics, found, strict=True):
                right = keras.metrics.sparse_categorical_accuracy(y, one)
                metric.update_state(right)
        return self.finish(loss, clean=(y, logits[0]), adversarial=(y, logits_adv[0]))

    def test_step(self, data):
        """Sum of the clean losses; accuracies, the adversarial ones under white box."""
        x, y = self.unpack(data)
        logits, logits_adv = [], []
        for predict in self.predicts:
            x_adv = self.attack(predict, x, y, seed=(self.seed, 0))
            logits.append(predict(x))
            logits_adv.append(predict(x_adv))
        loss = tf.add_n([losses.cross_entropy(y, one) for one in logits])
        return self.finish_all(loss, y, logits, logits_adv)

    def validation_loss(self, x, y):
        """sum_i [mean J_i(x, y) + r_adv * mean over j != i of mean J_i(x_adv_j, y)].

        In inference mode, without DA and weight decay, and always the same noise. The
        paper stops early on the sum of the losses.

        Args:
            x: [n, h, w, c].
            y: [n].

        Returns:
            scalar.
        """
        seed = (self.seed, 0)
        x_adv = [self.attack(predict, x, y, seed=seed) for predict in self.predicts]
        total = []
        for i, predict in enumerate(self.predicts):

            def loss(images, predict=predict):
                return tf.reduce_mean(losses.cross_entropy(y, predict(images)))

            others = [loss(images) for j, images in enumerate(x_adv) if j != i]
            adversarial = tf.add_n(others) / len(others)
            total.append(loss(x) + self.adversarial_weight * adversarial)
        return tf.add_n(total)


def _check_networks(networks):
    """ValueError where two of them share anything, or differ in their classes."""
    owners = {}
    for i, network in enumerate(networks):
        for part in (network, *network.variables):
            if owners.setdefault(id(part), i) != i:
                raise ValueError(
                    "`partners` must be networks that share no variable with each "
                    "other or the classifier: each is trained on the images of the "
                    f"others; received {_names(networks)}, of which {part.name!r} is "
                    f"in those at {owners[id(part)]} and {i} (0 is the classifier)"
                )
    # Of a network that is not built, or not functional, it is not known.
    shapes = [getattr(network, "output_shape", None) for network in networks]
    classes = [shape[-1] if isinstance(shape, tuple) else None for shape in shapes]
    if len(set(classes) - {None}) > 1:
        raise ValueError(
            "`partners` must tell the same classes apart as the classifier; received "
            f"{_names(networks)} with {', '.join(map(str, classes))} logits"
        )


def _names(networks):
    return ", ".join(repr(network.name) for network in networks)


def _with_features(network, i):
    """`with_features` of network i, what enters its layer `embedding`."""
    return with_features(
        network,
        lambda network: network.get_layer("embedding").input,
        lambda names: (
            "`domain_weights` above 0 need a functional network, whose features enter "
            f"a layer called 'embedding'; network {i} ({network.name!r}) has the "
            f"layers {names}. Give it the weight 0"
        ),
    )


def _block(features, units, reversal):
    """R and B behind it: features -> the logit of "adversarial" [n, 1]."""
    return keras.Sequential(
        [
            keras.Input(features.shape[1:], dtype=features.dtype),
            keras.layers.Flatten(),
            GradientReversal(factor=reversal, name="reversal"),
            keras.layers.Dense(units, activation="relu"),
            keras.layers.Dense(1),
        ]
    )


def _domain_loss(logits):
    """mean H(d, sigmoid(z)), z [2n, 1]; d is 0 in the first half, 1 in the second."""
    logits = tf.cast(logits, tf.float32)
    n = tf.shape(logits)[0] // 2
    domain = tf.concat([tf.zeros([n, 1]), tf.ones([n, 1])], 0)
    entropies = tf.nn.sigmoid_cross_entropy_with_logits(labels=domain, logits=logits)
    return tf.reduce_mean(entropies)


def _copy(optimizer):
    return type(optimizer).from_config(optimizer.get_config())
