import itertools

import numpy as np

from tfadv.benchmark import timing


def test_candidates_are_timed_in_turn_after_a_call_that_does_not_count(monkeypatch):
    """By a clock that each call moves: the median of 3, 1, 8 is 3, of 2, 2, 5 is 2."""
    took = {"a": iter([100, 3, 1, 8]), "b": iter([100, 2, 2, 5])}
    order, now = [], [0.0]

    def candidate(name):
        def run():
            order.append(name)
            now[0] += next(took[name])

        return run

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    candidates = {name: candidate(name) for name in took}
    assert timing.medians(candidates, 3) == {"a": 3, "b": 2}
    assert order == list(itertools.chain(*["ab"] * 4))


def test_every_run_times_the_same_images():
    (x, y), (again, labels) = (timing.random_batch(3, (2, 2, 1)) for _ in range(2))
    assert x.shape == (3, 2, 2, 1)
    np.testing.assert_array_equal(x, again)
    np.testing.assert_array_equal(y, labels)
    assert np.ptp(x) > 0
