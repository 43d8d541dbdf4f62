"""CleverHans 4, whose gradient is traced once for each function it is given."""

import math

NAME, MODULE, DISTRIBUTION = "cleverhans", "cleverhans", "cleverhans"


def crafters(model, *, eps, step_size, steps):
    """See `peers.compare`."""
    from cleverhans.tf2.attacks.fast_gradient_method import fast_gradient_method
    from cleverhans.tf2.attacks.projected_gradient_descent import (
        projected_gradient_descent,
    )

    def predict(x):
        return model(x, training=False)

    common = {"norm": math.inf, "clip_min": 0.0, "clip_max": 1.0}

    def pgd(x, y):
        return projected_gradient_descent(
            predict, x, eps, step_size, steps, y=y, rand_init=False, **common
        )

    def fgsm(x, y):
        return fast_gradient_method(predict, x, eps, y=y, **common)

    return {"PGD": pgd, "FGSM": fgsm}
