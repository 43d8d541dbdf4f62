"""Writing so that a reader finds the old content or the new, never half of either."""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import shutil
import tempfile

from tfadv.errors import RunError


def make_directory(path):
    """`path` as a directory, made if need be.

    Raises:
        RunError: it cannot be.
    """
    path = pathlib.Path(path)
    with _as_run_error(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def remove_leftovers(directory):
    """Removes what killed `replacing`s have left half-written in a directory.

    What a living process writes stays. A directory that was complete, and was only not
    yet where it belongs when the process was killed, is put there.
    """
    directory = pathlib.Path(directory)
    for leftover in directory.glob(".writing-*"):
        # Locked by whoever is writing there.
        with contextlib.suppress(OSError), _locked(leftover):
            for new in (leftover / "new").glob("*"):
                moved_away = (leftover / "old").exists()
                if moved_away and not (directory / new.name).exists():
                    os.rename(new, directory / new.name)
            shutil.rmtree(leftover, ignore_errors=True)


@contextlib.contextmanager
def _locked(directory):
    """Holds a lock that ends with the process; OSError where another holds it."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            pass  # There are file systems without locks.
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def replacing(path):
    """Yields a temporary path to write to; renamed to `path` when the block succeeds.

    For files and directories alike. If the block fails the temporary content is
    removed and `path` is as it was.

    Raises:
        RunError: the disk is full or cannot be written.
    """
    path = pathlib.Path(path)
    with contextlib.ExitStack() as stack, _as_run_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        holder = pathlib.Path(tempfile.mkdtemp(prefix=".writing-", dir=path.parent))
        stack.callback(shutil.rmtree, holder, ignore_errors=True)
        stack.enter_context(_locked(holder))
        new, old = holder / "new" / path.name, holder / "old"
        new.parent.mkdir()
        yield new
        # A file takes the place of no directory: `os.replace` refuses that.
        moved = path.is_dir() and new.is_dir()
        if moved:
            os.rename(path, old)
        try:
            os.replace(new, path)
        except OSError:
            if moved:
                os.rename(old, path)
            raise


@contextlib.contextmanager
def _as_run_error(path):
    try:
        yield
    except OSError as error:
        advice = " Free some space." if error.errno == errno.ENOSPC else ""
        raise RunError(
            f"cannot write {path}: {error.strerror or error}.{advice} Nothing that was "
            "there has been changed."
        ) from error


def write_json(path, value):
    """Writes `value` as indented JSON, by `replacing`."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")


def read_json(path, what):
    """The content of a JSON file.

    Raises:
        RunError: it is missing or damaged; `what` names it in the message.
    """
    try:
        return json.loads(pathlib.Path(path).read_text())
    except FileNotFoundError:
        raise RunError(f"{what}: there is no {path}") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{what}: {path} cannot be read: {error}") from None
