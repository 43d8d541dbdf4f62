"""Training: one loop, its checkpoints and what it shows."""

from tfadv.training.best import Best
from tfadv.training.callbacks import EarlyStopping, Progress, Summaries
from tfadv.training.checkpoints import Checkpoints, start_from
from tfadv.training.divergence import (
    FiniteCheckpoints,
    Rewinds,
    Watch,
    guarded,
    recorded,
)
from tfadv.training.loop import train
from tfadv.training.precision import computing
from tfadv.training.profiling import Profile

__all__ = [
    "Best",
    "Checkpoints",
    "EarlyStopping",
    "FiniteCheckpoints",
    "Profile",
    "Progress",
    "Rewinds",
    "Summaries",
    "Watch",
    "computing",
    "guarded",
    "recorded",
    "start_from",
    "train",
]
