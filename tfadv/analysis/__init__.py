"""Analyses: how a network's logits, gradients and accuracy change with what is done.

Each module is one figure's numbers: functions of `predict` callables and arrays that
return plain numbers. `report.analysis_plots` draws them, `tfadv.analyze` does both for
the workdirs of finished runs.
"""
