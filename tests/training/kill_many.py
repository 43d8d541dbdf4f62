#!/usr/bin/env python3
"""Kills a training many times, anywhere, and compares its end with an undisturbed one.

python tests/training/kill_many.py --kills=50 --output=kills.json

Each kill is a kill -9 or a SIGTERM at a random moment: at once, after a new checkpoint,
or while one is being written. After each, what is on disk must be readable: the newest
checkpoint (or the one before, where the newest is damaged, which is counted), and the
configuration. The weights of the end must be those of the undisturbed run, bit for bit,
as must the best classifier be. Not collected by pytest; exit code 1 where anything is
not as it should be. The same --folder goes on after an interruption of this script.
"""

import argparse
import hashlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))


def command(workdir, steps):
    return [
        sys.executable,
        str(ROOT / "bin" / "train"),
        "--method=kurakin",
        f"--steps={steps}",
        f"--workdir={workdir}",
        "--set=train.checkpoint_every=5",
        "--set=train.validate_every=10",
        "--set=train.summary_every=10",
        "--set=evaluate.attacks=['step_fgsm']",
        "--set=evaluate.eps=16/255",
    ]


def start(workdir, steps):
    return subprocess.Popen(
        command(workdir, steps),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )


def newest(workdir):
    indices = (workdir / "checkpoints").glob("ckpt-*.index")
    return max((int(path.stem.split("-")[1]) for path in indices), default=0)


def writing(workdir):
    """Whether a checkpoint is being written just now."""
    folder = workdir / "checkpoints"
    names = os.listdir(folder) if folder.exists() else []
    return any("temp" in name or ".tmp" in name for name in names)


def wait_until(process, condition, seconds):
    """Until it holds, the process has ended or the time is over."""
    deadline = time.monotonic() + seconds
    while process.poll() is None and not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.0003)
    return process.poll() is None


def check(workdir):
    """What is wrong in the workdir of a killed run: a list of sentences."""
    import tensorflow as tf

    wrong = []
    if not workdir.exists() or not any(workdir.iterdir()):
        return wrong
    config = workdir / "config.json"
    if config.exists():
        try:
            json.loads(config.read_text())
        except ValueError as error:
            wrong.append(f"config.json: {error}")
    elif newest(workdir):
        wrong.append("checkpoints without config.json")
    for index in (workdir / "checkpoints").glob("ckpt-*.index"):
        try:
            reader = tf.train.load_checkpoint(str(index.with_suffix("")))
            for name in reader.get_variable_to_shape_map():
                reader.get_tensor(name)
        except (tf.errors.OpError, ValueError, RuntimeError, IndexError) as error:
            wrong.append(f"{index.name}: {str(error).splitlines()[0]}")
    return wrong


def digest(path):
    """Of the weights in a .keras file; of its bytes no two are alike."""
    import keras

    found = hashlib.sha256()
    for weight in keras.models.load_model(path).get_weights():
        found.update(weight.tobytes())
    return found.hexdigest()


def finished(workdir):
    """{name: digest} of the classifier and of the best one, with its step.

    What is not there has the digest None, and what should not be there is a name more.
    """
    best = {path.name: path for path in (workdir / "best").glob("*")}
    found = {"model": workdir / "model.keras"} | best
    return {name: digest(p) if p.exists() else None for name, p in found.items()}


def kill_once(workdir, steps, rng):
    """Starts the run, kills it at a random moment, and tells what was seen."""
    where = rng.choice(["start", "step", "checkpoint", "checkpoint"])
    signum = rng.choice([signal.SIGKILL, signal.SIGTERM])
    delay = {"start": rng.uniform(0, 8), "step": rng.uniform(0, 0.5)}.get(where, 0)
    before = newest(workdir)
    process = start(workdir, steps)
    begin = time.monotonic()
    if where == "step":
        wait_until(process, lambda: newest(workdir) > before, 300)
    elif where == "checkpoint":
        for _ in range(rng.randint(1, 3)):
            reached = newest(workdir)
            wait_until(process, lambda: newest(workdir) > reached, 300)  # noqa: B023
        wait_until(process, lambda: writing(workdir), 300)
    time.sleep(delay)
    found = {
        "signal": signal.Signals(signum).name,
        "where": where,
        "in_write": writing(workdir),
        "after_seconds": round(time.monotonic() - begin, 3),
        "step_before": before,
    }
    ended = process.poll() is not None
    process.send_signal(signum)
    sent = time.monotonic()
    try:
        _, err = process.communicate(timeout=180)
    except subprocess.TimeoutExpired:
        process.kill()
        _, err = process.communicate()
        found["hung"] = True
    stopped = re.search(r"stopped at step (\d+) by SIGTERM", err)
    found |= {
        "ended_before": ended,
        "exit_code": process.returncode,
        "seconds_to_end": round(time.monotonic() - sent, 3),
        "stopped_at": int(stopped.group(1)) if stopped else None,
        "step_after": newest(workdir),
        "fell_back": "cannot be read" in err,
        "wrong": check(workdir),
    }
    if "Traceback" in err:
        found["wrong"].append(err[err.index("Traceback") :][-500:])
    if stopped and process.returncode == 0 and newest(workdir) != int(stopped.group(1)):
        found["wrong"].append("the checkpoint of the last step is missing")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--steps", type=int, default=None, help="default 15 a kill")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", required=True, help="JSON file")
    parser.add_argument("--folder", help="for the two runs; default a temporary one")
    options = parser.parse_args()
    steps = options.steps or max(60, 15 * options.kills)
    rng = random.Random(options.seed)
    folder = pathlib.Path(options.folder or tempfile.mkdtemp(prefix="kill-many-"))
    folder.mkdir(parents=True, exist_ok=True)
    whole, workdir = folder / "undisturbed", folder / "killed"
    process = start(whole, steps)
    _, err = process.communicate()
    if process.returncode:
        sys.exit(f"the undisturbed run failed: {err}")
    output = pathlib.Path(options.output)
    kept = json.loads(output.read_text())["kills"] if output.exists() else []
    kills = kept if options.folder and workdir.exists() else []
    rng.seed(f"{options.seed} {len(kills)}")
    attempts = 0
    while len(kills) < options.kills and attempts < 2 * options.kills:
        attempts += 1
        if (workdir / "results.json").exists():
            # It has ended: the next kills are of the same run from its begin.
            shutil.move(workdir, folder / f"ended_{len(kills)}")
        kills.append(kill_once(workdir, steps, rng))
        print(f"{len(kills)}: {kills[-1]}", flush=True)
        output.write_text(json.dumps({"kills": kills}, indent=2) + "\n")
    process = start(workdir, steps)
    _, err = process.communicate()
    ends = [p for p in [workdir, *folder.glob("ended_*")] if p.exists()]
    expected = finished(whole)
    found = {
        "steps": steps,
        "kills": kills,
        "last_exit_code": process.returncode,
        "same_weights": all(finished(p) == expected for p in ends),
        "runs": len(ends),
        "in_write": sum(kill["in_write"] for kill in kills),
        "fell_back": sum(kill["fell_back"] for kill in kills),
        "wrong": sum(bool(kill["wrong"]) or "hung" in kill for kill in kills),
    }
    output.write_text(json.dumps(found, indent=2) + "\n")
    print({k: v for k, v in found.items() if k != "kills"})
    good = found["same_weights"] and not found["wrong"] and not process.returncode
    if good and not options.folder:
        shutil.rmtree(folder)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
