"""The attack without any library: a loop in a `tf.function`."""

import tensorflow as tf

NAME, MODULE, DISTRIBUTION = "bare loop", "tensorflow", "tensorflow"


def crafters(model, *, eps, step_size, steps):
    """See `peers.compare`."""

    def loop(x, y, size, count):
        z = x
        for _ in tf.range(count):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(z)
                loss = tf.nn.sparse_softmax_cross_entropy_with_logits(
                    labels=y, logits=model(z, training=False)
                )
            z = z + size * tf.sign(tape.gradient(loss, z))
            z = tf.clip_by_value(tf.clip_by_value(z, x - eps, x + eps), 0.0, 1.0)
        return z

    pgd = tf.function(lambda x, y: loop(x, y, step_size, steps))
    return {"PGD": pgd, "FGSM": tf.function(lambda x, y: loop(x, y, eps, 1))}
