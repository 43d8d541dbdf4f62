"""Evaluation: a predict function, images and attacks in, rows of accuracy out."""

from tfadv.evaluation.whitebox import format_eps, measure

__all__ = ["format_eps", "measure"]
