"""tfadv: adversarially robust image classifiers for TensorFlow 2 / Keras 3.

The parts follow the data: `tfadv.data`, `tfadv.models`, `tfadv.attacks`,
`tfadv.defenses`, `tfadv.training`, `tfadv.evaluation`, `tfadv.report`. Each is
imported by itself, so that `import tfadv` stays free of TensorFlow and the
binaries can answer `--help` at once.
"""

__version__ = "0.1.0"
