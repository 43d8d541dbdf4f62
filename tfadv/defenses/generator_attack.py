"""Wang & Yu 2019: a generator of perturbations against a classifier that is fixed."""

from tfadv.defenses.with_generator import WithGenerator


class GeneratorAttack(WithGenerator):
    """L = -mean J(D(x + eps G(.)), y), gone down by the weights of G alone.

    The classifier D is a finished one and answers in inference mode. What is trained is
    an attack, which `attacks.Generator` tries on D and on any other model.

    Args:
        classifier: D, trained.
        generator, eps, label_smoothing, seed: see `WithGenerator`.

    Source: Wang & Yu 2019, section 4.5 (Table 5).
    """

    keeps_classifier = True

    @property
    def trained_variables(self):
        return self.generator.trainable_variables

    def train_step(self, data):
        x, y = self.unpack(data)
        loss, logits = self.strengthen(x, y, self.step_seed(0), self.optimizer)
        return self.finish(loss, adversarial=(y, logits))
