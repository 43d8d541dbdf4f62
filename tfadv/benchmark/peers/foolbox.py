"""Foolbox 3, called as in its own examples: eagerly, with one last pass that judges."""

NAME, MODULE, DISTRIBUTION = "foolbox", "foolbox", "foolbox"


def crafters(model, *, eps, step_size, steps):
    """See `peers.compare`."""
    import foolbox
    import tensorflow as tf

    seen = foolbox.TensorFlowModel(lambda x: model(x, training=False), bounds=(0, 1))
    pgd = foolbox.attacks.LinfPGD(
        abs_stepsize=step_size, steps=steps, random_start=False
    )
    fgsm = foolbox.attacks.LinfFastGradientAttack(random_start=False)

    def calling(attack):
        # int64 as its own argmax: it finds a common type by a NumPy before 2. Of (raw,
        # clipped, success) the images within eps.
        return lambda x, y: attack(seen, x, tf.cast(y, tf.int64), epsilons=eps)[1]

    return {"PGD": calling(pgd), "FGSM": calling(fgsm)}
