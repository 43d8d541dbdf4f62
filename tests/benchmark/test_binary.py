import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "flags", [("--peers", "--evaluation"), ("--peers", "--method=kurakin")]
)
def test_one_thing_at_a_time(flags):
    done = subprocess.run(
        [sys.executable, ROOT / "bin" / "benchmark", *flags],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: expected one of --peers, --evaluation")
