"""Attacks that search on a cheap twin of the model before they ask the model itself."""

import dataclasses

import keras
import tensorflow as tf

from tfadv.attacks import NOISE, core
from tfadv.evaluation import suite
from tfadv.training.precision import computing


def in_bfloat16(model):
    """The model in inference mode, its layers in bfloat16: predict x -> logits float32.

    What stays float32, see `training.precision.computing`: pixels, weights, logits.
    About one sign in twenty of a gradient is another one than the model's, so attacks
    may search with it, but what they have found the model itself must judge. It is
    faster only where the processor has instructions for bfloat16.

    Args:
        model: a built functional or sequential `keras.Model`. Copied: what happens to
            its weights later does not change `predict`.

    Returns:
        predict: x [n, h, w, c] float32 in [0, 1] -> logits [n, K] float32.
    """
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    # Its layers are those of the copy, whose last ones it finds.
    holder = keras.Sequential([copy])
    predict = tf.function(lambda x: copy(x, training=False))
    spec = tf.TensorSpec(model.inputs[0].shape, tf.float32)
    with computing(holder, precision="mixed_bfloat16"):
        traced = predict.get_concrete_function(spec)
    # It holds its variables weakly: with the copy it stays as long as it is called.
    return lambda x, kept=copy: traced(x)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """An attack that is crafted on another model than the one it is asked to attack.

    Args:
        attack: with any eps.
        predict: x -> logits, or a `core.Judged`, which takes the place of the one that
            is passed.
    """

    attack: object
    predict: object

    @property
    def norm(self):
        """Of the attack: `"linf"` or `"l2"`."""
        return suite.norm_of(self.attack)

    def __call__(self, predict, x, y, seed=None):
        """Returns x_adv [n, h, w, c]; `predict` is not asked."""
        del predict
        return self.attack(self.predict, x, y, seed=seed)

    def sweep(self, predict, x, y, sizes, seed=None):
        """[x_adv at each eps of `sizes`], as `core.sweep` of the attack makes them."""
        del predict
        return core.sweep(self.attack, self.predict, x, y, sizes, seed)


def first_on(predict, entries, where):
    """`entries`, each attack once more before itself, crafted on a cheap twin.

    For `whitebox.measure` with `drop_broken`: whatever the twin's images break is not
    attacked again, what they leave is, on the model itself. With A the images that an
    attack on the model leaves right and B those that the twin's images leave right, of
    which the model is the judge, the row of an attack then counts A and B together:

        |A and B| <= |A|

    so no accuracy is larger than without the twin, however bad that is; it only costs
    time where it breaks little. This holds image by image for attacks that draw no
    random numbers and do not, as `step_both`, go by the place in the batch. Those that
    draw do so otherwise than without the twin (see `drop_broken`), and the bound is
    that of another seed.

    Args:
        predict: x -> logits, of the twin.
        entries: `suite.Entry`s.
        where: what the twin is, for labels.

    Returns:
        list of `suite.Entry`, twice as long; noise, which asks no model, once.
    """
    both = []
    for one in entries:
        if one.name not in NOISE:
            twin = Elsewhere(attack=one.attack, predict=predict)
            label = f"{one.label} in {where}"
            both.append(dataclasses.replace(one, label=label, attack=twin))
        both.append(one)
    return both
