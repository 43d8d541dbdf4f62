"""Tramer et al. 2018: adversarial training on images made for other models as well."""

import tensorflow as tf

from tfadv.defenses.adversarial import AdversarialTraining


class Ensemble(AdversarialTraining):
    """L = alpha * mean J(x, y) + (1 - alpha) * mean J(x_adv, y),

    x_adv made for one model a batch, drawn from frozen sources and the classifier
    itself, all equally likely. Images of a source do not depend on the classifier, so
    it cannot make them weak by hiding its gradient. The paper's attack is one step with
    the source's own predicted labels (`fgsm_pred`). In the authors' code sources drop
    out while images are made for them; here they do not.

    Ensemble training of the other form, on sets made beforehand (Wang & Yu 2019), needs
    no defence but more data: see `[crafted]` of a configuration.

    Args:
        classifier, attack, alpha, label_smoothing, seed: see `AdversarialTraining`.
        sources: the frozen models, each x -> logits in inference mode. They are no
            part of this model: neither trained nor saved with it.
        include_self: whether the classifier is among those drawn.

    Raises:
        ValueError: `alpha` outside [0, 1); nothing to draw from, at the first step.

    Source: Tramer et al. 2018, section 4.1, with the authors' code for alpha = 1/2 and
    the draw.
    """

    def __init__(
        self,
        classifier,
        *,
        attack,
        sources=(),
        include_self: bool = True,
        alpha: float = 0.5,
        label_smoothing: float = 0.0,
        seed: int = 0,
        name=None,
    ):
        super().__init__(
            classifier,
            attack=attack,
            alpha=alpha,
            label_smoothing=label_smoothing,
            seed=seed,
            name=name,
        )
        self.include_self = include_self
        self.use_sources(sources)

    def use_sources(self, sources):
        """Makes `sources` those that images are made for from now on."""

        # In a function: Keras makes models that it finds in an attribute its own.
        def frozen():
            return tuple(sources)

        self.frozen_sources = frozen

    def craft(self, x, y):
        predicts = [*self.frozen_sources(), *([self.logits] * self.include_self)]
        if not predicts:
            raise ValueError(
                "`sources` must hold at least one model where `include_self` is off"
            )
        y, seed = self.targets(x, y), self.step_seed(0)

        def attacked(predict):
            return lambda: self.attack(predict, x, y, seed=seed)

        # One draw for all replicas.
        draw = tf.random.stateless_uniform(
            [],
            self.step_seed(1, replica=0),
            maxval=len(predicts),
            dtype=tf.int32,
            alg="philox",
        )
        return tf.switch_case(draw, [attacked(predict) for predict in predicts])
