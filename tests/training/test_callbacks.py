import itertools
import logging
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfadv import attacks, optimizers
from tfadv.defenses import Kurakin, Standard
from tfadv.training import Checkpoints, Progress, Summaries, callbacks, train

# Logits [0, 3 a - 4 b] of images (a, b): class 1 for (1, 0), class 0 for the others.
X = np.array([[1, 0], [0, 1], [0.5, 0.5]], np.float32).reshape(3, 1, 2, 1)
Y = np.array([1, 1, 0], np.int32)
KERNEL = np.array([[0, 3], [0, -4]], np.float32)
FGSM = attacks.StepFGSM(eps=0.25)
BOTH = {"step_fgsm": FGSM, "weak": attacks.StepFGSM(eps=0.05)}


def make(factory=Standard, optimizer=None, **options):
    classifier = keras.Sequential(
        [
            keras.Input((1, 2, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(2, use_bias=False),
        ]
    )
    classifier.set_weights([KERNEL])
    defense = factory(classifier, **options)
    defense.compile(optimizer or keras.optimizers.SGD(0.0))
    return defense


def run(defense, *shown, steps, steps_per_epoch=100):
    data = tf.data.Dataset.from_tensors((X, Y)).repeat()
    rest = {"steps": steps, "steps_per_epoch": steps_per_epoch, "callbacks": shown}
    return train(defense, lambda start: data.skip(start), **rest)


def summaries(directory, *, watched_attacks=BOTH, summary_every=1, validate_every=1):
    return Summaries(
        directory,
        watched=("holdout", tf.constant(X), tf.constant(Y)),
        attacks=watched_attacks,
        summary_every=summary_every,
        validate_every=validate_every,
        seed=0,
    )


def read(directory):
    """{tag: {step: tensor}} of the event files in `directory`."""
    found = {}
    for path in sorted(directory.glob("events.*")):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                steps = found.setdefault(value.tag, {})
                steps[event.step] = tf.make_ndarray(value.tensor)
    return found


def scalars(found, tag):
    return {step: float(value) for step, value in found[tag].items()}


def test_tags_and_steps(tmp_path):
    defense = make(Kurakin, attack=FGSM, k=1)
    shown = summaries(tmp_path, summary_every=2, validate_every=3)
    run(defense, shown, steps=6, steps_per_epoch=4)
    steps = {tag: list(values) for tag, values in read(tmp_path).items()}
    assert steps == {
        "train/loss": [2, 4, 6],
        "train/accuracy": [2, 4, 6],
        "train/adversarial_accuracy": [2, 4, 6],
        "train/learning_rate": [2, 4, 6],
        "train/eps": [2, 4, 6],
        "holdout/clean": [3, 6],
        "holdout/step_fgsm": [3, 6],
        "holdout/weak": [3, 6],
        "holdout/images/step_fgsm": [3, 6],
        "holdout/images/weak": [3, 6],
    }


def test_training_curves_hold_the_metrics_of_the_epoch(tmp_path):
    """Weights stand still, of three labels two are right: 2 / 3 at every step."""
    logs = run(make(), summaries(tmp_path), steps=2)
    found = read(tmp_path)
    assert scalars(found, "train/accuracy") == pytest.approx({1: 2 / 3, 2: 2 / 3})
    assert scalars(found, "train/loss") == pytest.approx(
        {n: logs["loss"] for n in (1, 2)}
    )


def test_accuracy_on_watched_images_by_hand(tmp_path):
    """step_fgsm of 1/4 keeps (1, 0) right at (3/4, 1/4) and gets (1/2, 1/2) wrong at
    (3/4, 1/4); (0, 1) is wrong before and, clipped to itself, after. A step of 1/20
    takes (1/2, 1/2) to (.55, .45) only, where z = -.15 is right still."""
    run(make(), summaries(tmp_path), steps=1)
    found = read(tmp_path)
    assert scalars(found, "holdout/clean") == pytest.approx({1: 2 / 3})
    assert scalars(found, "holdout/step_fgsm") == pytest.approx({1: 1 / 3})
    assert scalars(found, "holdout/weak") == pytest.approx({1: 2 / 3})


def test_watched_accuracy_is_of_the_weights_of_its_step(tmp_path):
    """From step 2 on the weights are negated, which turns the sign of z: every clean
    prediction changes sides, 1 / 3 are right."""
    defense = make()

    def negate(batch, logs):
        if int(defense.optimizer.iterations) == 2:
            defense.classifier.set_weights([-KERNEL])

    negated = keras.callbacks.LambdaCallback(on_train_batch_end=negate)
    run(defense, negated, summaries(tmp_path), steps=2)
    clean = scalars(read(tmp_path), "holdout/clean")
    assert clean == pytest.approx({1: 2 / 3, 2: 1 / 3})


def test_images_are_clean_adversarial_and_difference_in_rows(tmp_path):
    """(1, 0) -> (3/4, 1/4): difference (-1, 1) / 4, times 10 around 1/2 is clipped to
    (0, 1)."""
    run(make(), summaries(tmp_path), steps=1)
    images = read(tmp_path)["holdout/images/step_fgsm"][1]
    assert images[:2].tolist() == [b"2", b"3"]  # width and height
    assert len(images) == 2 + 3
    shown = tf.io.decode_png(images[2])[..., 0].numpy()
    np.testing.assert_allclose(
        shown / 255, [[1, 0], [0.75, 0.25], [0, 1]], atol=1 / 255
    )


def test_without_attacks_only_clean_accuracy_is_watched(tmp_path):
    run(make(), summaries(tmp_path, watched_attacks={}), steps=1)
    found = read(tmp_path)
    assert {tag for tag in found if tag.startswith("holdout")} == {"holdout/clean"}
    assert scalars(found, "holdout/clean") == pytest.approx({1: 2 / 3})


def test_learning_rate_drops_at_its_boundary(tmp_path):
    """Step 3 (counted from 0) is the first at the second rate: what a curve shows at n
    is the rate of the step n to come."""
    defense = make(optimizer=optimizers.sgd(learning_rate=(0.1, 0.01), boundaries=(3,)))
    run(defense, summaries(tmp_path), steps=4)
    found = scalars(read(tmp_path), "train/learning_rate")
    assert found == pytest.approx({1: 0.1, 2: 0.1, 3: 0.01, 4: 0.01})


def test_histogram_of_eps(tmp_path):
    """Buckets [left, right, count]: 256 draws of the law within [0, eps], most of them
    below eps / 2, which is one standard deviation."""
    run(make(Kurakin, attack=FGSM, k=1), summaries(tmp_path), steps=1)
    buckets = read(tmp_path)["train/eps"][1]
    left, right, count = buckets.T
    assert count.sum() == 256
    assert left.min() >= 0
    assert right.max() <= 0.25
    assert count[right <= 0.125].sum() > 128


def test_a_defence_without_an_eps_law_has_no_histogram(tmp_path):
    run(make(), summaries(tmp_path), steps=1)
    assert "train/eps" not in read(tmp_path)


def test_curves_go_on_in_a_resumed_run(tmp_path):
    defense = make()
    for steps in (2, 3):
        run(defense, summaries(tmp_path), steps=steps)
    assert sorted(read(tmp_path)["train/loss"]) == [1, 2, 3]


@pytest.fixture
def lines(monkeypatch, caplog):
    """Messages of a run off the terminal, by a clock that takes 10 s between calls."""
    clock = itertools.count(0, 10)
    time = types.SimpleNamespace(monotonic=lambda: next(clock))
    monkeypatch.setattr(callbacks, "time", time)
    monkeypatch.setattr(callbacks, "_terminal", lambda: False)
    with caplog.at_level(logging.INFO, logger="absl"):
        yield lambda: [r.getMessage() for r in caplog.records if r.name == "absl"]


def test_progress_off_the_terminal_is_lines_with_the_time_left(lines):
    """Ten seconds a step: a line every 20 seconds is one at steps 2, 4 and the last."""
    run(make(), Progress(5, every_seconds=20.0), steps=5)
    heads = [line.split(",")[0] for line in lines()]
    tails = [line.split(", ")[-1] for line in lines()]
    assert heads == ["step 2/5", "step 4/5", "step 5/5"]
    assert tails == ["30 s left", "10 s left", "0 s left"]
    assert all("accuracy 0.6667, loss " in line for line in lines())


def test_progress_of_a_resumed_run_counts_its_own_steps(lines):
    """2 of 6 steps are done before: at step 4 two steps took 20 s, two are to come."""
    defense = make()
    run(defense, steps=2)
    run(defense, Progress(6, every_seconds=20.0), steps=6)
    assert lines()[0] == "resuming at step 2 of 6"
    assert lines()[1].startswith("step 4/6, ")
    assert lines()[1].endswith(", 20 s left")


def test_progress_on_a_terminal_is_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(callbacks, "_terminal", lambda: True)
    monkeypatch.setattr(callbacks, "time", types.SimpleNamespace(monotonic=lambda: 0))
    run(make(), Progress(3), steps=3)
    shown = capsys.readouterr().out
    assert "3/3" in shown
    assert "accuracy: 0.6667" in shown


def stopping(defense, losses, *, every=1):
    """An `EarlyStopping` of patience 2, and a list of the steps that it measures at.

    The losses are those it finds, one after the other.
    """
    left, measured = list(losses), []

    def validation_loss(x, y):
        def take():
            measured.append(int(defense.optimizer.iterations.numpy()))
            return np.float32(left.pop(0))

        return tf.py_function(take, [], tf.float32)

    defense.validation_loss = validation_loss
    return callbacks.EarlyStopping(X, Y, patience=2, every=every), measured


def steps_of(defense):
    return int(defense.optimizer.iterations.numpy())


def test_early_stopping_waits_for_a_lower_loss():
    """1 is no lower than 1: the second measurement without a fall is that of step 6."""
    defense = make()
    shown, measured = stopping(defense, [3, 2, 2.5, 1, 2, 1, 0])
    run(defense, shown, steps=10)
    assert measured == [1, 2, 3, 4, 5, 6]
    assert steps_of(defense) == 6


def test_early_stopping_measures_every_so_many_steps():
    defense = make()
    shown, measured = stopping(defense, [1, 1, 1], every=3)
    run(defense, shown, steps=20)
    assert measured == [3, 6, 9]
    assert steps_of(defense) == 9


def test_a_resumed_run_stops_where_it_would_have_stopped(tmp_path):
    """Measured 3, 2, 2 before, and 2.5 after the restart: the second without a fall."""

    def resumed(losses, steps):
        defense = make()
        shown, measured = stopping(defense, losses)
        states = {"early_stopping": shown.state}
        kept = Checkpoints(tmp_path, defense, states)
        data = tf.data.Dataset.from_tensors((X, Y)).repeat()
        train(
            defense,
            lambda start: data.skip(start),
            steps=steps,
            steps_per_epoch=100,
            checkpoints=kept,
            callbacks=[shown],
        )
        return steps_of(defense), measured

    assert resumed([3, 2, 2], steps=3) == (3, [1, 2, 3])
    assert resumed([2.5, 0], steps=10) == (4, [4])
    # And once more, where it had stopped already.
    assert resumed([0], steps=10) == (4, [])


def test_what_early_stopping_watches_is_the_clean_loss():
    """Logits [0, 3], [0, -4], [0, -0.5] and labels 1, 1, 0."""
    expected = np.mean([np.log1p(np.exp(-m)) for m in (3, -4, 0.5)])
    assert float(make().validation_loss(X, Y)) == pytest.approx(expected)
