"""Tables of seconds on the embedded digits, and what a test wants to know of a call."""

import contextlib

import pytest

from tfadv import run
from tfadv.reproduction import reproduce, tables

CONFIGS = {
    "plain": """
        [data]
        name = "digits"
        [model]
        name = "small_cnn"
        width = 4
        [optimizer]
        name = "adam"
        learning_rate = 0.01
        [defense]
        name = "standard"
        [train]
        steps = 40
        batch_size = 16
        checkpoint_every = 100
        validate_every = 100
        validation_examples = 8
        summary_every = 100
        """,
    "hard": """
        base = "plain.toml"
        [attack]
        name = "step_ll"
        eps = "32/255"
        [defense]
        name = "kurakin"
        k = 8
        delay = 10
        """,
    "cascade": """
        base = "hard.toml"
        [defense]
        stored = 4
        [stored]
        source = "hard.toml"
        max_eps = "2/255"
        """,
    "generator": """
        base = "plain.toml"
        [sources]
        configs = ["plain.toml"]
        [defense]
        name = "generator_attack"
        eps = "32/255"
        [generator]
        name = "g1"
        k = 2
        """,
    # Two networks, trained together.
    "satm": """
        base = "plain.toml"
        [partners]
        models = [{ name = "small_cnn", width = 2 }]
        [attack]
        name = "step_fgsm"
        eps = "32/255"
        [defense]
        name = "satm"
        domain_weights = [0.0]
        """,
    "satm_from": """
        base = "satm.toml"
        [sources]
        configs = ["plain.toml", "plain.toml"]
        """,
    # What needs a finished network of any kind.
    "ensemble": """
        base = "plain.toml"
        [attack]
        name = "step_fgsm"
        eps = "32/255"
        [defense]
        name = "ensemble"
        [sources]
        configs = ["plain.toml"]
        """,
    "faces": """
        base = "plain.toml"
        [data]
        name = "adience_4"
        crop = 32
        flip = true
        """,
}

# Two models that go on from the same ten steps.
MODELS = """
    [models.start]
    config = "plain.toml"
    steps = 10
    [models.plain]
    config = "plain.toml"
    init = "start"
    seed = 1
    [models.hard]
    config = "hard.toml"
    init = "start"
    seed = 1
    """

WHITE = """
    title = "White box"
    attacks = ["step_fgsm", "iter_fgsm"]
    eps = ["16/255", "32/255"]
    [[rows]]
    name = "Plain"
    model = "plain"
    clean = 90.0
    step_fgsm = [80.0, nan]
    iter_fgsm = [70.0, 60.0]
    [[rows]]
    name = "Hard, trained"
    model = "hard"
    clean = 95.0
    step_fgsm = [85.0, 75.0]
    """


def write(folder, text, name="tiny"):
    """Path of the table `text` in `folder`, beside the configurations it may name."""
    for config, content in CONFIGS.items():
        (folder / f"{config}.toml").write_text(content)
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


def read(folder, text, name="tiny"):
    return tables.read(write(folder, text, name))


@contextlib.contextmanager
def watched():
    """Notes names of workdirs that are trained or crafted from, and first steps."""
    noted = {"trained": [], "crafted": [], "starts": []}
    fit, craft, batches = run.fit, run.craft_stored, run.pipeline.batches

    def note_fit(tables, path, **options):
        noted["trained"].append(path.name)
        return fit(tables, path, **options)

    def note_craft(model, *args):
        noted["crafted"].append(model.name)
        return craft(model, *args)

    def note_batches(*args, start, **options):
        noted["starts"].append(start)
        return batches(*args, start=start, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "fit", note_fit)
        patch.setattr(run, "craft_stored", note_craft)
        patch.setattr(run.pipeline, "batches", note_batches)
        yield noted


def reproduced(path, workdir, **options):
    """`reproduce` on the first 30 images, and what `watched` noted."""
    settings = {"num_examples": 30, "batch_size": 20} | options
    with watched() as noted:
        return reproduce.reproduce(path, workdir, **settings), noted
