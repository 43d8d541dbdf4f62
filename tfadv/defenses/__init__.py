"""Defences: training rules for a classifier, each a `keras.Model`."""

from tfadv import errors
from tfadv.defenses.adversarial import AdversarialTraining
from tfadv.defenses.base import Defense
from tfadv.defenses.kurakin import Kurakin
from tfadv.defenses.standard import Standard

DEFENSES = {
    "standard": Standard,
    "adversarial": AdversarialTraining,
    "kurakin": Kurakin,
}


def get(name):
    """The class of the defence `name`, or a `UsageError` that lists the names."""
    return errors.lookup(DEFENSES, name, "defense")


__all__ = [
    "DEFENSES",
    "AdversarialTraining",
    "Defense",
    "Kurakin",
    "Standard",
    "get",
]
