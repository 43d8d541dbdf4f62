import dataclasses
import pathlib

import keras
import pytest

from tfadv import config, cost, data
from tfadv.defenses import Standard

CONFIGS = pathlib.Path(__file__).resolve().parents[1] / "configs"


def test_operations_of_a_forward_pass():
    """conv: 4 x 4 places x 3 filters x (3 x 3 x 2 products, added up, and a bias);
    dense: 5 sums of 48 products and a bias. A product and its addition are two."""
    network = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(3, 3),
            keras.layers.Flatten(),
            keras.layers.Dense(5),
        ]
    )
    conv = 4 * 4 * 3 * (2 * 3 * 3 * 2 + 1)
    dense = 5 * (2 * 48 + 1)
    assert cost.gigaflop_per_image(network) == pytest.approx((conv + dense) / 1e9)


@pytest.fixture
def found(monkeypatch):
    """Of 10 + 1 steps that take 2 s and passes of 1/2 s, by a clock of its own."""

    def medians(candidates, rounds):
        for run in candidates.values():
            run()
        return dict(zip(candidates, (2.0, 0.5), strict=True))

    monkeypatch.setattr(cost.benchmark, "medians", medians)

    def read(split, data_dir):
        raise AssertionError(f"{split} data was read")

    unreadable = dataclasses.replace(data.get("digits"), read=read)
    monkeypatch.setitem(data.DATASETS, "digits", unreadable)

    def measure(method, *overrides):
        tables = config.load(CONFIGS / f"{method}.toml", overrides)
        return cost.of_configuration(tables, rounds=1)

    return measure


def test_the_time_of_a_schedule(found):
    """64 images in 2 s; 900 steps of 2 s are half an hour."""
    one = found("kurakin", "train.steps=900", "train.batch_size=64")
    assert one["images_per_second"] == 32
    assert one["hours"] == pytest.approx(0.5)
    assert one["forward_passes"] == 4
    flop = one["gigaflop_per_image"][0] * 64
    assert one["gigaflops"] == pytest.approx(flop / 0.5)
    assert 0.1 < one["peak_gigabytes"] < 100
    text = cost.text(one)
    assert "a training step of 64 images: 2 s, 32 images/s" in text
    assert "its 900 steps: 0.5 hours" in text


@pytest.mark.parametrize(
    ("method", "small", "networks"),
    [
        ("cascade", "model.width=4", 1),
        ("ensemble", "model.width=4", 1),
        ("adversarial_network", "defense.generator_steps=1", 1),
        ("satm", "model.width=4", 2),
    ],
)
def test_what_a_training_needs_finished_is_replaced(found, method, small, networks):
    options = [small]
    if method == "adversarial_network":
        options += ["generator.k=2", "defense.regularizer=none"]
    assert len(found(method, *options)["parameters"]) == networks


def test_another_precision_is_timed_beside_float32(monkeypatch):
    """The step is made in bfloat16 and 3 s long, that in float32 takes 4 s."""
    computed = []

    def medians(candidates, rounds):
        assert list(candidates)[-1] == "float32 training step"
        for run in candidates.values():
            run()
        return dict(zip(candidates, (3.0, 0.5, 4.0), strict=True))

    step = Standard.train_step

    def noted(self, data):
        computed.append(self.classifier.layers[2].compute_dtype)
        return step(self, data)

    monkeypatch.setattr(cost.benchmark, "medians", medians)
    monkeypatch.setattr(Standard, "train_step", noted)
    tables = config.load(CONFIGS / "standard.toml")
    options = ["model.width=4", "train.precision=mixed_bfloat16"]
    found = cost.of_configuration(config.override(tables, options), rounds=1)
    # Each is traced once or twice, as variables are made.
    assert list(dict.fromkeys(computed)) == ["bfloat16", "float32"]
    assert found["precision"] == "mixed_bfloat16"
    assert found["seconds_per_step"] == 3
    assert found["float32_seconds_per_step"] == 4
    assert "in mixed_bfloat16: 0.75 of the 4 s in float32" in cost.text(found)
