"""What a user can meet instead of a result, and how it is worded.

A message says what was wrong, what was expected and what to do. The binaries
print it as one line and turn the class into the exit code.
"""

import difflib
import signal
import typing


class UsageError(ValueError):
    """The request is wrong (a name, a key, a value): exit code 2."""


class RunError(RuntimeError):
    """The request is right but cannot be carried out here (data, disk): exit code 1."""


class WorkerLost(RunError):
    """Another worker of a training on several machines is gone: exit code 3."""


class Stopped(Exception):
    """A signal ended a training run; the checkpoint of its last step is written.

    Args:
        step: int.
        signum: of the signal.
        here: whether it came to this process, not to another worker.
    """

    def __init__(self, step, signum, *, here=True):
        where = "" if here else " on another worker"
        super().__init__(
            f"stopped at step {step} by {signal.Signals(signum).name}{where}"
        )
        self.step = step
        self.signum = signum


def nearest(name, known):
    """`; did you mean 'x'?` for the known name closest to `name`, or a full stop."""
    close = difflib.get_close_matches(str(name), [str(k) for k in known], n=1)
    return f"; did you mean {close[0]!r}?" if close else "."


def lookup(table, name, kind):
    """`table[name]`, or a `UsageError` that lists the names.

    Args:
        table: dict from name to anything.
        name: what the user wrote.
        kind: the noun for the message, such as `"attack"`.
    """
    if isinstance(name, str) and name in table:
        return table[name]
    raise UsageError(
        f"unknown {kind} {name!r}{nearest(name, table)} "
        f"Known: {', '.join(sorted(table))}."
    )


def check_literals(annotated, **values):
    """Raises ValueError unless each value is one that its `Literal` annotation allows.

    Args:
        annotated: function or class that annotates the names of `values`.
    """
    hints = typing.get_type_hints(annotated)
    for name, value in values.items():
        allowed = typing.get_args(hints[name])
        if value not in allowed:
            raise ValueError(
                f"`{name}` must be {' or '.join(map(repr, allowed))}; received "
                f"{value!r}{nearest(value, allowed)}"
            )
