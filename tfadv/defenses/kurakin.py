"""Kurakin, Goodfellow, Bengio 2017: adversarial machine learning at scale."""

import dataclasses

import tensorflow as tf

from tfadv import losses
from tfadv.attacks import eps_laws
from tfadv.defenses.base import Defense


class Kurakin(Defense):
    """Algorithm 1: part of every batch is replaced by its adversarial images.

        read m images, of which the first k become adversarial (current weights)
        L = [sum_clean J(x, y) + lambda * sum_adv J(x_adv, y)] / [(m - k) + lambda * k]
        one step on L, the m images in one batch

    Every adversarial image gets an eps of its own, drawn by `eps_law` up to the
    attack's eps. J takes the true label throughout. Clean and adversarial images share
    the batch statistics; crafting uses the moving ones.

    Args:
        classifier, label_smoothing, seed: see `Defense`.
        attack: crafts the k images, its `eps` being the largest one. The paper's is
            `step_ll`, whose labels do not depend on the true ones.
        k: adversarial images in a batch over all replicas; None means half of it.
        adversarial_weight: lambda.
        eps_law: `"truncated"` (this paper), `"clipped"` (Na et al. 2018), `"uniform"`
            or `"constant"`.
        delay: steps on clean images before the first adversarial one.

    Raises:
        ValueError: a negative k, lambda or delay, an unknown law; k larger than the
            batch, when the batch is seen.

    Source: Kurakin et al. 2017, Algorithm 1 (m = 32, k = 16, lambda = 0.3, 10,000
    steps of delay); Na et al. 2018, section 2 (m = 128, k = 64).
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
        if k is not None and k < 1:
            raise ValueError(
                f"`k` must be at least 1; received {k} (for clean training use the "
                "defence 'standard')"
            )
        for option, value in (
            ("adversarial_weight", adversarial_weight),
            ("delay", delay),
        ):
            if value < 0:
                raise ValueError(f"`{option}` must not be negative; received {value}")
        eps_laws.lookup(eps_laws.EPS_LAWS, eps_law, "eps law")
        self.k = k
        self.adversarial_weight = adversarial_weight
        self.eps_law = eps_law
        self.delay = delay

    def check_batch(self, batch_size, replicas=1):
        """As `Defense.check_batch`; returns the adversarial images on each replica."""
        super().check_batch(batch_size, replicas)
        k = batch_size // 2 if self.k is None else self.k
        if k > batch_size:
            raise ValueError(
                f"`k` must be at most the batch size {batch_size}; received {k}"
            )
        if k % replicas:
            raise ValueError(
                f"`k` must be a multiple of the {replicas} replicas; received {k}"
            )
        return k // replicas

    def _split(self, x):
        """m and k on this replica; ints where the batch has a static size."""
        replicas = self.distribute_strategy.num_replicas_in_sync
        if x.shape[0] is not None:
            return x.shape[0], self.check_batch(x.shape[0] * replicas, replicas)
        # `fit` on arrays leaves the size open, and its last batch may be short.
        m = tf.shape(x)[0]
        return m, m // 2 if self.k is None else tf.minimum(self.k // replicas, m)

    def draw_eps(self, count, replica=None):
        """The sizes [count, 1, 1, 1] of this step's perturbations."""
        seed = self.step_seed(purpose=1, replica=replica)
        return eps_laws.draw(self.eps_law, self.attack.eps, count, seed)

    def train_step(self, data):
        x, y = self.unpack(data)
        m, k = self._split(x)
        delayed = self.optimizer.iterations < self.delay

        def craft():
            attack = dataclasses.replace(self.attack, eps=self.draw_eps(k))
            return attack(self.logits, x[:k], y[:k], seed=self.step_seed(purpose=0))

        x_adv = tf.cond(delayed, lambda: x[:k], craft) if self.delay else craft()
        weight = tf.where(delayed, 1.0, self.adversarial_weight)
        weights = tf.concat([tf.fill([k], weight), tf.ones([m - k])], 0)
        with tf.GradientTape() as tape:
            logits = self.classifier(tf.concat([x_adv, x[k:]], 0), training=True)
            loss = self.regularized(
                losses.weighted_mean(self.cross_entropy(y, logits), weights)
            )
        self.descend(tape, loss)
        return self.finish(
            loss,
            clean=(y[k:], logits[k:]),
            adversarial=(y[:k], logits[:k]),
            adversarial_weight=1.0 - tf.cast(delayed, tf.float32),
        )
