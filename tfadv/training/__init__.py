"""Training: one loop, its checkpoints and what it shows."""

from tfadv.training.callbacks import EarlyStopping, Progress, Summaries
from tfadv.training.checkpoints import Checkpoints, start_from
from tfadv.training.loop import train

__all__ = [
    "Checkpoints",
    "EarlyStopping",
    "Progress",
    "Summaries",
    "start_from",
    "train",
]
