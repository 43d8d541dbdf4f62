import json
import platform

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfadv
from tfadv.evaluation.whitebox import row
from tfadv.report import results

ROWS = [row("clean", 0.0, 9, 10), row("pgd", 8 / 255, 3, 10)]


@pytest.mark.parametrize(
    ("steps", "full_steps", "expected"),
    [(40, 2000, 2000), (2000, None, 2000), (None, None, None)],
)
def test_compose_says_what_was_measured_on_what(steps, full_steps, expected):
    found = results.compose(
        ROWS, config={"data": {}}, seed=3, steps=steps, full_steps=full_steps
    )
    assert json.loads(json.dumps(found)) == {
        "rows": ROWS,
        "config": {"data": {}},
        "seed": 3,
        "steps": steps,
        "full_steps": expected,
        "versions": {
            "tfadv": tfadv.__version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }
