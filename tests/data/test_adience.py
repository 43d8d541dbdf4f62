import importlib.util
import pathlib
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
from absl import logging
from PIL import Image
from sklearn.linear_model import RidgeClassifier

from tfadv import attacks, config, craft, data, run
from tfadv.data import Dataset, ImageFiles, Images, adience, files
from tfadv.data.adversarial import StoredImages
from tfadv.errors import RunError
from tfadv.evaluation import measure
from tfadv.evaluation.suite import Entry

ROOT = pathlib.Path(__file__).resolve().parents[2]
TESTDATA = ROOT / "testdata"
GROUPS = [
    *["(0, 2)", "(4, 6)", "(8, 12)", "(15, 20)"],
    *["(25, 32)", "(38, 43)", "(48, 53)", "(60, 100)"],
]
HEADER = (
    "user_id\toriginal_image\tface_id\tage\tgender\tx\ty\tdx\tdy\t"
    "tilt_ang\tfiducial_yaw_angle\tfiducial_score"
)

# Of the published fold files: rows, those with one of the labels, and the labels.
ROWS = [4496, 3745, 3953, 3459, 3834]
LABELLED = [4316, 3101, 3339, 2975, 3693]
OF_GROUP = [2519, 2163, 2132, 1655, 4950, 2300, 830, 875]


@pytest.fixture
def lines(monkeypatch, caplog):
    """What is logged."""
    monkeypatch.setattr(logging.get_absl_logger(), "propagate", True)
    with caplog.at_level("INFO", logger="absl"):
        yield lambda: caplog.messages


def write_fold(directory, fold, ages):
    """A fold file with a row for each label; a person has three of them."""
    rows = [HEADER]
    for i, age in enumerate(ages):
        user, face = f"{fold}{i // 3:07d}@N03", i % 4 + 1
        tail = "\t".join(["f", "301", "105", "640", "641", "0", "-15", "94"])
        rows.append(f"{user}\t{i}_67c7d20df9_o.jpg\t{face}\t{age}\t{tail}")
    (directory / f"fold_{fold}_data.txt").write_text("\n".join(rows) + "\n")


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Fold files with as many rows of every kind as the published ones; no images."""
    directory = tmp_path / "adience"
    (directory / "aligned").mkdir(parents=True)
    monkeypatch.setattr(files, "readable", lambda paths, **_: np.ones(len(paths), bool))
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(8), OF_GROUP))
    parts = np.split(labels, np.cumsum(LABELLED)[:-1])
    for fold, (rows, part) in enumerate(zip(ROWS, parts, strict=True)):
        ages = [GROUPS[label] for label in part]
        # Somewhere among them.
        beside = ["None", "(25, 23)", "35", "", "None"] * rows
        ages[100:100] = beside[: rows - len(ages)]
        write_fold(directory, fold, ages)
    return tmp_path, parts


def of(images):
    """The images' file names below `aligned`."""
    return [path.split("/aligned/")[1] for path in images.x.paths]


# The published numbers.


@pytest.mark.parametrize("fold", range(5))
def test_as_many_faces_as_in_the_protocol(published, fold, lines):
    root, parts = published
    source = data.get(f"adience_{fold}")
    test, train = (source.read(split, str(root)) for split in ("test", "train"))
    assert len(test) == LABELLED[fold] == source.sizes["test"]
    assert len(train) == 17_424 - LABELLED[fold] == source.sizes["train"]
    np.testing.assert_array_equal(test.y, parts[fold])
    others = [part for i, part in enumerate(parts) if i != fold]
    np.testing.assert_array_equal(train.y, np.concatenate(others))
    assert test.y.dtype == train.y.dtype == np.int32
    assert test.x.shape == (len(test), *source.image_shape)
    # Every row is counted, used or not: "None" is two of five.
    text = next(line for line in lines() if "dropped" in line)
    assert text.startswith(f"adience_{fold} test: {ROWS[fold] - LABELLED[fold]} with")
    counts = {age: int(n) for n, age in re.findall(r"(\d+) (\(.*?\)|\w+)(?:,|$)", text)}
    assert sum(counts.values()) == ROWS[fold] - LABELLED[fold]
    assert next(iter(counts)) == "None"
    assert set(counts) == {"None", "(25, 23)", "35", "empty"}


def test_groups_of_age_have_an_order():
    ordered = {name: source.ordered_classes for name, source in data.DATASETS.items()}
    ages = {name for name in data.DATASETS if name.startswith("adience")}
    assert len(ages) == 10
    assert ordered == {name: 8 if name in ages else None for name in data.DATASETS}


def test_every_group_as_often_as_published(published):
    """Each face is tested in one fold."""
    root, _ = published
    tests = [data.get(f"adience_{fold}").read("test", str(root)) for fold in range(5)]
    labels = np.concatenate([test.y for test in tests])
    assert np.bincount(labels).tolist() == OF_GROUP
    assert len({name for test in tests for name in of(test)}) == 17_424


@pytest.mark.parametrize("fold", range(5))
def test_merged_labels_are_more(published, fold):
    """All but those without a number; never more than there are rows."""
    root, _ = published
    source = data.get(f"adience_merged_{fold}")
    assert source.sizes == {"train": 19_487 - ROWS[fold], "test": ROWS[fold]}
    text = (root / "adience" / f"fold_{fold}_data.txt").read_text()
    ages = [line.split("\t")[3] for line in text.splitlines()]
    numbers = sum(re.search(r"\d", age) is not None for age in ages)
    test = source.read("test", str(root))
    assert LABELLED[fold] < len(test) == numbers < ROWS[fold]


@pytest.mark.parametrize("fold", range(5))
def test_nobody_is_in_both_splits(published, fold, lines):
    root, _ = published
    source = data.get(f"adience_{fold}")
    people = [
        {name.split("/")[0] for name in of(source.read(split, str(root)))}
        for split in ("train", "test")
    ]
    assert not people[0] & people[1]
    # Several images a person.
    assert len(people[1]) < LABELLED[fold] / 2
    assert not any("not the published folds" in line for line in lines())


def test_people_in_both_splits_are_reported(published, lines):
    root, _ = published
    shutil.copy(root / "adience/fold_2_data.txt", root / "adience/fold_4_data.txt")
    data.get("adience_2").read("test", str(root))
    people = len(
        {row.user for row in adience.read_fold(root / "adience/fold_2_data.txt")}
    )
    assert f"adience_2 test: {people} people are in the training and in the test" in (
        "\n".join(lines())
    )


def test_of_a_row_to_its_file(published):
    root, _ = published
    test = data.get("adience_1").read("test", str(root))
    assert of(test)[:2] == [
        "10000000@N03/landmark_aligned_face.1.0_67c7d20df9_o.jpg",
        "10000000@N03/landmark_aligned_face.2.1_67c7d20df9_o.jpg",
    ]
    assert test.source_index.tolist() == list(range(LABELLED[1]))


# Labels.


@pytest.mark.parametrize("merge_labels", [False, True])
@pytest.mark.parametrize(("label", "age"), list(enumerate(GROUPS)))
def test_the_eight_labels(label, age, merge_labels):
    assert adience.label_of(age, merge_labels) == label


@pytest.mark.parametrize(
    ("age", "merged"),
    [
        # In a group.
        *[("2", 0), ("29", 4), ("32", 4), ("42", 5), ("(25, 23)", 4), ("(8, 23)", 2)],
        *[("(27, 32)", 4), ("(38, 42)", 5), ("(38, 48)", 5), ("100", 7)],
        # Nearest: 13 to 12, 22 to 20, 23 to 25, 34 to 32, 36 to 38, 45 to 43, ...
        *[("13", 2), ("22", 3), ("23", 4), ("34", 4), ("36", 5), ("45", 5), ("46", 6)],
        *[("55", 6), ("56", 6), ("57", 7), ("58", 7), ("101", 7)],
        # As near to one as to the other.
        *[("3", 1), ("7", 2), ("35", 5)],
        # No number.
        *[("None", None), ("", None), ("(None, 3)", None), ("35f", None)],
    ],
)
def test_labels_beside_the_eight(age, merged):
    assert adience.label_of(age) is None
    assert adience.label_of(age, merge_labels=True) == merged


# The drawn faces.


def read(name, split):
    return data.get(name).read(split, str(TESTDATA))


def load_script():
    path = TESTDATA / "make_adience.py"
    spec = importlib.util.spec_from_file_location("make_adience", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_testdata_is_what_its_script_draws(tmp_path):
    """To the rounding of another version of the JPEG library."""
    load_script().main(tmp_path / "adience")
    found, expected = (
        sorted(p.relative_to(root) for p in (root / "adience").rglob("*.*"))
        for root in (TESTDATA, tmp_path)
    )
    assert found == expected and len(found) > 60
    unreadable = 0
    for path in found:
        if path.suffix == ".txt":
            assert (TESTDATA / path).read_text() == (tmp_path / path).read_text()
            continue
        try:
            one, other = (
                np.asarray(Image.open(root / path), int)
                for root in (TESTDATA, tmp_path)
            )
        except OSError:
            unreadable += 1
            continue
        assert np.abs(one - other).max() < 16
    assert unreadable == 1
    total = sum(path.stat().st_size for path in (TESTDATA / "adience").rglob("*.*"))
    assert total < 150_000


@pytest.mark.parametrize("fold", range(5))
def test_counts_of_the_drawn_faces(fold, lines):
    """Twelve of each fold can be used; one of fold 1 and one of fold 3 cannot."""
    test, train = (read(f"adience_{fold}", split) for split in ("test", "train"))
    assert (len(test), len(train)) == (12, 48)
    assert (np.bincount(test.y, minlength=8) > 0).all()
    beside = {0: 2, 1: 1, 2: 3, 3: 1, 4: 1}
    text = "\n".join(lines())
    assert f"adience_{fold} test: {beside[fold]} without a group dropped" in text
    assert f"adience_{fold} train: {8 - beside[fold]} without a group dropped" in text
    lost = {1: ["1 missing"], 3: ["1 damaged"]}
    others = [reason for i in (1, 3) if i != fold for reason in lost[i]]
    expected = f"adience_{fold} train: {len(others)} of {48 + len(others)} images"
    assert f"{expected} cannot be read ({', '.join(others)}): " in text
    of_test = f"adience_{fold} test: 1 of 13 images cannot be read"
    assert (of_test in text) == (fold in lost)


def test_a_label_beside_the_eight_is_kept_where_labels_are_merged():
    for fold, label in enumerate([4, 5, 4, 6, 5]):
        merged = read(f"adience_merged_{fold}", "test")
        plain = set(of(read(f"adience_{fold}", "test")))
        more = [
            y for name, y in zip(of(merged), merged.y, strict=True) if name not in plain
        ]
        # 58 is two from 60 and five from 53.
        assert more == [7 if fold == 3 else label]


def test_what_is_read_is_the_file_of_the_row():
    """Enlarged six times, which Pillow does in the same way but for rounding."""
    images = read("adience_0", "test")
    for i in (0, 5, 11):
        with Image.open(images.x.paths[i]) as image:
            expected = image.resize((256, 256), Image.Resampling.BILINEAR)
        difference = np.asarray(expected).astype(int) - images.x[i]
        assert np.abs(difference).max() <= 2 and np.abs(difference).mean() < 0.3
        text = (TESTDATA / "adience/fold_0_data.txt").read_text()
        name = pathlib.Path(images.x.paths[i]).name.split(".", 2)[2]
        row = next(line for line in text.splitlines() if f"\t{name}\t" in line)
        assert GROUPS[images.y[i]] == row.split("\t")[3]


def test_reading_twice_gives_the_same():
    one, other = (read("adience_3", "train") for _ in range(2))
    assert of(one) == of(other)
    np.testing.assert_array_equal(one.y, other.y)
    np.testing.assert_array_equal(one.x[:5], other.x[:5])


def test_age_shows_in_the_drawn_faces():
    """By a linear model of 8x8 pixels; one of eight is right by chance."""

    def small(images):
        x = np.asarray(images.x).reshape(len(images), 8, 32, 8, 32, 3)
        return x.mean((2, 4)).reshape(len(images), -1) / 255

    train, test = (read("adience_4", split) for split in ("train", "test"))
    model = RidgeClassifier().fit(small(train), train.y)
    wrong = np.abs(model.predict(small(test)) - test.y)
    assert np.mean(wrong == 0) > 0.4 and np.mean(wrong <= 1) > 0.8


# Through the library.


def test_a_run_from_training_to_the_table(tmp_path):
    overrides = [
        *["data.name=adience_1", "data.holdout=3", "data.crop=32", "data.flip=true"],
        *["model.width=2", "train.batch_size=8", "train.validation_examples=3"],
        *['evaluate.attacks=["step_fgsm"]', "evaluate.eps=16/256"],
        *["evaluate.batch_size=5"],
    ]
    tables = config.shortened(config.load(ROOT / "configs" / "standard.toml"), 3)
    tables = config.override(tables, overrides)
    found = run.train(tables, tmp_path / "run", data_dir=str(TESTDATA))
    assert {row["n"] for row in found["rows"]} == {12}
    assert found["steps"] == 3


@pytest.fixture(scope="module")
def model():
    """(predict, images on disk, the same in memory): 32x32 in the middle."""
    dataset = Dataset(source=data.get("adience_2"), crop=32)
    on_disk = dataset.read_test(str(TESTDATA))
    w = np.random.default_rng(0).normal(size=(32 * 32 * 3, 8)).astype(np.float32)

    def predict(x):
        return tf.reshape(x, [-1, 32 * 32 * 3]) @ w

    return predict, on_disk, Images(x=np.asarray(on_disk.x), y=on_disk.y)


def test_evaluation_reads_from_files(model):
    predict, on_disk, memory = model
    assert isinstance(on_disk.x, ImageFiles)
    entry = Entry("step_fgsm", "step_fgsm", attacks.StepFGSM(eps=0.1))
    rows = [
        measure(predict, images, [entry], [0.01, 0.1], batch_size=5, progress=False)
        for images in (on_disk, memory)
    ]
    assert rows[0] == rows[1] and rows[0][0]["n"] == 12


def test_images_are_attacked_from_files(model, tmp_path):
    predict, on_disk, memory = model
    entry = Entry("iter_fgsm", "iter_fgsm", attacks.IterFGSM(eps=2 / 255))
    paths = [
        craft.write(
            predict,
            images,
            entry,
            [1 / 255, 2 / 255],
            tmp_path / name,
            data="adience_2",
            split="test",
            batch_size=5,
        )
        for name, images in (("disk", on_disk), ("memory", memory))
    ]
    stored = [
        StoredImages(path, data="adience_2", split="test", image_shape=(32, 32, 3))
        for path in paths
    ]
    index, pixels = np.arange(12), np.arange(12) % 2 + 1
    one, other = (images.read(index, pixels) for images in stored)
    np.testing.assert_array_equal(one, other)
    stored[0].check(on_disk, data.Augment())


# What cannot be read.


@pytest.fixture
def copied(tmp_path):
    shutil.copytree(TESTDATA / "adience", tmp_path / "adience")
    return tmp_path / "adience"


def read_copy(directory):
    return data.get("adience_0").read("train", str(directory.parent))


def assert_says_where_it_comes_from(message):
    assert "Open University of Israel" in message and "registration" in message
    assert "tfadv downloads nothing" in message and "--data_dir=DIR" in message
    assert "\n" not in message


def test_no_directory_is_given():
    with pytest.raises(RunError, match="--data_dir does not say where") as caught:
        data.get("adience_0").read("train", None)
    assert_says_where_it_comes_from(str(caught.value))


@pytest.mark.parametrize("name", [".", "aligned", "fold_3_data.txt"])
def test_a_part_is_not_there(copied, name):
    path = copied / name
    path.unlink() if path.is_file() else shutil.rmtree(path)
    with pytest.raises(
        RunError, match=f"there is no .*{re.escape(str(path))}"
    ) as caught:
        read_copy(copied)
    assert_says_where_it_comes_from(str(caught.value))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "", "is no fold file: its first line must begin with user_id, "),
        (lambda text: text.split("\n", 1)[1], "is no fold file"),
        (lambda text: text.replace("\t", ","), "is no fold file"),
        (lambda text: text + "30601258@N03\tcut_o", "line 17 has 2 of at least 4"),
    ],
)
def test_a_damaged_fold_file(copied, change, message):
    path = copied / "fold_2_data.txt"
    path.write_text(change(path.read_text()))
    with pytest.raises(RunError, match=message) as caught:
        read_copy(copied)
    assert str(path) in str(caught.value)
    assert_says_where_it_comes_from(str(caught.value))


def test_a_fold_file_that_is_no_text(copied):
    (copied / "fold_2_data.txt").write_bytes(b"\xff\xfe\x00" * 99)
    with pytest.raises(RunError, match=r"fold_2_data\.txt cannot be read"):
        read_copy(copied)


def test_lines_may_end_as_on_windows_and_be_empty(copied):
    path = copied / "fold_2_data.txt"
    before = adience.read_fold(path)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    assert adience.read_fold(path) == before


def test_too_many_images_are_missing(copied):
    """One is missing and one cut off as it is; one more of fifty."""
    assert len(read_copy(copied)) == 48
    next((copied / "aligned" / "20000@N02").glob("*.jpg")).unlink()
    with pytest.raises(RunError, match=r"adience_0 train: 3 of 50 images") as caught:
        read_copy(copied)
    assert_says_where_it_comes_from(str(caught.value))


def test_nobody_has_a_group(copied):
    for fold in range(5):
        write_fold(copied, fold, ["None"] * 5)
    with pytest.raises(RunError, match="no face of adience_0 train has a group"):
        read_copy(copied)
