import re
import signal
import typing

import pytest

from tfadv import errors

COLOURS = {"green": 1, "blue": 2}


def test_lookup_finds_the_name():
    assert errors.lookup(COLOURS, "blue", "colour") == 2


@pytest.mark.parametrize(
    "name, message",
    [
        (
            "gren",
            "unknown colour 'gren'; did you mean 'green'? Known: blue, green.",
        ),
        ("xyz", "unknown colour 'xyz'. Known: blue, green."),
        (None, "unknown colour None. Known: blue, green."),
        # TOML can hold a list or a table where a name belongs.
        (["green"], "unknown colour ['green']"),
        ({"name": "green"}, "unknown colour {'name': 'green'}"),
    ],
)
def test_lookup_of_an_unknown_name_lists_the_names(name, message):
    with pytest.raises(errors.UsageError) as caught:
        errors.lookup(COLOURS, name, "colour")
    assert str(caught.value).startswith(message)


def test_nearest_takes_the_closest_of_several():
    known = ["step_ll", "step_fgsm", "iter_ll"]
    assert "'step_ll'" in errors.nearest("stepll", known)
    assert "'iter_ll'" in errors.nearest("iterll", known)
    assert "did you mean" not in errors.nearest("zzz", known)


def test_kinds_of_errors():
    """A factory's ValueError becomes a UsageError; a RunError must never be one."""
    assert issubclass(errors.UsageError, ValueError)
    assert not issubclass(errors.RunError, ValueError)
    assert not issubclass(errors.Stopped, (ValueError, RuntimeError))


def test_stopped_tells_step_and_signal():
    stopped = errors.Stopped(17, signal.SIGTERM)
    assert (stopped.step, stopped.signum) == (17, 15)
    assert str(stopped) == "stopped at step 17 by SIGTERM"


def test_a_signal_to_another_worker_is_told():
    here, there = (errors.Stopped(7, signal.SIGTERM, here=h) for h in (True, False))
    assert str(here) == "stopped at step 7 by SIGTERM"
    assert str(there) == "stopped at step 7 by SIGTERM on another worker"
    assert issubclass(errors.WorkerLost, errors.RunError)


def paint(*, colour: typing.Literal["green", "blue"] = "green", coats: int = 1):
    """Annotates what `check_literals` looks at."""


def test_a_literal_is_one_of_those_that_are_annotated():
    errors.check_literals(paint, colour="blue")
    message = (
        "`colour` must be 'green' or 'blue'; received 'gren'; did you mean 'green'?"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        errors.check_literals(paint, colour="gren")
