"""Laws of the size of a training perturbation, drawn anew for every image."""

import tensorflow as tf

from tfadv.attacks import core
from tfadv.errors import lookup


def truncated(max_eps, n, seed):
    """|N(0, max_eps / 2)| resampled beyond max_eps (Kurakin et al. 2017, section 4)."""
    # The op resamples beyond two standard deviations, which is max_eps.
    normal = tf.random.stateless_truncated_normal([n], core.as_seed(seed), alg="philox")
    return max_eps / 2 * tf.abs(normal)


def clipped(max_eps, n, seed):
    """min(|N(0, max_eps / 2)|, max_eps): 4.6 % sit at max_eps (Na et al. 2018)."""
    normal = tf.random.stateless_normal([n], core.as_seed(seed), alg="philox")
    return tf.minimum(max_eps / 2 * tf.abs(normal), max_eps)


def uniform(max_eps, n, seed):
    """U(0, max_eps)."""
    return tf.random.stateless_uniform(
        [n], core.as_seed(seed), 0.0, max_eps, alg="philox"
    )


def constant(max_eps, n, seed):
    """max_eps for every image."""
    del seed
    return tf.fill([n], tf.cast(max_eps, tf.float32))


EPS_LAWS = {
    "truncated": truncated,
    "clipped": clipped,
    "uniform": uniform,
    "constant": constant,
}


def draw(law, max_eps, n, seed):
    """Sizes [n, 1, 1, 1] in [0, max_eps], one per image.

    Args:
        law: a name in `EPS_LAWS`.
        max_eps: number, the largest size, in the units of x.
        n: int or int32 scalar.
        seed: int or pair of ints.
    """
    eps = lookup(EPS_LAWS, law, "eps law")(max_eps, n, seed)
    return eps[:, None, None, None]
