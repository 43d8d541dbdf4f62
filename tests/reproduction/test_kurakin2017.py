"""The tables and figures of Kurakin et al. 2017: what they hold, what is trained."""

import itertools
import pathlib

import pytest

from tfadv.attacks import SingleStep
from tfadv.reproduction import tables
from tfadv.reproduction.models import Models

ROOT = pathlib.Path(__file__).resolve().parents[2] / "configs" / "tables"

# Read off the paper's pages again, not off the files: a row, what it is attacked with,
# and what follows in that line of the paper, clean images first.
WHITE = {
    1: """
        Baseline | step_ll | 78.4 30.8 27.2 27.2 29.5
        Baseline | step_ll_top5 | 94.0 60.0 55.6 55.1 57.2
        Adv. training | step_ll | 77.6 73.5 74.0 74.5 73.9
        Adv. training | step_ll_top5 | 93.8 91.7 91.9 92.0 91.4
        Deeper model | step_ll | 78.7 33.5 30.0 30.0 31.6
        Deeper model | step_ll_top5 | 94.4 63.3 58.9 58.1 59.5
        Deeper model (Adv. training) | step_ll | 78.1 75.4 75.7 75.6 74.4
        Deeper model (Adv. training) | step_ll_top5 | 94.1 92.6 92.7 92.5 91.6
    """,
    2: """
        Adv. training | iter_ll | 77.4 29.1 7.5 3.0 1.5
        Adv. training | iter_ll_top5 | 93.9 56.9 21.3 9.4 5.5
        Baseline | iter_ll | 78.3 23.3 5.5 1.8 0.7
        Baseline | iter_ll_top5 | 94.1 49.3 18.8 7.8 4.4
        Adv. training | iter_fgsm | 77.4 30.0 25.2 23.5 23.2
        Adv. training | iter_fgsm_top5 | 93.9 44.3 33.6 28.4 26.8
        Baseline | iter_fgsm | 78.3 31.4 28.1 26.4 25.9
        Baseline | iter_fgsm_top5 | 94.1 43.1 34.8 30.2 28.8
    """,
    3: """
        No label leaking (step_ll) | step_ll | 77.3 72.8 73.1 73.4 72.0
        No label leaking (step_ll) | step_ll_top5 | 93.7 91.1 91.1 91.0 90.3
        With label leaking (step_fgsm) | step_fgsm | 76.6 86.2 87.6 88.7 87.0
        With label leaking (step_fgsm) | step_fgsm_top5 | 93.2 95.9 96.4 96.9 96.4
    """,
    5: """
        No adversarial training | step_fgsm | 76.8 40.7 39.0 37.9 36.7
        FGSM | step_fgsm | 74.9 79.3 82.8 85.3 83.2
        Fast with predicted class | step_fgsm | 76.4 43.2 42.0 40.9 40.0
        Fast entropy | step_fgsm | 76.4 62.8 61.7 59.5 54.8
        Step rnd. | step_fgsm | 76.4 73.0 75.4 76.5 72.5
        Step l.l. | step_fgsm | 76.3 72.9 75.1 76.2 72.2
        Fast grad. L2 | step_ll | 76.8 44.0 33.2 26.4 22.5
        Fast grad. Linf | step_ll | 75.6 52.2 39.7 30.9 25.0
        Sign of random perturbation | step_fgsm | 76.5 38.8 36.6 35.0 32.7
        Random normal perturbation | step_fgsm | 76.6 38.3 36.0 34.4 31.8
    """,
    7: """
        relu | step_ll | 77.5 74.6 75.1 75.5 74.5
        relu6 | step_ll | 77.7 71.8 73.5 74.5 74.0
        ReluDecay 0.001 | step_ll | 78.0 74.0 74.9 75.2 73.9
        ReluDecay 0.01 | step_ll | 77.4 73.6 74.6 75.0 73.6
        ReluDecay 0.1 | step_ll | 75.3 67.5 67.5 67.0 64.8
        tanh | step_ll | 74.5 63.7 65.1 65.8 61.9
        relu | iter_ll | 77.5 30.2 8.0 3.1 1.6
        relu6 | iter_ll | 77.7 39.8 13.7 4.1 1.9
        ReluDecay 0.001 | iter_ll | 78.0 39.9 12.6 3.8 1.8
        ReluDecay 0.01 | iter_ll | 77.4 36.2 11.2 3.2 1.6
        ReluDecay 0.1 | iter_ll | 75.3 47.0 25.8 6.5 2.4
        tanh | iter_ll | 74.5 35.8 6.6 2.7 0.9
        relu | iter_fgsm | 77.5 28.4 23.2 21.5 21.0
        relu6 | iter_fgsm | 77.7 31.2 26.1 23.8 23.2
        ReluDecay 0.001 | iter_fgsm | 78.0 32.9 27.2 24.7 24.1
        ReluDecay 0.01 | iter_fgsm | 77.4 30.0 24.2 21.4 20.5
        ReluDecay 0.1 | iter_fgsm | 75.3 26.7 20.6 16.5 15.2
        tanh | iter_fgsm | 74.5 24.5 22.0 20.9 20.7
    """,
    8: """
        No adv | step_ll | 78.2 31.5 27.7 27.8 29.7
        Adv, k=4 | step_ll | 78.3 71.7 71.3 69.4 65.8
        Adv, k=8 | step_ll | 78.1 73.2 73.2 72.6 70.5
        Adv, k=16 | step_ll | 77.6 73.8 75.3 76.1 75.4
        Adv, k=24 | step_ll | 77.1 73.0 75.3 76.2 76.0
        Adv, k=32 | step_ll | 76.3 73.4 75.1 75.9 75.8
    """,
}
# The paper's lines are sources, with the targets A to D under step_fgsm, iter_fgsm and
# iter_ll: four of top-1, then four of top-5.
BLACK = {
    4: """
        100 56 58 47 100 46 45 33 100 13 13 9
        58 100 59 51 41 100 40 30 15 100 13 10
        56 58 100 52 44 44 100 32 12 11 100 9
        50 54 52 100 35 39 37 100 12 13 13 100
        100 50 50 36 100 15 17 11 100 8 7 5
        51 100 50 37 16 100 14 10 7 100 5 4
        44 45 100 37 16 18 100 13 6 6 100 4
        42 38 46 100 11 15 15 100 6 6 6 100
    """,
    6: """
        65 52 53 45 78 51 50 42 100 32 31 27
        52 66 54 48 50 79 51 43 35 99 34 29
        53 55 70 50 47 46 74 40 31 30 100 28
        47 51 49 62 43 46 45 73 30 31 31 99
        46 28 28 22 76 17 18 13 94 12 12 9
        29 46 30 22 19 76 18 16 13 96 12 11
        28 29 55 25 18 19 74 15 12 12 96 9
        23 22 25 40 14 16 16 70 11 11 11 97
    """,
}
NETWORKS = {"A": "A (v3)", "B": "B (v3)", "C": "C (v3 ELU)", "D": "D (v4)"}
SIZES = (2, 4, 8, 16)


def read(name):
    return tables.read(ROOT / f"kurakin2017_{name}.toml")


def numbers(table):
    """{(row, column, eps in pixels, source): published}."""
    return {
        (row.name, cell.attack, round(255 * cell.eps), cell.source): cell.published
        for row in table.rows
        for cell in row.cells
    }


@pytest.mark.parametrize("number", WHITE)
def test_every_number_of_a_white_box_table_is_that_of_the_paper(number):
    expected = {}
    for line in WHITE[number].strip().splitlines():
        row, column, printed = (part.strip() for part in line.split("|"))
        clean, *attacked = map(float, printed.split())
        top5 = "_top5" if column.endswith("_top5") else ""
        # Printed again beside every attack.
        assert expected.setdefault((row, f"clean{top5}", 0, None), clean) == clean
        for eps, value in zip(SIZES, attacked, strict=True):
            expected[row, column, eps, None] = value
    table = read(f"table{number}")
    assert numbers(table) == expected
    metrics = {c.attack: c.metric for row in table.rows for c in row.cells}
    assert all(m == ("top5" if "top5" in c else "accuracy") for c, m in metrics.items())


@pytest.mark.parametrize(
    ("number", "metric"), [(4, "transfer_rate"), (6, "error_rate")]
)
def test_every_number_of_a_black_box_table_is_that_of_the_paper(number, metric):
    expected = {}
    lines = BLACK[number].strip().splitlines()
    for (top5, source), line in zip(
        itertools.product(("", "top5_"), NETWORKS), lines, strict=True
    ):
        places = itertools.product(("step_fgsm", "iter_fgsm", "iter_ll"), NETWORKS)
        for (attack, target), value in zip(places, line.split(), strict=True):
            column = f"{attack}_from_{top5}{metric}"
            expected[NETWORKS[target], column, 16, source] = float(value)
    table = read(f"table{number}")
    assert numbers(table) == expected
    for row in table.rows:
        assert NETWORKS[row.model] == row.name
        for cell in row.cells:
            assert cell.attack.endswith(f"_from_{cell.metric}")


OURS = [f"cifar10_table{number}" for number in (1, 3, 5, 7, 8)]
OURS += [f"cifar10_figure{number}" for number in (1, 2, 3)]
FIGURES = [f"figure{number}" for number in range(1, 6)]


@pytest.mark.parametrize("name", OURS + FIGURES)
def test_what_is_not_published_is_measured_everywhere(name):
    """As many cells as rows, columns and sizes, none with a number."""
    table = read(name)
    assert ("(ours)" in table.title) == (name in OURS)
    assert set(numbers(table).values()) == {None}
    for row in table.rows:
        attacked = [cell for cell in row.cells if cell.attack not in tables.CLEAN]
        assert len(attacked) == sum(map(len, table.eps.values()))
        assert "clean" in {cell.attack for cell in row.cells}


@pytest.mark.parametrize(
    ("name", "x", "metric"),
    [
        ("figure1", "at", "robustness_ratio"),
        ("figure2", "eps", "transfer_rate"),
        ("figure3", "eps", "accuracy"),
        ("figure4", "at", "top5_robustness_ratio"),
        ("figure5", "eps", "error_rate"),
        ("cifar10_figure1", "at", "robustness_ratio"),
        ("cifar10_figure2", "eps", "transfer_rate"),
        ("cifar10_figure3", "eps", "accuracy"),
    ],
)
def test_figures_show_what_those_of_the_paper_show(name, x, metric):
    table = read(name)
    assert (table.figure.x, table.figure.metric) == (x, metric)
    if x == "at":
        widths = [0.5, 0.75, 1.0, 1.25, 1.5, 2.0]
        if "cifar10" in name:
            widths.remove(1.25)
        assert [row.at for row in table.rows] == widths * 2
        groups = ["no adversarial training", "trained with step_ll"]
        assert [row.group for row in table.rows] == [g for g in groups for _ in widths]


@pytest.mark.parametrize("name", ["figure3", "cifar10_figure3"])
def test_figure_3_has_all_nine_one_step_methods(name):
    assert set(read(name).attacks) == {
        *("step_fgsm", "fgsm_pred", "fast_entropy", "fast_grad_l2", "fast_grad_linf"),
        *("step_ll", "step_rnd", "random_sign", "random_normal"),
    }


# ---------------------------------------------------------------------- what is trained


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """Name of a model -> its resolved configuration."""
    models = Models(read("figure1"), tmp_path_factory.mktemp("imagenet"))
    return lambda name: models.get(name).experiment.config


@pytest.fixture(scope="module")
def cifar10(tmp_path_factory):
    models = Models(read("cifar10_figure1"), tmp_path_factory.mktemp("cifar10"))
    return lambda name: models.get(name).experiment.config


def test_the_settings_of_the_paper(imagenet):
    """Of section 4, and of Szegedy et al. 2016 where it says nothing."""
    found = imagenet("A_adv")
    assert found["data"]["name"] == "imagenet2012"
    assert (found["data"]["size"], found["data"]["preprocess"]) == (299, "inception")
    # 50 machines with 32 images, half of them adversarial.
    assert found["train"]["batch_size"] == 50 * 32
    assert (found["train"]["steps"], found["train"]["seed"]) == (150_000, 1)
    assert found["attack"] == {
        "name": "step_ll",
        "eps": 16 / 255,
        "label": "least_likely",
        "loss": "cross_entropy",
        "direction": "sign",
    }
    defense = found["defense"]
    assert (defense["k"], defense["adversarial_weight"]) == (50 * 16, 0.3)
    assert (defense["eps_law"], defense["delay"]) == ("truncated", 10_000)
    assert (defense["label_smoothing"], defense["auxiliary_layer"]) == (0.1, "mixed_6e")
    # Weight .4 is the default, which is left out.
    assert "auxiliary_weight" not in defense
    assert found["model"]["dropout"] == 0.2 and found["model"]["weight_decay"] == 4e-5
    optimizer = found["optimizer"]
    assert (optimizer["name"], optimizer["learning_rate"]) == ("rmsprop", (0.045,))
    assert (optimizer["rho"], optimizer["momentum"], optimizer["epsilon"]) == (
        *(0.9, 0.9),
        1.0,
    )
    # Two epochs of 1,281,167 images.
    assert (optimizer["decay_rate"], optimizer["decay_steps"]) == (
        0.94,
        round(2 * 1_281_167 / 1600),
    )
    assert optimizer["ema_momentum"] == 0.9999 and optimizer["global_clipnorm"] == 2.0


def test_networks_without_adversarial_training_keep_their_head(imagenet):
    """They are trained as the others but that the delay never ends."""
    plain, trained = imagenet("A"), imagenet("A_adv")
    assert plain["defense"]["delay"] == plain["train"]["steps"]
    delayed = trained["defense"] | {"delay": 150_000}
    assert plain == trained | {"defense": delayed}


@pytest.mark.parametrize("fraction", [0.3, 0.02, 0.00123])
def test_nor_are_they_trained_adversarially_in_short(tmp_path, fraction):
    for name in ("A", "B", "C", "D", "none_90k", "A_140k", "width_150"):
        found = Models(read("figure1"), tmp_path, fraction=fraction).get(name)
        assert found.experiment.config["defense"]["delay"] >= found.steps


@pytest.mark.parametrize(
    ("name", "section", "changed"),
    [
        ("C", "model", {"activation": "elu"}),
        ("deeper", "model", {"extra_blocks": 2}),
        ("deeper_adv", "model", {"extra_blocks": 2}),
        ("relu_decay_0001_adv", "model", {"activation": "relu_decay_0.001"}),
        ("tanh_adv", "defense", {"auxiliary_activation": "tanh"}),
        ("width_125", "model", {"width": 1.25}),
        ("width_125_adv", "defense", {"auxiliary_width": 1.25}),
        ("k24", "defense", {"k": 24 * 50}),
        ("step_ll_slow", "optimizer", {"learning_rate": (0.0225,)}),
        ("step_ll_90k", "train", {"steps": 90_000}),
        ("A_140k", "train", {"steps": 140_000}),
        ("B", "train", {"seed": 2}),
    ],
)
def test_in_what_a_network_differs(imagenet, name, section, changed):
    found, defended = imagenet(name), imagenet("A_adv")
    base = defended if found["defense"]["delay"] == 10_000 else imagenet("A")
    differing = {
        key for key, value in found[section].items() if base[section].get(key) != value
    }
    assert {key: found[section][key] for key in differing} == changed


@pytest.mark.parametrize("suffix", ["_90k", ""])
def test_the_methods_of_table_5_are_those_that_train(suffix, imagenet, cifar10):
    named = cifar10 if not suffix else imagenet
    for name in ("fgsm_pred", "fast_grad_l2", "fast_grad_linf", "random_normal"):
        attack = named(f"{name}{suffix}")["attack"]
        assert (attack["name"], attack["eps"]) == (name, 16 / 255)
    attack = dict(named(f"fast_grad_l2{suffix}")["attack"])
    del attack["name"]
    # An eps of it is the length of the whole perturbation.
    assert SingleStep(**attack) == SingleStep(eps=16 / 255, direction="l2")


def test_tables_of_one_data_set_share_their_models(tmp_path):
    """No two names mean one model, and no name two."""
    for prefix, names in (
        ("", [*FIGURES, *(f"table{number}" for number in range(1, 9))]),
        ("cifar10_", OURS),
    ):
        keys = {}
        for name in names:
            table = read(name)
            models = Models(table, tmp_path)
            for model in table.models:
                keys.setdefault(model, set()).add(models.get(model).key)
        assert all(len(found) == 1 for found in keys.values())
        assert len({*map(frozenset, keys.values())}) == len(keys)
        used = {row.model for name in names for row in read(name).rows}
        used |= {"start", "A"} if prefix else set()
        assert used == set(keys)


def test_on_cifar10(cifar10):
    found = cifar10("A_adv")
    assert (found["model"]["name"], found["model"]["depth"]) == ("resnet20", 20)
    assert found["model"]["bn_momentum"] == 0.99
    assert (found["train"]["batch_size"], found["train"]["steps"]) == (128, 94_000)
    assert (found["defense"]["k"], found["defense"]["eps_law"]) == (64, "truncated")
    assert cifar10("A")["defense"]["name"] == "standard"
    # An eighth, a quarter, three quarters, all.
    shares = [cifar10(f"k{k}")["defense"]["k"] / 128 for k in (16, 32, 96, 128)]
    assert shares == [1 / 8, 1 / 4, 3 / 4, 1]
