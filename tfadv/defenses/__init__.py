"""Defences: training rules for a classifier, each a `keras.Model`."""

from tfadv import errors
from tfadv.defenses.adversarial import AdversarialTraining
from tfadv.defenses.base import Defense
from tfadv.defenses.kurakin import Kurakin
from tfadv.defenses.mixed_batch import MixedBatch
from tfadv.defenses.standard import Standard
from tfadv.defenses.unified_embedding import UnifiedEmbedding

DEFENSES = {
    "standard": Standard,
    "adversarial": AdversarialTraining,
    "kurakin": Kurakin,
    "unified_embedding": UnifiedEmbedding,
}


def get(name):
    """The class of the defence `name`, or a `UsageError` that lists the names."""
    return errors.lookup(DEFENSES, name, "defense")


__all__ = [
    "DEFENSES",
    "AdversarialTraining",
    "Defense",
    "Kurakin",
    "MixedBatch",
    "Standard",
    "UnifiedEmbedding",
    "get",
]
