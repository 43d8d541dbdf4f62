import importlib
import math
import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfadv.benchmark import peers

SETTINGS = {"eps": 8 / 255, "step_size": 3 / 255}


def adapter(name):
    return importlib.import_module(f"tfadv.benchmark.peers.{name}")


@pytest.fixture
def classifier():
    """(model, v): logits c v . x for c = 0 .. 9.

    The gradient of J(x, y) is v (sum_c p_c c - y): along v for y = 0, against it for
    y = 9, at every x.
    """
    v = np.random.default_rng(1).choice([-0.1, 0.1], 12).astype(np.float32)
    model = keras.Sequential(
        [
            keras.Input((2, 2, 3)),
            keras.layers.Flatten(),
            keras.layers.Dense(10, use_bias=False),
        ]
    )
    model.set_weights([np.outer(v, np.arange(10))])
    return model, v.reshape(2, 2, 3)


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("own", "tfadv"),
        ("bare", "tensorflow"),
        ("foolbox", "foolbox"),
        ("art", "art.estimators.classification"),
        ("cleverhans", "cleverhans.tf2.attacks.projected_gradient_descent"),
    ],
)
# Old packages, which warn of what they still use.
@pytest.mark.filterwarnings("ignore")
def test_images_of_real_libraries(classifier, name, module, steps):
    """min(8, 3 steps) pixels along the sign, and 8 of FGSM, within [0, 1]."""
    pytest.importorskip(module)
    model, v = classifier
    x = np.random.default_rng(0).random((4, 2, 2, 3), np.float32)
    x[0], x[1] = 0.01, 0.99
    y = np.array([0, 9, 9, 0], np.int32)
    towards = np.sign(v) * np.where(y == 0, 1, -1)[:, None, None, None]
    crafters = adapter(name).crafters(model, **SETTINGS, steps=steps)
    for attack, pixels in (("PGD", min(8, 3 * steps)), ("FGSM", 8)):
        crafted = crafters[attack](tf.constant(x), tf.constant(y))
        expected = np.clip(x + pixels / 255 * towards, 0, 1)
        np.testing.assert_allclose(np.asarray(crafted), expected, atol=1e-6)


def module(monkeypatch, name, **contents):
    made = types.ModuleType(name)
    vars(made).update(contents)
    monkeypatch.setitem(sys.modules, name, made)


def modules(monkeypatch, *names):
    for name in names:
        module(monkeypatch, name)


class Recorder:
    """A callable that keeps the arguments of its calls and returns `answer`."""

    def __init__(self, answer):
        self.answer, self.calls = answer, []

    def __call__(self, *args, **kwargs):
        self.calls.append((args, kwargs))
        return self.answer


X, Y = tf.zeros([2, 2, 2, 3]), tf.constant([3, 4])


def test_foolbox_is_called_without_a_random_start(monkeypatch, classifier):
    pgd, fgsm = Recorder(("raw", "within", "won")), Recorder(("raw", "near", "won"))
    made = Recorder(pgd), Recorder(fgsm)
    attacks = types.SimpleNamespace(LinfPGD=made[0], LinfFastGradientAttack=made[1])
    wrapped = Recorder("the model")
    module(monkeypatch, "foolbox", attacks=attacks, TensorFlowModel=wrapped)
    crafters = adapter("foolbox").crafters(classifier[0], **SETTINGS, steps=5)
    assert crafters["PGD"](X, Y) == "within"
    assert crafters["FGSM"](X, Y) == "near"
    arguments = {"abs_stepsize": 3 / 255, "steps": 5, "random_start": False}
    assert made[0].calls == [((), arguments)]
    assert made[1].calls == [((), {"random_start": False})]
    assert wrapped.calls[0][1] == {"bounds": (0, 1)}
    (model, _, labels), arguments = pgd.calls[0]
    assert model == "the model"
    assert arguments == {"epsilons": 8 / 255}
    assert labels.dtype == tf.int64
    assert labels.numpy().tolist() == [3, 4]


def test_art_is_called_without_a_random_start(monkeypatch, classifier):
    generated = Recorder("images")
    attack = types.SimpleNamespace(generate=generated)
    pgd, fgsm, wrapped = Recorder(attack), Recorder(attack), Recorder("the classifier")
    modules(monkeypatch, "art", "art.attacks", "art.estimators")
    module(
        monkeypatch,
        "art.attacks.evasion",
        ProjectedGradientDescent=pgd,
        FastGradientMethod=fgsm,
    )
    module(monkeypatch, "art.estimators.classification", TensorFlowV2Classifier=wrapped)
    crafters = adapter("art").crafters(classifier[0], **SETTINGS, steps=5)
    assert crafters["PGD"](X, Y) == crafters["FGSM"](X, Y) == "images"
    (about,) = [arguments for _, arguments in wrapped.calls]
    assert about["nb_classes"] == 10
    assert about["input_shape"] == (2, 2, 3)
    assert about["clip_values"] == (0.0, 1.0)
    common = {"eps": 8 / 255, "num_random_init": 0, "batch_size": 2}
    iterated = {"eps_step": 3 / 255, "max_iter": 5, "verbose": False}
    assert pgd.calls == [(("the classifier",), common | iterated)]
    assert fgsm.calls == [(("the classifier",), common | {"eps_step": 8 / 255})]
    images, labels = generated.calls[0][0]
    assert isinstance(images, np.ndarray)
    assert labels.tolist() == [3, 4]


def test_cleverhans_is_called_without_a_random_start(monkeypatch, classifier):
    pgd, fgsm = Recorder("iterated"), Recorder("stepped")
    package = "cleverhans.tf2.attacks"
    modules(monkeypatch, "cleverhans", "cleverhans.tf2", package)
    one, many = "fast_gradient_method", "projected_gradient_descent"
    module(monkeypatch, f"{package}.{one}", **{one: fgsm})
    module(monkeypatch, f"{package}.{many}", **{many: pgd})
    crafters = adapter("cleverhans").crafters(classifier[0], **SETTINGS, steps=5)
    assert crafters["PGD"](X, Y) == "iterated"
    assert crafters["FGSM"](X, Y) == "stepped"
    common = {"norm": math.inf, "clip_min": 0.0, "clip_max": 1.0}
    (predict, x, *sizes), arguments = pgd.calls[0]
    assert x is X
    assert sizes == [8 / 255, 3 / 255, 5]
    assert arguments.pop("y") is Y
    assert arguments == common | {"rand_init": False}
    # The same function each time: it is traced once.
    crafters["PGD"](X, Y)
    assert pgd.calls[1][0][0] is predict
    assert fgsm.calls[0][0][2:] == (8 / 255,)


def fake(monkeypatch, name, crafters, needs="tfadv"):
    module(
        monkeypatch,
        f"tfadv.benchmark.peers.{name}",
        NAME=name,
        MODULE=needs,
        DISTRIBUTION=f"{name}-of-no-version",
        crafters=crafters,
    )


def adding(amount):
    return lambda model, **_: {"PGD": lambda x, y: x + amount}


def compare(*adapters):
    return peers.compare(
        adapters=adapters,
        batch_size=2,
        rounds=1,
        make_model=lambda shape, classes: None,
    )


def test_who_is_missing_or_fails_stops_nobody(monkeypatch):
    def failing(model, **_):
        raise TypeError("wants another NumPy\nand says it at length")

    def failing_later(model, **_):
        def craft(x, y):
            raise KeyError

        return {"PGD": craft}

    fake(monkeypatch, "first", adding(0.0))
    fake(monkeypatch, "absent", adding(0.0), needs="no_such_module")
    fake(monkeypatch, "broken", failing)
    fake(monkeypatch, "breaking", failing_later)
    fake(monkeypatch, "last", adding(0.0))
    found = compare("first", "absent", "broken", "breaking", "last")
    assert found["rows"][:3] == [
        {
            "library": "absent",
            "missing": "not installed (pip install absent-of-no-version)",
        },
        {"library": "broken", "failed": "TypeError: wants another NumPy"},
        {"library": "breaking", "failed": "KeyError: "},
    ]
    measured = found["rows"][3:]
    assert [row["library"] for row in measured] == ["first", "last"]
    assert [row["attack"] for row in measured] == ["PGD-10"] * 2
    assert measured[1]["ratio"] == measured[1]["seconds"] / measured[0]["seconds"]
    lines = peers.text(found)
    assert lines[0].startswith("l-inf 8/255, step 2/255, 2 images")
    assert lines[1].split(maxsplit=1) == [
        "absent",
        "not installed (pip install absent-of-no-version)",
    ]
    assert "failed: TypeError: wants another NumPy" in lines[2]
    assert lines[-1].endswith("same images")


def test_other_images_are_called_so(monkeypatch):
    fake(monkeypatch, "first", adding(0.0))
    fake(monkeypatch, "near", adding(5e-6))
    fake(monkeypatch, "far", adding(0.25))
    found = compare("first", "near", "far")
    near, far = found["rows"][1:]
    assert near["same"] and near["equal"] == 1.0
    assert not far["same"] and far["equal"] == 0.0
    assert far["apart"] == pytest.approx(0.25)
    line = peers.text(found)[-1]
    assert "OTHER images: 0.0 % of the pixels equal, at most 0.25 apart" in line


def test_the_first_adapter_must_run(monkeypatch):
    fake(monkeypatch, "absent", adding(0.0), needs="no_such_module")
    with pytest.raises(RuntimeError, match=r"'absent'.*not installed"):
        compare("absent")


def test_agreement_by_hand():
    """Of 200 values one is 0.5 away, then three are; or the shape is another."""
    reference = np.zeros((2, 10, 10, 1))
    images = reference.copy()
    images[0, 0, 0] = 0.5
    expected = {"equal": 0.995, "apart": 0.5, "same": True}
    assert peers.agreement(images, reference) == expected
    images[0, 0, :3] = 0.5
    expected = {"equal": 0.985, "apart": 0.5, "same": False}
    assert peers.agreement(images, reference) == expected
    nothing = {"equal": 0.0, "apart": None, "same": False}
    assert peers.agreement(images[:1], reference) == nothing
    images[1, 0, 0] = np.nan
    assert peers.agreement(images, reference) == nothing
