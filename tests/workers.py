"""Several workers of one training, as processes on this machine."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]


def addresses(count=2):
    """As many free ones."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    found = [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]
    for one in sockets:
        one.close()
    return found


def config(listed, index):
    task = {"type": "worker", "index": index}
    return json.dumps({"cluster": {"worker": listed}, "task": task})


def start(command, listed, index):
    """A process of `python command`, as this worker."""
    env = {**os.environ, "TF_CONFIG": config(listed, index), "CUDA_VISIBLE_DEVICES": ""}
    env |= {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    )


def start_all(command, count=2):
    listed = addresses(count)
    return [start(command, listed, index) for index in range(count)]


def ends(processes, timeout):
    """[(exit code, stdout, stderr)] when all have ended; none outlives the time."""
    deadline = time.monotonic() + timeout
    found = []
    try:
        for process in processes:
            left = max(0.1, deadline - time.monotonic())
            out, err = process.communicate(timeout=left)
            found.append((process.returncode, out, err))
    finally:
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.communicate()
    return found
