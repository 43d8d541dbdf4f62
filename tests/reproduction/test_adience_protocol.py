"""The protocol of Adience on drawn faces: from fold files to a published table."""

import json
import pathlib
import re
import statistics

import numpy as np
import pytest

from tests.reproduction import tiny
from tfadv import data, predictor, run
from tfadv.attacks import StepFGSM
from tfadv.data import Dataset, pipeline
from tfadv.evaluation import transfer
from tfadv.files import read_json
from tfadv.reproduction import outcome, reproduce, tables
from tfadv.reproduction.models import Models

ROOT = pathlib.Path(__file__).resolve().parents[2]
TESTDATA = ROOT / "testdata"
FOLDS = ("adience_0", "adience_1")
EPS = 4 / 256

# Two networks that are trained together, on the middle of a face.
CONFIG = """
    base = "satm.toml"
    [data]
    name = "adience_2"
    crop = 32
    flip = true
    [model]
    width = 12
    mean = [0.9, 0.7, 0.6]
    std = [0.1, 0.1, 0.1]
    [partners]
    models = [
        { name = "small_cnn", width = 14, mean = [0.9, 0.7, 0.6], std = [0.1] },
    ]
    [attack]
    eps = "2/256"
    [train]
    steps = 30
    """

TABLE = """
    title = "Drawn faces"
    folds = ["adience_0", "adience_1"]
    attacks = [
        { as = "fgs", name = "step_fgsm" },
        { as = "fgs_one_off", name = "step_fgsm", metric = "one_off" },
        { as = "by", name = "step_fgsm", sources = ["b"] },
        { as = "by_one_off", name = "step_fgsm", sources = ["b"], metric = "one_off" },
    ]
    eps = ["4/256"]
    [models.a]
    config = "skin.toml"
    [models.b]
    config = "skin.toml"
    partner = 1
    [[rows]]
    name = "Network A"
    model = "a"
    clean = 56.73
    clean_one_off = 90.0
    fgs = 4.3
    fgs_one_off = 13.9
    by = 35.39
    by_one_off = 66.99
    sd = { clean = 5.0 }
    [[rows]]
    name = "Network B"
    model = "b"
    clean = nan
    """


@pytest.fixture(scope="module")
def reproduced(binaries, tmp_path_factory):
    """(file of the table, workdir, stdout, stderr) of a call of bin/reproduce."""
    folder = tmp_path_factory.mktemp("adience")
    path, workdir = tiny.write(folder, TABLE, "faces_table"), folder / "work"
    (folder / "skin.toml").write_text(CONFIG)
    options = (f"--workdir={workdir}", f"--data_dir={TESTDATA}", "--batch_size=5")
    code, out, err = binaries("reproduce", f"--table={path}", *options)
    assert code == 0, err
    return path, workdir, out, err


def by_hand(path, workdir):
    """{(row, column): [what each fold has, in percent]} of the saved networks."""
    models, found = Models(tables.read(path), workdir), {}
    for fold in FOLDS:
        images = Dataset(source=data.get(fold), crop=32).read_test(str(TESTDATA))
        x, y = pipeline.to_float(np.asarray(images.x)), images.y
        predict = {}
        for name in "ab":
            one = models.get(name, fold=fold)
            predict[name] = predictor.load(one.path / "model.keras")
        attack = StepFGSM(eps=EPS)
        for row, column, target, z in (
            ("Network A", "clean", "a", x),
            ("Network A", "fgs", "a", attack(predict["a"], x, y)),
            ("Network A", "by", "a", attack(predict["b"], x, y)),
            ("Network B", "clean", "b", x),
        ):
            off = np.abs(np.argmax(predict[target](z), axis=1) - y)
            for near, metric in ((0, ""), (1, "_one_off")):
                values = found.setdefault((row, column + metric), [])
                values.append(100 * np.mean(off <= near))
    del found["Network B", "clean_one_off"]
    return found


def test_a_cell_is_the_mean_of_what_the_networks_of_the_folds_do(reproduced):
    path, workdir, _, _ = reproduced
    made = read_json(workdir / "faces_table.json", "the outcome")
    expected = by_hand(path, workdir)
    found = {(cell["row"], cell["attack"]): cell for cell in made["cells"]}
    assert found.keys() == expected.keys()
    for place, values in expected.items():
        cell = found[place]
        # Rounded to two digits.
        mean, sd = statistics.mean(values), statistics.stdev(values)
        assert cell["measured"] == pytest.approx(mean, abs=0.0051)
        assert cell["measured_sd"] == pytest.approx(sd, abs=0.0051)
        # Twelve faces in each fold: of the second one is not there.
        assert (cell["n"], cell["seed"], cell["folds"]) == (24, 0, list(FOLDS))
        metric = "one_off" if place[1].endswith("_one_off") else None
        assert cell.get("metric") == metric
    # They would tell folds and metrics apart.
    assert any(first != second for first, second in expected.values())
    assert (
        found["Network A", "clean"]["measured"]
        < (found["Network A", "clean_one_off"]["measured"])
    )


def test_every_fold_is_trained_once_for_both_networks(reproduced):
    _, workdir, _, log = reproduced
    runs = sorted((workdir / "models").iterdir())
    configs = [json.loads((one / "config.json").read_text()) for one in runs]
    names = {resolved["data"]["name"] for resolved in configs}
    assert (len(runs), names) == (2, set(FOLDS))
    for fold in FOLDS:
        assert f"training a, seed 0, {fold}, 30 of 30 steps" in log
    assert "training b" not in log


def test_the_printed_table(reproduced):
    _, workdir, out, _ = reproduced
    made = read_json(workdir / "faces_table.json", "the outcome")
    assert f"Drawn faces\n\n{outcome.render(made)}\n" in out
    (header,) = (line for line in out.splitlines() if "one-off" in line)
    assert re.split("  +", header.strip()) == [
        *("clean", "one-off clean", "fgs 4/256", "one-off fgs 4/256"),
        *("by 4/256 from b", "one-off by 4/256 from b"),
    ]
    assert "seed 0, 2 folds, 24 images" in out


def test_a_second_call_does_nothing(reproduced, monkeypatch):
    path, workdir, _, _ = reproduced
    for module, name in ((run, "fit"), (reproduce, "measure"), (transfer, "measure")):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("done again"))
    made = read_json(workdir / "faces_table.json", "the outcome")
    options = {"batch_size": 5, "data_dir": str(TESTDATA)}
    assert reproduce.reproduce(path, workdir, **options) == made
