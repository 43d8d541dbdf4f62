"""Attacks: `attack(predict, x, y, seed=None) -> x_adv`.

An attack is a frozen dataclass; its fields are its hyper-parameters. It takes any
`predict: x -> logits`, images x [n, h, w, c] in [0, 1] and labels y [n] (or their
probabilities [n, K]), changes no variable, and returns constants in [0, 1] within eps
of x in the l-inf norm; in l2 for `fast_grad_l2`, `cw_l2`, `deepfool` and those whose
field `norm` says so (all but the first take an eps above 1, too). A `predict` that
returns `core.Judged` makes attacks go along the training loss instead.
`dataclasses.replace(attack, eps=tensor)` gives every example an eps of its own.
"""

import functools

from tfadv import errors
from tfadv.attacks.apgd import APGD
from tfadv.attacks.autoattack import AutoAttack
from tfadv.attacks.carlini_wagner import CarliniWagner
from tfadv.attacks.deepfool import DeepFool
from tfadv.attacks.fab import FABTargeted
from tfadv.attacks.generator import Generator
from tfadv.attacks.iterative import Iterative
from tfadv.attacks.mi_fgsm import MomentumIterative
from tfadv.attacks.noise import RandomNormal, RandomSign
from tfadv.attacks.pgd import PGD
from tfadv.attacks.search import TARGETS
from tfadv.attacks.single_step import RandomStep, SingleStep, StepBoth
from tfadv.attacks.square import Square
from tfadv.attacks.virtual import Virtual

StepFGSM = SingleStep
StepLL = functools.partial(SingleStep, label="least_likely")
IterFGSM = Iterative
IterLL = functools.partial(Iterative, label="least_likely")
IFGSM = functools.partial(Iterative, steps=10)
APGDTargeted = functools.partial(APGD, loss="dlr", targets=TARGETS)

ATTACKS = {
    "step_fgsm": StepFGSM,
    "fgsm_pred": functools.partial(SingleStep, label="predicted"),
    "step_ll": StepLL,
    "step_both": StepBoth,
    "step_rnd": functools.partial(SingleStep, label="random"),
    "fast_entropy": functools.partial(SingleStep, loss="entropy"),
    "fast_grad_l2": functools.partial(SingleStep, direction="l2"),
    "fast_grad_linf": functools.partial(SingleStep, direction="linf"),
    "random_sign": RandomSign,
    "random_normal": RandomNormal,
    "r_fgsm": RandomStep,
    "r_step_ll": functools.partial(RandomStep, label="least_likely"),
    "virtual": Virtual,
    "generator": Generator,
    "iter_fgsm": IterFGSM,
    "iter_ll": IterLL,
    "ifgsm": IFGSM,
    "pgd": PGD,
    "mi_fgsm": MomentumIterative,
    "apgd": APGD,
    "apgd_t": APGDTargeted,
    "fab_t": FABTargeted,
    "square": Square,
    "autoattack": AutoAttack,
    "cw_l2": CarliniWagner,
    "deepfool": DeepFool,
}

# How a name is to be read in a report: which rows may be compared with which. Iterative
# is whatever asks the model many times, with gradients or without, in any norm: an l2
# ball lies in the l-inf ball of the same eps, so what is lost there is lost here.
NOISE = ("random_sign", "random_normal")
ITERATIVE = (
    "iter_fgsm",
    "iter_ll",
    "ifgsm",
    "pgd",
    "mi_fgsm",
    "apgd",
    "apgd_t",
    "fab_t",
    "square",
    "autoattack",
    "cw_l2",
    "deepfool",
)
ONE_STEP = tuple(name for name in ATTACKS if name not in NOISE + ITERATIVE)


def get(name):
    """The factory of the attack `name`, or a `UsageError` that lists the names."""
    return errors.lookup(ATTACKS, name, "attack")


__all__ = [
    "APGD",
    "ATTACKS",
    "IFGSM",
    "ITERATIVE",
    "NOISE",
    "ONE_STEP",
    "PGD",
    "APGDTargeted",
    "AutoAttack",
    "CarliniWagner",
    "DeepFool",
    "FABTargeted",
    "Generator",
    "IterFGSM",
    "IterLL",
    "Iterative",
    "MomentumIterative",
    "RandomNormal",
    "RandomSign",
    "RandomStep",
    "SingleStep",
    "Square",
    "StepBoth",
    "StepFGSM",
    "StepLL",
    "Virtual",
    "get",
]
