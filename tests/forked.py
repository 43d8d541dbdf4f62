"""Many calls of binaries for the price of one import of TensorFlow.

Run as a script: reads a JSON list of command lines, [[binary, flag, ...], ...], and
writes a JSON list of [exit code, stdout, stderr], a call each. Every call has a process
of its own, forked before any TensorFlow operation has started a thread.
"""

import json
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile
import traceback

ROOT = pathlib.Path(__file__).resolve().parents[1]


def calls(commands):
    """(exit code, stdout, stderr) of each command line; none knows TFDS_DATA_DIR."""
    done = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps(commands),
        stdout=subprocess.PIPE,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "TFDS_DATA_DIR"},
        check=True,
        timeout=300,
    )
    return [tuple(answer) for answer in json.loads(done.stdout)]


def _call(binary, *flags):
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = os.fork()
        if child == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            os._exit(_run(binary, flags))
        _, status = os.waitpid(child, 0)
        out.seek(0)
        err.seek(0)
        return os.waitstatus_to_exitcode(status), out.read(), err.read()


def _run(binary, flags):
    sys.argv = [str(ROOT / "bin" / binary), *flags]
    code = 0
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    from tfadv import cli

    commands = json.load(sys.stdin)
    for name in ("run", "trained", "transfer", "craft", "export"):
        cli.load(name)
    print(json.dumps([_call(*command) for command in commands]))
