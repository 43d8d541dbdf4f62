import keras
import numpy as np
import pytest
from keras import layers

from tfadv import attacks
from tfadv.attacks import core
from tfadv.benchmark import evaluating
from tfadv.data import Images


def linear_model(shape, classes):
    return keras.Sequential(
        [keras.Input(shape), layers.Flatten(), layers.Dense(classes)]
    )


def test_gradients_of_a_block_by_counting():
    """Those that its docstring tells: the path of all sizes, and what each has more."""
    pixels = [round(255 * eps) for eps in evaluating.TABLE_EPS]
    steps = [core.kurakin_steps(eps) for eps in evaluating.TABLE_EPS]
    together = max(pixels) + sum(s - p for s, p in zip(steps, pixels, strict=True))
    assert (together, sum(steps)) == (23, 37)
    # Half a gradient for each of 16 measurements, and for labels: of iter_ll, 1 or 4.
    shared = 2 * (1 + together) + 16 / 2 + 1 / 2
    alone = 2 * (4 + sum(steps)) + 16 / 2 + 4 / 2
    assert (shared, alone) == (56.5, 92)
    assert alone / shared == pytest.approx(1.63, abs=0.01)


def test_a_block_is_measured_both_ways(monkeypatch):
    monkeypatch.setattr(evaluating, "TABLE_ATTACKS", ("step_ll", "iter_fgsm"))
    monkeypatch.setattr(evaluating, "TABLE_EPS", (1 / 255, 2 / 255))
    found = evaluating.table_block(count=3, rounds=1, make_model=linear_model)
    assert len(found) == 2
    assert min(found.values()) > 0


def test_twins_are_three():
    found = evaluating.twins(batch_size=2, rounds=1, steps=2, make_model=linear_model)
    assert list(found) == ["PGD-2, exact", "PGD-2, folded", "PGD-2, bfloat16"]


def test_both_searches_count_what_withstands():
    """Logits (m, -m), m = x0 - x1 of pixels: a step of 48 pixels moves m by 96."""
    inputs = keras.Input((1, 2, 1))
    model = keras.Model(
        inputs, layers.Dense(2, use_bias=False)(layers.Flatten()(inputs))
    )
    model.set_weights([np.array([[1.0, -1.0], [-1.0, 1.0]])])
    x = np.array([(200, 50), (150, 100), (100, 150), (140, 60)], np.uint8)
    images = Images(x=x[:, None, :, None], y=np.zeros(4, np.int32))
    _, accuracies = evaluating.search_in_bfloat16(model, images, 1, steps=4)
    # 150 withstands 96; 50 and 80 do not; -50 was wrong before.
    assert accuracies == {
        "float32": {"clean": 0.75, "pgd": 0.25},
        "bfloat16, then float32": {"clean": 0.75, "pgd in bfloat16": 0.25, "pgd": 0.25},
    }


def test_digits_four_times_as_large():
    x = np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1)
    images = Images(x=x, y=np.zeros(1, np.int32))
    large = evaluating._enlarged(images, 28).x[0, :, :, 0]
    assert large.shape == (28, 28)
    # Two of the 32 lines are cut on each side.
    np.testing.assert_array_equal(large[0, :7], [0, 0, 1, 1, 1, 1, 2])
    np.testing.assert_array_equal(large[:7, 0], [0, 0, 8, 8, 8, 8, 16])


def test_report_divides_the_slow_by_the_fast(monkeypatch):
    monkeypatch.setattr(evaluating, "table_block", lambda **_: {"a": 2.0, "b": 5.0})
    monkeypatch.setattr(evaluating, "twins", lambda **_: {"c": 4.0, "d": 3.0, "e": 1.0})
    monkeypatch.setattr(evaluating, "trained", lambda defended: (None, defended))
    monkeypatch.setattr(evaluating, "dropping", lambda *_: {"f": 9.0, "g": 3.0})
    accuracies = {"float32": {"pgd": 0.5}}
    monkeypatch.setattr(
        evaluating, "search_in_bfloat16", lambda *_: ({"h": 3.0, "i": 2.0}, accuracies)
    )
    found = evaluating.report(rounds=1)
    assert list(found["ratios"].values()) == [2.5, 0.75, 0.25, 3.0, 1.5, 3.0, 1.5]
    assert found["accuracies"] == dict.fromkeys(("undefended", "defended"), accuracies)
    assert any(line.split()[-1] == "2.50" for line in found["text"])
    assert found["text"][-1].startswith("defended, float32")


def test_gradients_of_what_is_dropped():
    """As `dropping` tells: the steps of each, one for those of one step."""
    assert round(255 * evaluating.EPS) == 48
    assert core.kurakin_steps(evaluating.EPS) == 52
    assert [attacks.get(n)(eps=0.1).steps for n in ("pgd", "mi_fgsm", "ifgsm")] == [
        10,
        10,
        10,
    ]
