"""What the defences share that train on clean and adversarial images in one batch."""

import dataclasses

import keras
import tensorflow as tf

from tfadv import losses
from tfadv.attacks import eps_laws
from tfadv.defenses.base import Defense


class MixedBatch(Defense):
    """Makes adversarial images of the first k of a batch, each with its own eps.

    The k images are crafted on the current weights; the last `stored` of them may
    come with the batch instead, made beforehand from another model (cascade training,
    Na et al. 2018, section 3.3). A batch is then ((x, x_stored), y), and x_stored[j]
    belongs to the image at `stored_positions()[j]`.

    Args:
        classifier, label_smoothing, seed: see `Defense`.
        attack: crafts the adversarial images, its `eps` being the largest one. The
            papers' is `step_ll`, whose labels do not depend on the true ones.
        k: adversarial images in a batch over all replicas; None means `default_k`.
        adversarial_weight: lambda, the weight of an adversarial image's loss.
        eps_law: `"truncated"`, `"clipped"`, `"uniform"` or `"constant"`.
        delay: steps on clean images before the first adversarial one.
        stored: how many of the k come with the batch.

    Raises:
        ValueError: a negative k, lambda or delay, an unknown law, more stored images
            than adversarial ones; k larger than the batch, when the batch is seen.
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
            ("stored", stored),
        ):
            if value < 0:
                raise ValueError(f"`{option}` must not be negative; received {value}")
        if k is not None and stored > k:
            raise ValueError(f"`stored` must be at most `k`, {k}; received {stored}")
        eps_laws.lookup(eps_laws.EPS_LAWS, eps_law, "eps law")
        self.k = k
        self.adversarial_weight = adversarial_weight
        self.eps_law = eps_law
        self.delay = delay
        self.stored = stored

    def default_k(self, m):
        """k of a batch of m where none is given."""
        raise NotImplementedError

    def check_batch(self, batch_size, replicas=1):
        """As `Defense.check_batch`; returns the adversarial images on each replica."""
        super().check_batch(batch_size, replicas)
        k = self.default_k(batch_size) if self.k is None else self.k
        if k > batch_size:
            raise ValueError(
                f"`k` must be at most the batch size {batch_size}; received {k}"
            )
        if self.stored > k:
            raise ValueError(
                f"`stored` must be at most the {k} adversarial images of a batch; "
                f"received {self.stored}"
            )
        for option, value in (("k", k), ("stored", self.stored)):
            if value % replicas:
                raise ValueError(
                    f"`{option}` must be a multiple of the {replicas} replicas; "
                    f"received {value}"
                )
        return k // replicas

    def stored_positions(self, batch_size, replicas=1):
        """Positions [stored] in a batch of the images that stored ones are made of.

        On every replica they are the last of those that have an adversarial image.
        """
        k, m = self.check_batch(batch_size, replicas), batch_size // replicas
        own = range(k - self.stored // replicas, k)
        return [replica * m + i for replica in range(replicas) for i in own]

    def unpack(self, data):
        """As `Defense.unpack`; of a batch ((x, x_stored), y), x and y."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        x = x[0] if isinstance(x, tuple | list) else x
        return super().unpack((x, y, sample_weight))

    def split(self, x):
        """m and k on this replica; ints where the batch has a static size."""
        replicas = self.distribute_strategy.num_replicas_in_sync
        if x.shape[0] is not None:
            return x.shape[0], self.check_batch(x.shape[0] * replicas, replicas)
        # `fit` on arrays leaves the size open, and its last batch may be short.
        m = tf.shape(x)[0]
        k = self.default_k(m) if self.k is None else self.k // replicas
        return m, tf.minimum(k, m)

    def draw_eps(self, count, replica=None):
        """The sizes [count, 1, 1, 1] of this step's perturbations."""
        seed = self.step_seed(purpose=1, replica=replica)
        return eps_laws.draw(self.eps_law, self.attack.eps, count, seed)

    def delayed(self):
        """Whether this step still trains on clean images only."""
        return self.optimizer.iterations < self.delay

    def crafted_on(self, x):
        """What attacks see where they make images to train on."""
        return self.logits(x)

    def craft(self, data, k, delayed):
        """The adversarial images [k, h, w, c] of this step; the clean ones if delayed.

        Args:
            data: the batch, as `train_step` takes it.
            k: how many, of `split`.
            delayed: `delayed()` at the begin of the step.
        """
        x, y = self.unpack(data)
        stored = self._stored_part(data)
        count = k - (0 if stored is None else tf.shape(stored)[0])

        def make():
            attack = dataclasses.replace(self.attack, eps=self.draw_eps(count))
            seed = self.step_seed(purpose=0)
            labels = self.targets(x[:count], y[:count])
            x_adv = attack(self.crafted_on, x[:count], labels, seed=seed)
            return x_adv if stored is None else tf.concat([x_adv, stored], 0)

        return tf.cond(delayed, lambda: x[:k], make) if self.delay else make()

    def crafting(self, data):
        _, k = self.split(self.unpack(data)[0])
        return self.craft(data, k, self.delayed())

    def _stored_part(self, data):
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        replicas = self.distribute_strategy.num_replicas_in_sync
        if not isinstance(x, tuple | list):
            if self.stored:
                raise ValueError(
                    f"`stored` = {self.stored} needs batches ((x, x_stored), y) with "
                    f"{self.stored} stored adversarial images; received (x, y)"
                )
            return None
        received = x[1].shape[0]
        if received is not None and received * replicas != self.stored:
            raise ValueError(
                f"expected {self.stored} stored images in a batch; received "
                f"{received * replicas}"
            )
        return tf.cast(x[1], tf.float32)

    def mean_loss(self, y, logits, k, delayed):
        """[lambda sum_{i < k} J_i + sum_{i >= k} J_i] / [lambda k + (n - k)].

        Args:
            y: [n] labels, those of the k adversarial images first.
            logits: [n, K].
            k: int or int32 scalar.
            delayed: where true the first k count like the others.
        """
        weight = tf.where(delayed, 1.0, self.adversarial_weight)
        ones = tf.ones_like(y, tf.float32)
        weights = tf.concat([weight * ones[:k], ones[k:]], 0)
        return losses.weighted_mean(self.cross_entropy(y, logits), weights)
