"""The Adversarial Robustness Toolbox, whose classifiers of TensorFlow 2 take Keras 3.

It takes and gives NumPy arrays. Its gradients are traced once for each classifier.
"""

NAME = "adversarial-robustness-toolbox"
MODULE, DISTRIBUTION = "art", "adversarial-robustness-toolbox"


def crafters(model, *, eps, step_size, steps):
    """See `peers.compare`."""
    import keras
    from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent
    from art.estimators.classification import TensorFlowV2Classifier

    classifier = TensorFlowV2Classifier(
        model=model,
        nb_classes=model.output_shape[-1],
        input_shape=model.input_shape[1:],
        loss_object=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        clip_values=(0.0, 1.0),
    )

    def calling(factory, **arguments):
        def craft(x, y):
            attack = factory(
                classifier, eps=eps, num_random_init=0, batch_size=len(x), **arguments
            )
            return attack.generate(x.numpy(), y.numpy())

        return craft

    return {
        "PGD": calling(
            ProjectedGradientDescent, eps_step=step_size, max_iter=steps, verbose=False
        ),
        "FGSM": calling(FastGradientMethod, eps_step=eps),
    }
