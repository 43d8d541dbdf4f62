"""tfadv's attacks as everybody calls them: in a `tf.function`."""

import tensorflow as tf

from tfadv import attacks

NAME, MODULE, DISTRIBUTION = "tfadv", "tfadv", "tfadv"


def crafters(model, *, eps, step_size, steps):
    """See `peers.compare`."""
    pgd = attacks.PGD(eps=eps, steps=steps, step_size=step_size, random_start=False)
    fgsm = attacks.StepFGSM(eps=eps)

    def predict(x):
        return model(x, training=False)

    def compiled(attack):
        return tf.function(lambda x, y: attack(predict, x, y))

    return {"PGD": compiled(pgd), "FGSM": compiled(fgsm)}
