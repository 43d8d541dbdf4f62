"""Defences: training rules for a classifier, each a `keras.Model`."""

from tfadv import errors
from tfadv.defenses.adversarial import AdversarialTraining
from tfadv.defenses.adversarial_network import AdversarialNetwork
from tfadv.defenses.base import Defense
from tfadv.defenses.e2sad import E2SAD
from tfadv.defenses.ensemble import Ensemble
from tfadv.defenses.generator_attack import GeneratorAttack
from tfadv.defenses.kurakin import Kurakin
from tfadv.defenses.minimax import Minimax
from tfadv.defenses.mixed_batch import MixedBatch
from tfadv.defenses.satm import SATM
from tfadv.defenses.standard import Standard
from tfadv.defenses.unified_embedding import UnifiedEmbedding

DEFENSES = {
    "standard": Standard,
    "adversarial": AdversarialTraining,
    "adversarial_network": AdversarialNetwork,
    "e2sad": E2SAD,
    "ensemble": Ensemble,
    "generator_attack": GeneratorAttack,
    "kurakin": Kurakin,
    "minimax": Minimax,
    "satm": SATM,
    "unified_embedding": UnifiedEmbedding,
}


def get(name):
    """The class of the defence `name`, or a `UsageError` that lists the names."""
    return errors.lookup(DEFENSES, name, "defense")


__all__ = [
    "DEFENSES",
    "E2SAD",
    "SATM",
    "AdversarialNetwork",
    "AdversarialTraining",
    "Defense",
    "Ensemble",
    "GeneratorAttack",
    "Kurakin",
    "Minimax",
    "MixedBatch",
    "Standard",
    "UnifiedEmbedding",
    "get",
]
