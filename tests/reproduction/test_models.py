import pathlib

import pytest

from tests.reproduction import tiny
from tfadv.errors import UsageError
from tfadv.reproduction import models as module
from tfadv.reproduction import tables
from tfadv.reproduction.models import Models, in_order

ROOT = pathlib.Path(__file__).resolve().parents[2] / "configs" / "tables"


def models(folder, text=tiny.WHITE + tiny.MODELS, name="tiny", **options):
    return Models(tiny.read(folder, text, name), folder / "work", **options)


def changed(old, new):
    """The tiny table with `new` in place of `old`."""
    assert (tiny.WHITE + tiny.MODELS).count(old) == 1
    return (tiny.WHITE + tiny.MODELS).replace(old, new)


# ------------------------------------------------------------------------ what they are


def test_a_model_is_its_configuration_with_what_the_table_says(tmp_path):
    found = models(tmp_path, changed('"hard.toml"', '"hard.toml"\nset=["defense.k=4"]'))
    hard = found.get("hard")
    assert (hard.name, hard.seed, hard.steps, hard.full_steps) == ("hard", 1, 40, 40)
    assert hard.tables["defense"]["k"] == 4
    assert hard.experiment.train.seed == 1
    assert hard.path.parent == tmp_path / "work" / "models"
    assert hard.path.name.startswith("hard_1_")
    assert (hard.init.name, hard.init.seed, hard.init.steps) == ("start", 1, 10)
    assert (hard.stored, hard.stored_path) == (None, None)
    assert found.get("hard") is hard
    # Both go on from one start.
    assert found.get("plain").init.path == hard.init.path


def test_a_start_has_the_seed_of_what_goes_on_from_it(tmp_path):
    found = models(tmp_path)
    # That of its own, 0, is for a row about the start itself.
    assert found.get("start").seed == 0
    assert found.get("hard", 7).init.seed == 7
    assert found.get("hard", 7).seed == 7


def test_seeds_count_from_one(tmp_path):
    text = changed('model = "hard"', 'model = "hard"\nseeds = 3')
    found = models(tmp_path, text)
    plain, hard = found.table.rows
    assert [one.seed for one in found.of_row(plain)] == [1]
    assert [one.seed for one in found.of_row(hard)] == [1, 2, 3]
    assert len({one.path for one in found.of_row(hard)}) == 3
    # The model's own seed is 1 as well.
    assert found.of_row(hard)[0].path == found.get("hard").path


def test_a_fraction_shortens_everything_alike(tmp_path):
    found = models(tmp_path, fraction=0.5)
    hard, start = found.get("hard"), found.get("start")
    assert (hard.steps, hard.full_steps) == (20, 40)
    assert (start.steps, start.full_steps) == (5, 10)
    # The delay of 10 ends where the start ends.
    assert hard.tables["defense"]["delay"] == 5
    whole = models(tmp_path)
    for name in ("hard", "start"):
        assert whole.get(name).path != found.get(name).path


def test_the_paper_s_schedule_in_part(tmp_path):
    table = tables.read(ROOT / "na2018_table3.toml")
    found = Models(table, tmp_path, fraction=0.1).get("kurakin")
    assert (found.steps, found.full_steps) == (12_000, 120_000)
    assert found.init.steps == found.tables["defense"]["delay"] == 391
    assert found.tables["optimizer"]["boundaries"] == [40, 6000, 9000]


@pytest.mark.parametrize("fraction", [0, -0.5, 1.5, float("nan")])
def test_a_fraction_that_is_none(tmp_path, fraction):
    with pytest.raises(UsageError, match=r"--fraction must be in \(0, 1\]; received"):
        models(tmp_path, fraction=fraction)


# ------------------------------------------------------------------------- who is equal


def names(folder, text=tiny.WHITE + tiny.MODELS, name="tiny"):
    found = models(folder, text, name)
    return {one: found.get(one).path.name for one in ("start", "plain", "hard")}


def test_what_leaves_the_weights_as_they_are_leaves_the_workdir(tmp_path):
    expected = names(tmp_path)
    for override in (
        "train.checkpoint_every=7",
        "train.keep_checkpoints=1",
        "train.validate_every=9",
        "train.validation_examples=3",
        "train.summary_every=5",
        "evaluate.num_examples=9",
        "evaluate.eps=1/255",
    ):
        text = changed('"hard.toml"', f'"hard.toml"\nset = ["{override}"]')
        assert names(tmp_path, text, "other") == expected


@pytest.mark.parametrize(
    ("old", "new", "moved"),
    [
        ('"hard.toml"', '"hard.toml"\nset = ["defense.k=4"]', {"hard"}),
        ('"hard.toml"', '"hard.toml"\nset = ["attack.eps=8/255"]', {"hard"}),
        ('"hard.toml"', '"hard.toml"\nset = ["optimizer.beta_1=0.5"]', {"hard"}),
        ('"hard.toml"', '"hard.toml"\nset = ["data.flip=true"]', {"hard"}),
        ('"hard.toml"', '"hard.toml"\nset = ["train.batch_size=32"]', {"hard"}),
        ('"hard.toml"', '"hard.toml"\nset = ["train.steps=50"]', {"hard"}),
        ('"hard.toml"\n    init = "start"', '"hard.toml"', {"hard"}),
        # What goes on from another start is another model too.
        ("steps = 10", "steps = 11", {"start", "plain", "hard"}),
        (
            "steps = 10",
            'steps = 10\nset = ["optimizer.learning_rate=0.02"]',
            {"start", "plain", "hard"},
        ),
    ],
)
def test_what_changes_the_weights_changes_the_workdir(tmp_path, old, new, moved):
    before, after = names(tmp_path), names(tmp_path, changed(old, new), "other")
    assert {name for name in before if before[name] != after[name]} == moved


def test_the_workdir_does_not_depend_on_where_anything_lies(tmp_path, monkeypatch):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    assert names(tmp_path / "a") == names(tmp_path / "b")
    monkeypatch.chdir(tmp_path)
    table = tiny.read(tmp_path / "a", tiny.WHITE + tiny.MODELS)
    path = Models(table, "a/work").get("hard").path
    assert path == models(tmp_path / "a").get("hard").path


def test_tables_of_the_paper_share_their_models(tmp_path):
    found = {
        number: Models(tables.read(ROOT / f"na2018_table{number}.toml"), tmp_path)
        for number in (1, 2, 4, 5, 7, 10)
    }

    def of_row(number, row):
        (row,) = (r for r in found[number].table.rows if r.name == row)
        (model,) = found[number].of_row(row)
        return model.path

    assert of_row(2, "step_ll, Pivot") == of_row(5, "step_ll; pivot") == of_row(4, "P1")
    assert of_row(2, "Baseline") == found[10].get("B1").path
    assert of_row(7, "K1_C") == of_row(5, "step_ll, saved_P2; Kurakin")
    # As released, pivot is bidirectional.
    assert of_row(1, "Pivot (as released)") == of_row(1, "Bidirection")
    assert of_row(1, "Pivot (as released)") != of_row(1, "Pivot")
    names = ["start", *(f"{kind}{n}" for kind in "BKP" for n in (1, 2)), "P3", "K1_C"]
    names += ["K1_step_fgsm", "P1_step_fgsm", "K1_step_both", "P1_step_both", "K3_C"]
    assert len({found[2].get(name).path for name in names}) == len(names)
    # Networks of one number go on from the same epochs.
    for number in "12":
        starts = {found[2].get(kind + number).init.path for kind in "BKP"}
        starts.add(found[2].get(f"K{number}_C").init.path)
        assert len(starts) == 1
    # The images are those of P2, for networks of 110 layers as well.
    for name in ("K1_C", "P2_C", "K3_C", "P4_C"):
        assert found[7].get(name).stored.path == found[2].get("P2").path


# ----------------------------------------------------------------------- stored images


CASCADE = """
    [models.cascade]
    config = "cascade.toml"
    init = "start"
    stored = "plain"
    seed = 1
    """


def test_stored_images_are_those_of_the_named_model(tmp_path):
    found = models(tmp_path, tiny.WHITE + tiny.MODELS + CASCADE)
    cascade, plain = found.get("cascade"), found.get("plain")
    assert cascade.stored.path == plain.path
    assert plain.path in cascade.stored_path.parents
    other = CASCADE.replace('stored = "plain"', 'stored = "hard"')
    other = models(tmp_path, tiny.WHITE + tiny.MODELS + other)
    assert other.get("cascade").path != cascade.path


def test_other_stored_images_lie_elsewhere(tmp_path):
    paths = set()
    for override in ("max_eps=2/255", "max_eps=1/255", "attack=step_fgsm"):
        text = CASCADE + f'set = ["stored.{override}"]\n'
        found = models(tmp_path, tiny.WHITE + tiny.MODELS + text).get("cascade")
        paths.add(found.stored_path)
    assert len(paths) == 3


GENERATOR = """
    [models.generator]
    config = "generator.toml"
    sources = ["plain"]
    """


def test_finished_models_are_those_of_the_table(tmp_path):
    found = models(tmp_path, tiny.WHITE + tiny.MODELS + GENERATOR)
    generator, plain = found.get("generator"), found.get("plain")
    assert generator.sources == [plain]
    assert [one.name for one in in_order([generator])] == [
        "start",
        "plain",
        "generator",
    ]
    changed_source = GENERATOR.replace('["plain"]', '["start"]')
    other = models(tmp_path, tiny.WHITE + tiny.MODELS + changed_source)
    assert other.get("generator").path != generator.path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('sources = ["plain"]', "", "give both or neither"),
        ('config = "generator.toml"', 'config = "plain.toml"', "give both or neither"),
        (
            'sources = ["plain"]',
            'sources = ["plain"]\nset = ["model.width=8"]',
            "the model 'plain' that it needs has model.width = 4, this one 8",
        ),
    ],
)
def test_finished_models_that_cannot_be(tmp_path, old, new, message):
    text = tiny.WHITE + tiny.MODELS + GENERATOR.replace(old, new)
    with pytest.raises(UsageError, match=message):
        models(tmp_path, text).get("generator")


def test_needed_models_come_first_and_once(tmp_path):
    found = models(tmp_path, tiny.WHITE + tiny.MODELS + CASCADE)
    wanted = [found.get("cascade"), found.get("hard"), found.get("plain")]
    names = [one.name for one in in_order(wanted)]
    assert names == ["start", "plain", "cascade", "hard"]
    # The start that `start` itself would be has another seed.
    wanted = [found.get("hard"), found.get("start")]
    assert [(one.name, one.seed) for one in in_order(wanted)] == [
        *(("start", 1), ("hard", 1), ("start", 0))
    ]


def test_what_a_trained_model_needed_is_needed_no_more(tmp_path):
    found = models(tmp_path, tiny.WHITE + tiny.MODELS + CASCADE)
    (found.get("cascade").path / "saved_model").mkdir(parents=True)
    (found.get("cascade").path / "model.keras").touch()
    assert in_order([found.get("cascade")]) == [found.get("cascade")]


@pytest.mark.parametrize("written", ["model.keras", "saved_model"])
def test_half_of_what_a_training_leaves_is_nothing(tmp_path, written):
    found = models(tmp_path)
    (found.get("plain").path / written).mkdir(parents=True)
    assert not found.get("plain").is_trained()
    names = [one.name for one in in_order([found.get("plain")])]
    assert names == ["start", "plain"]


# ----------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("old", "new", "model", "message"),
    [
        (
            *('"hard.toml"', '"hard.toml"\nset = ["defence.k=3"]', "hard"),
            r"\[defence\].*'defense'",
        ),
        ('"hard.toml"', '"hard.toml"\nset = ["k"]', "hard", "expected section.key="),
        (
            *('"hard.toml"', '"hard.toml"\nset = ["defense.kk=3"]', "hard"),
            "unknown key 'kk'",
        ),
        (
            *('"hard.toml"', '"hard.toml"\nset = ["train.steps=many"]', "hard"),
            "steps: expected int, received 'many'",
        ),
        ("steps = 10", "steps = 41", "start", "at most the 40 of its schedule"),
        ("steps = 10", "steps = 40", "hard", "and 40 of 40 leave none"),
        (
            *('"hard.toml"', '"hard.toml"\nset = ["model.width=8"]', "hard"),
            "'start' that it needs has model.width = 4, this one 8",
        ),
        (
            *('"hard.toml"', '"hard.toml"\nset = ["data.crop=6"]', "hard"),
            "'start' that it needs has data.crop = None, this one 6",
        ),
        (
            *('"hard.toml"', '"hard.toml"\nset = ["train.init_from=x"]', "hard"),
            "`init` names a model",
        ),
        (
            '"hard.toml"',
            '"hard.toml"\nstored = "plain"',
            "hard",
            "give both or neither",
        ),
        ('"hard.toml"', '"cascade.toml"', "hard", "give both or neither"),
        (
            '"hard.toml"\n    init = "start"',
            '"cascade.toml"\nstored = "plain"\nset = ["data.crop=6"]',
            "hard",
            "'plain' that it needs has data.crop = None, this one 6",
        ),
    ],
)
def test_a_model_that_cannot_be_is_named(tmp_path, old, new, model, message):
    found = models(tmp_path, changed(old, new))
    with pytest.raises(UsageError, match=rf"table tiny, model '{model}': .*{message}"):
        found.get("hard")


def test_holding_images_out_is_no_other_data(tmp_path):
    # Only what the network sees must agree, as with train.init_from.
    text = changed('"hard.toml"', '"hard.toml"\nset = ["data.holdout=9"]')
    assert models(tmp_path, text).get("hard").init.name == "start"


def test_a_fraction_that_leaves_nothing_to_the_second_model(tmp_path):
    # Half a step is one step, for both.
    found = models(tmp_path, fraction=1 / 80)
    message = r"model 'hard': the steps of 'start' count, and 1 of 1 leave none.*--frac"
    with pytest.raises(UsageError, match=message):
        found.get("hard")


def test_a_network_that_cannot_be_is_known_when_it_is_made(tmp_path):
    for override, message in (
        ("model.width=0", r"\[model\]: `width` must be at least 1"),
        ("defense.k=17", r"\[defense\].*17"),
    ):
        text = changed(
            '"hard.toml"\n    init = "start"', f'"hard.toml"\nset = ["{override}"]'
        )
        with pytest.raises(UsageError, match=message):
            models(tmp_path, text).get("hard").check()


def test_bookkeeping_names_what_there_is():
    fields = module.config.Train.__dataclass_fields__
    assert set(module.BOOKKEEPING) < set(fields)
    # Whatever is added to the schedule changes weights, until it is put there.
    assert set(fields) - set(module.BOOKKEEPING) == {
        *("steps", "batch_size", "seed", "full_steps")
    }
