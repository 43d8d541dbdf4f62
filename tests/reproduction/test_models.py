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


def test_every_seed_is_a_set_of_its_own(tmp_path):
    """For seed k all that the model needs or is attacked by has k - 1 more."""
    text = """
        title = "Sets"
        attacks = ["step_fgsm"]
        eps = ["16/255"]
        sources = ["other", "generator"]
        [models.source]
        config = "plain.toml"
        seed = 1
        [models.other]
        config = "plain.toml"
        seed = 4
        [models.generator]
        config = "generator.toml"
        sources = ["source"]
        seed = 1
        [[rows]]
        name = "Mean"
        model = "generator"
        seeds = 3
        step_fgsm = ["?", "?"]
        [[rows]]
        name = "Own"
        model = "generator"
        step_fgsm = ["?", nan]
        """
    found = models(tmp_path, text)
    mean, own = found.table.rows
    targets = found.of_row(mean)
    assert [one.seed for one in targets] == [1, 2, 3]
    assert [one.sources[0].seed for one in targets] == [1, 2, 3]
    by = [[found.source(cell, one) for cell in mean.cells] for one in targets]
    assert [[one.seed for one in pair] for pair in by] == [[4, 1], [5, 2], [6, 3]]
    assert [one.sources[0].seed for _, one in by] == [1, 2, 3]
    assert len({one.path for pair in by for one in pair}) == 6
    # Without seeds everything has its own.
    (target,) = found.of_row(own)
    (cell,) = own.cells
    assert target.path == targets[0].path
    assert found.source(cell, target).seed == 4


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


# -------------------------------------------------------------------------------- folds


FOLDS = """
    title = "Two folds"
    folds = ["adience_1", "adience_0"]
    attacks = ["step_fgsm"]
    eps = ["16/255"]
    [models.clean]
    config = "faces.toml"
    steps = 5
    seed = 3
    [models.longer]
    config = "faces.toml"
    init = "clean"
    [models.robust]
    config = "ensemble.toml"
    sources = ["clean"]
    set = ["data.crop=32"]
    [[rows]]
    name = "Clean"
    model = "longer"
    clean = 50.0
    [[rows]]
    name = "Robust"
    model = "robust"
    clean = 50.0
    """


def test_a_fold_takes_the_place_of_the_data_set(tmp_path):
    found = models(tmp_path, FOLDS)
    clean, robust = found.table.rows
    for row in (clean, robust):
        of_row = found.of_row(row)
        assert [one.fold for one in of_row] == ["adience_1", "adience_0"]
        for one in of_row:
            # The rest of [data] is that of the file: only one of them flips.
            data = one.experiment.config["data"]
            expected = (one.fold, 32, row is clean)
            assert (data["name"], data["crop"], data["flip"]) == expected
    # What they need is of the same fold.
    inits = [one.init for one in found.of_row(clean)]
    sources = [one.sources[0] for one in found.of_row(robust)]
    for needed, seed in ((inits, 0), (sources, 3)):
        assert [(one.fold, one.seed) for one in needed] == [
            *(("adience_1", seed), ("adience_0", seed))
        ]
    everything = [*found.of_row(clean), *found.of_row(robust), *inits, *sources]
    assert len({one.path for one in everything}) == 8


def test_a_fold_is_the_model_of_a_table_without_folds(tmp_path):
    alone = FOLDS.replace('folds = ["adience_1", "adience_0"]', "")
    found = models(tmp_path, FOLDS)
    whole = found.get("longer")
    assert (whole.fold, whole.experiment.config["data"]["name"]) == (None, "adience_4")
    assert whole.path == models(tmp_path, alone, "own").get("longer").path
    # The other way round: the file's own data set as a fold.
    assert found.get("longer", fold="adience_4").path == whole.path
    assert found.get("longer", fold="adience_1").path != whole.path


def test_black_box_images_are_of_the_same_fold(tmp_path):
    text = FOLDS.replace('eps = ["16/255"]', 'eps = ["16/255"]\nsources = ["clean"]')
    text = text.replace("clean = 50.0", "clean = 50.0\nstep_fgsm = 40.0")
    found = models(tmp_path, text)
    row = found.table.rows[0]
    clean, attacked = row.cells
    for target in found.of_row(row):
        assert found.source(clean, target) is None
        source = found.source(attacked, target)
        assert (source.name, source.fold) == ("clean", target.fold)
    assert found.source(attacked, found.get("longer")).fold is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"adience_0"', '"adience_5"', "unknown data set 'adience_5'; did you mean"),
        (
            "    seed = 3",
            '    set = ["data.name=adience_2"]',
            "'clean': `set` makes data.name 'adience_2', and `folds` of the table",
        ),
        (
            "    seed = 3",
            '    set = ["data.crap=5"]',
            r"faces.toml, fold adience_1 .*\[data\]: unknown key 'crap'",
        ),
    ],
)
def test_a_fold_that_cannot_be(tmp_path, old, new, message):
    found = models(tmp_path, FOLDS.replace(old, new))
    with pytest.raises(UsageError, match=message):
        found.of_row(found.table.rows[0])


def test_what_a_table_sets_is_set_in_every_fold(tmp_path):
    text = FOLDS.replace(
        "    seed = 3", '    set = ["data.crop=16", "data.flip=false"]'
    )
    data = models(tmp_path, text).get("clean", fold="adience_0").experiment.dataset
    assert (data.image_shape, data.flip) == ((16, 16, 3), False)


# ----------------------------------------------------------------------------- partners


SATM = """
    title = "Two networks"
    attacks = ["step_fgsm"]
    eps = ["16/255"]
    [models.first]
    config = "satm.toml"
    [models.second]
    config = "satm.toml"
    partner = 1
    [models.after]
    config = "ensemble.toml"
    sources = ["second"]
    [[rows]]
    name = "R"
    model = "second"
    clean = 90.0
    """


def fake_fit(trained):
    """In place of `run.fit`: notes the workdir, leaves one partner and the first."""

    def fit(tables, path, *, data_dir=None):
        trained.append((path.name, tables.get("sources", {}).get("paths")))
        for own in (path / "partners" / "1", path):
            (own / "saved_model").mkdir(parents=True)
            (own / "model.keras").touch()
            (own / "config.json").write_text('{"train": {"steps": 40}}')

    return fit


def test_a_partner_is_trained_with_its_run(tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr(module.run, "fit", fake_fit(trained))
    found = models(tmp_path, SATM)
    first, second = found.get("first"), found.get("second")
    assert second.run_path == first.run_path == first.path
    assert second.path == first.path / "partners" / "1"
    assert (first.key, second.key) == (first.path.name, f"{first.path.name}/partners/1")
    assert not first.is_trained() and not second.is_trained()
    second.fit(None)
    assert trained == [(first.path.name, None)]
    assert first.is_trained() and second.is_trained()
    # With only one of the two files, the run has not ended.
    (second.path / "model.keras").unlink()
    assert first.is_trained() and not second.is_trained()


def test_a_partner_waits_for_the_network_that_is_written_last(tmp_path):
    second = models(tmp_path, SATM).get("second")
    (second.path / "saved_model").mkdir(parents=True)
    (second.path / "model.keras").touch()
    assert not second.is_trained()


def test_a_partner_is_a_model_of_its_own_to_others(tmp_path, monkeypatch):
    """What needs it takes its workdir, and differs from what needs the first."""
    found = models(tmp_path, SATM)
    after, second = found.get("after"), found.get("second")
    assert [one.name for one in in_order([after])] == ["second", "after"]
    trained = []
    monkeypatch.setattr(module.run, "fit", fake_fit(trained))
    after.fit(None)
    assert trained == [(after.path.name, [str(second.path)])]
    paths = {after.path}
    for sources in ('["first"]', '["second", "first"]', '["third"]'):
        text = SATM.replace('["second"]', sources) + (
            '[models.third]\nconfig = "satm.toml"\npartner = 1\nseed = 1\n'
        )
        paths.add(models(tmp_path, text, "other").get("after").path)
    assert len(paths) == 4


def test_the_configuration_of_a_partner_has_its_network_first(tmp_path):
    found = models(tmp_path, SATM)
    first, second = found.get("first"), found.get("second")
    for one, own, other in ((first, 4, 2), (second, 2, 4)):
        (partner,) = one.config["partners"]["models"]
        assert (one.config["model"]["width"], partner["width"]) == (own, other)
    assert second.experiment.config == first.config


def test_steps_that_were_taken(tmp_path):
    second = models(tmp_path, SATM).get("second")
    assert second.steps_taken == second.steps == 40
    for own in (second.run_path, second.path):
        (own / "saved_model").mkdir(parents=True)
        (own / "model.keras").touch()
        (own / "config.json").write_text('{"train": {"steps": 40}}')
    assert second.steps_taken == 40
    # Both networks were stopped.
    (second.path / "stopped.json").write_text('{"steps": 12}')
    assert (second.steps_taken, second.steps) == (12, 40)


FROM = (
    SATM
    + """
    [models.plain]
    config = "plain.toml"
    [models.narrow]
    config = "plain.toml"
    set = ["model.width=2"]
    [models.both]
    config = "satm_from.toml"
    sources = ["plain", "narrow"]
    """
)


def test_networks_start_from_the_finished_ones_at_their_places(tmp_path):
    found = models(tmp_path, FROM)
    both = found.get("both")
    assert [one.name for one in in_order([both])] == ["plain", "narrow", "both"]
    assert both.path != found.get("first").path
    # A partner is of its own network, whatever its run begins with.
    text = FROM.replace('["plain", "narrow"]', '["plain", "second"]')
    assert models(tmp_path, text, "other").get("both").sources[1].name == "second"


@pytest.mark.parametrize(
    ("old", "new", "model", "message"),
    [
        (
            *("partner = 1", "partner = 2", "second"),
            "`partner` is from 1 to 1, the networks of .*received 2",
        ),
        (
            *('"satm.toml"\n    partner', '"plain.toml"\n    partner', "second"),
            r"`partner` needs \[partners\] in its configuration; received 1",
        ),
        (
            *('["plain", "narrow"]', '["narrow", "plain"]', "both"),
            "'narrow' that it needs has model.width = 2, this one 4",
        ),
        (
            *('["plain", "narrow"]', '["plain", "first"]', "both"),
            "'first' that it needs has model.width = 4, this one 2",
        ),
        (
            *('["plain", "narrow"]', '["plain"]', "both"),
            r"the 2 networks .* start from as many `sources`; received 1",
        ),
    ],
)
def test_partners_that_cannot_be(tmp_path, old, new, model, message):
    assert FROM.count(old) == 1
    found = models(tmp_path, FROM.replace(old, new))
    with pytest.raises(UsageError, match=rf"model '{model}': .*{message}"):
        found.get(model)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '[models.more]\nconfig = "satm.toml"\ninit = "plain"\n',
            r"`init` is one network, and \[partners\] has others.*in `sources`",
        ),
        (
            '[models.more]\nconfig = "plain.toml"\ninit = "second"\n'
            'set = ["model.width=2"]\n',
            "`init` goes on from checkpoints, and 'second' has none of its own",
        ),
    ],
)
def test_what_goes_on_from_a_checkpoint_is_one_network(tmp_path, text, message):
    found = models(tmp_path, FROM + text)
    with pytest.raises(UsageError, match=rf"model 'more': {message}"):
        found.get("more")


def test_what_decides_when_a_run_stops_decides_its_weights(tmp_path):
    def name(*overrides):
        given = ", ".join(f'"{one}"' for one in ("data.holdout=9", *overrides))
        text = changed(
            '"hard.toml"\n    init = "start"', f'"hard.toml"\nset = [{given}]'
        )
        return models(tmp_path, text, "other").get("hard").path.name

    bookkeeping = ("train.validate_every=7", "train.validation_examples=5")
    assert name(*bookkeeping) == name()
    patient = name("train.patience=3")
    names = {name(one, "train.patience=3") for one in bookkeeping}
    assert len({name(), patient, *names}) == 4
    # Others stay bookkeeping.
    assert name("train.patience=3", "train.summary_every=7") == patient


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
        *("steps", "batch_size", "seed", "full_steps", "patience"),
        *("precision", "sync_bn", "on_nan"),
    }
    assert set(module.DECIDING_WITH_PATIENCE) < set(module.BOOKKEEPING)
