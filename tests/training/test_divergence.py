import json
import logging
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfadv.defenses import Standard
from tfadv.errors import RunError
from tfadv.training import FiniteCheckpoints, Rewinds, Watch, guarded, train
from tfadv.training.divergence import Diverged

RATE = 0.1


def make():
    """Logits [0, w x] of one pixel x; w is 1."""
    classifier = keras.Sequential(
        [
            keras.Input((1, 1, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(2, use_bias=False),
        ]
    )
    classifier.set_weights([np.array([[0, 1]], np.float32)])
    defense = Standard(classifier)
    defense.compile(keras.optimizers.SGD(RATE, momentum=0.9))
    defense.build((None, 1, 1, 1))
    return defense


def sequence(bad, length=40):
    """An endless sequence of one-image batches, pixel (t + 1) / length; NaN at `bad`.

    Counted from 1, so that step t takes batch t.
    """
    x = np.arange(1, length + 1, dtype=np.float32) / length
    x[[t - 1 for t in bad]] = np.nan
    return x.reshape(-1, 1, 1, 1)


def data(x, first, end):
    y = np.ones(len(x), np.int32)
    pairs = tf.data.Dataset.from_tensor_slices((x, y)).batch(1)
    return pairs.skip(first).take(end - first)


class Run:
    """A training of 12 steps with checkpoints every 4, as `run` makes one."""

    def __init__(self, directory, x, on_nan="stop", every=10):
        self.directory, self.x, self.on_nan = directory, x, on_nan
        self.defense = make()
        self.watch = Watch(every=every)
        self.checkpoints = FiniteCheckpoints(
            directory / "checkpoints", self.defense, watch=self.watch, keep=9
        )
        self.rewinds = Rewinds(directory / "rewinds.json")
        self.taken = []

    def batches_from(self, start):
        pieces = self.rewinds.batches(start, 12)
        self.taken.append(pieces)
        found = data(self.x, *pieces[0])
        for piece in pieces[1:]:
            found = found.concatenate(data(self.x, *piece))
        return found

    def go(self, *callbacks):
        guarded(
            lambda: train(
                self.defense,
                self.batches_from,
                steps=12,
                steps_per_epoch=100,
                checkpoints=self.checkpoints,
                checkpoint_every=4,
                callbacks=[self.watch, *callbacks],
            ),
            on_nan=self.on_nan,
            checkpoints=self.checkpoints,
            rewinds=self.rewinds,
            where=self.directory / "checkpoints",
        )

    def saved(self):
        paths = (self.directory / "checkpoints").glob("*.index")
        return sorted(int(path.stem.removeprefix("ckpt-")) for path in paths)

    @property
    def weight(self):
        return self.defense.classifier.get_weights()[0]


def by_hand(batches):
    """w after SGD with momentum: J = log(1 + exp(-d)), d = (w1 - w0) x, label 1."""
    w, velocity = np.array([[0.0, 1.0]]), np.zeros((1, 2))
    for x in batches:
        p = 1 / (1 + math.exp(-(w[0, 1] - w[0, 0]) * x))
        gradient = np.array([[(1 - p) * x, -(1 - p) * x]])
        velocity = 0.9 * velocity - RATE * gradient
        w = w + velocity
    return w


@pytest.mark.parametrize("every", [1, 3, 10])
def test_a_loss_that_is_nan_at_step_7_stops(every, tmp_path):
    run = Run(tmp_path, sequence([7]), every=every)
    with pytest.raises(RunError) as caught:
        run.go()
    message = str(caught.value)
    assert "\n" not in message
    assert "the loss is nan at step 7" in message
    assert f"of step 4, is kept in {tmp_path}/checkpoints" in message
    assert "lower the learning rate" in message
    assert "--on_nan=rewind" in message
    assert run.saved() == [4]
    assert not (tmp_path / "rewinds.json").exists()


def test_the_checkpoint_that_is_kept_is_good(tmp_path):
    run = Run(tmp_path, sequence([7]))
    with pytest.raises(RunError):
        run.go()
    again = Run(tmp_path, sequence([7]))
    assert again.checkpoints.restore() is True
    expected = by_hand(sequence([]).ravel()[:4])
    np.testing.assert_allclose(again.weight, expected, atol=1e-6)


def test_before_the_first_checkpoint(tmp_path):
    run = Run(tmp_path, sequence([2]))
    with pytest.raises(RunError, match=r"nan at step 2\. There is no checkpoint yet"):
        run.go()
    assert run.saved() == []


def test_weights_that_are_nan_where_the_loss_is_not(tmp_path):
    """A callback spoils a weight after step 8, of which the loss knows nothing yet."""
    run = Run(tmp_path, sequence([]))

    def spoil(batch, logs):
        if int(run.defense.optimizer.iterations) == 8:
            run.defense.classifier.set_weights([np.array([[0, np.inf]], np.float32)])

    spoiled = keras.callbacks.LambdaCallback(on_train_batch_end=spoil)
    with pytest.raises(RunError, match=r"a weight, or .* is not finite at step 8"):
        run.go(spoiled)
    assert run.saved() == [4]


def test_a_momentum_that_is_nan(tmp_path):
    run = Run(tmp_path, sequence([]))
    run.go()
    momentum = next(v for v in run.defense.optimizer.variables if v.shape == (1, 2))
    run.watch.check(12)
    momentum.assign([[0, np.nan]])
    with pytest.raises(Diverged, match="not finite at step 12"):
        run.watch.check(12)


def test_a_rewind_steps_over_the_batches_since_the_checkpoint(tmp_path, caplog):
    """Steps 1 2 3 4 take batches 1 2 3 4, then 5 .. 12 take 8 .. 15."""
    run = Run(tmp_path, sequence([7]), "rewind")
    with caplog.at_level(logging.WARNING, logger="absl"):
        run.go()
    x = sequence([]).ravel()
    expected = by_hand([*x[:4], *x[7:15]])
    np.testing.assert_allclose(run.weight, expected, atol=1e-6)
    assert run.taken == [[(0, 12)], [(7, 15)]]
    entry = {"step": 7, "to": 4, "what": "the loss is nan"}
    assert json.loads((tmp_path / "rewinds.json").read_text()) == [entry]
    (said,) = [r.getMessage() for r in caplog.records if r.name == "absl"]
    assert "the loss is nan at step 7: going back to the checkpoint of step 4" in said
    assert "3 steps further (rewind 1 of at most 3)" in said
    assert run.saved() == [0, 4, 8, 12]


def test_a_rewind_to_the_begin(tmp_path):
    run = Run(tmp_path, sequence([2]), "rewind")
    run.go()
    expected = by_hand(sequence([]).ravel()[2:14])
    np.testing.assert_allclose(run.weight, expected, atol=1e-6)


def test_rewinds_add_up(tmp_path):
    """Back from 7 to 4, which takes batch 8 next; 9 is bad: back from 6 to 4, which
    takes 10 next."""
    run = Run(tmp_path, sequence([7, 9]), "rewind")
    run.go()
    x = sequence([]).ravel()
    expected = by_hand([*x[:4], *x[9:17]])
    np.testing.assert_allclose(run.weight, expected, atol=1e-6)
    assert [(one["step"], one["to"]) for one in run.rewinds.done] == [(7, 4), (6, 4)]


def test_a_stopped_run_that_rewound_goes_on_with_the_same_batches(tmp_path):
    whole, first = (
        Run(tmp_path / name, sequence([7]), "rewind") for name in ("whole", "parts")
    )
    whole.go()

    def fail(batch, logs):
        if int(first.defense.optimizer.iterations) == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        first.go(keras.callbacks.LambdaCallback(on_train_batch_end=fail))
    second = Run(tmp_path / "parts", sequence([7]), "rewind")
    second.go()
    assert second.taken == [[(11, 15)]]
    np.testing.assert_array_equal(second.weight, whole.weight)


def test_the_fourth_time_is_the_last(tmp_path):
    """Every batch from the fifth on is bad."""
    run = Run(tmp_path, sequence(range(5, 41)), "rewind")
    with pytest.raises(RunError) as caught:
        run.go()
    message = str(caught.value)
    assert "It went back 3 times before, from the steps 5, 5, 5" in message
    assert "--on_nan=rewind" not in message
    assert len(run.taken) == 4
    assert run.saved() == [0, 4]
    again = Run(tmp_path, sequence(range(5, 41)), "rewind")
    with pytest.raises(RunError, match="3 times before"):
        again.go()
    assert len(again.taken) == 1


def test_an_older_checkpoint_takes_the_batches_it_took(tmp_path):
    """b = 7, g = 4: steps 2, 3 take batches 2, 3; from 4 on they are 3 further."""
    (tmp_path / "r.json").write_text('[{"step": 7, "to": 4, "what": "x"}]')
    rewinds = Rewinds(tmp_path / "r.json")
    assert rewinds.batches(2, 12) == [(2, 4), (7, 15)]
    assert rewinds.batches(4, 12) == [(7, 15)]
    assert rewinds.batches(12, 12) == [(15, 15)]


def test_checkpoints_with_nan_of_an_older_version(tmp_path):
    run = Run(tmp_path, sequence([]))
    run.defense.classifier.set_weights([np.array([[0, np.nan]], np.float32)])
    # As `Checkpoints` saves, without a look.
    super(FiniteCheckpoints, run.checkpoints).save(0)
    with pytest.raises(RunError, match=r"step 0 left are not finite.*Delete"):
        Run(tmp_path, sequence([])).go()


def test_a_large_loss_is_a_loss(tmp_path):
    """d = -10^20 x: J is 10^20, far from what a classifier should have."""
    run = Run(tmp_path, sequence([]))
    run.defense.classifier.set_weights([np.array([[0, -1e20]], np.float32)])
    run.go()
    assert run.saved() == [4, 8, 12]


def test_a_rewind_goes_to_what_can_be_read(tmp_path):
    """8 is gone, so the training goes on from 4 and, after step 7, from there again."""
    with pytest.raises(RunError):
        Run(tmp_path, sequence([10])).go()
    for path in (tmp_path / "checkpoints").glob("ckpt-8.*"):
        path.unlink()
    run = Run(tmp_path, sequence([7]), "rewind")
    run.go()
    assert [(one["step"], one["to"]) for one in run.rewinds.done] == [(7, 4)]


def test_weights_that_are_nan_from_the_start_are_not_saved(tmp_path):
    run = Run(tmp_path, sequence([]), "rewind")
    run.defense.classifier.set_weights([np.array([[0, np.nan]], np.float32)])
    with pytest.raises(RunError, match="would begin with are not finite"):
        run.go()
    assert run.saved() == []
