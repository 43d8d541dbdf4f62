"""What tfadv's own code costs: its parts, its evaluation, other libraries beside it."""

from tfadv.benchmark import evaluating, peers
from tfadv.benchmark.parts import report
from tfadv.benchmark.timing import medians

__all__ = ["evaluating", "medians", "peers", "report"]
