"""The scripts in configs/cluster, with what they call replaced by stubs."""

import json
import os
import pathlib
import signal
import subprocess
import time

import pytest

from tfadv import cluster

FILES = pathlib.Path(__file__).resolve().parents[1] / "configs" / "cluster"


def stub(folder, name, text):
    path = folder / name
    path.write_text(f"#!/usr/bin/env bash\n{text}\n")
    path.chmod(0o755)
    return path


def run(command, folder, **environment):
    env = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "PAUSE": "0"}
    env |= {"OUT": str(folder / "out"), **environment}
    return subprocess.Popen([str(part) for part in command], env=env, text=True)


def calls(folder):
    path = folder / "out"
    return path.read_text().splitlines() if path.exists() else []


def wait_for(folder, count):
    deadline = time.monotonic() + 20
    while len(calls(folder)) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


# The loop.


def test_a_worker_starts_again_until_there_are_results(tmp_path):
    """Lost, killed, ended before the chief has measured, and done."""
    workdir = tmp_path / "a run"
    workdir.mkdir()
    train = stub(
        tmp_path,
        "train",
        'echo "$@" >> "$OUT"; n=$(wc -l < "$OUT")\n'
        "case $n in 1) exit 3;; 2) kill -9 $$;; 3) exit 0;; esac\n"
        f'touch "{workdir}/results.json"',
    )
    command = [FILES / "worker.sh", workdir, "--method=kurakin", "--set=a.b=1 2"]
    assert run(command, tmp_path, TRAIN=str(train)).wait(20) == 0
    line = f"--strategy=multi_worker --workdir={workdir} --method=kurakin --set=a.b=1 2"
    assert calls(tmp_path) == [line] * 4


@pytest.mark.parametrize("code", [1, 2])
def test_what_would_fail_again_is_not_repeated(code, tmp_path):
    train = stub(tmp_path, "train", f'echo >> "$OUT"; exit {code}')
    command = [FILES / "worker.sh", tmp_path / "run"]
    assert run(command, tmp_path, TRAIN=str(train)).wait(20) == code
    assert len(calls(tmp_path)) == 1


@pytest.mark.parametrize("forward", [True, False])
def test_sigterm_waits_for_the_checkpoint(forward, tmp_path):
    """Passed on where only the shell receives it, once; the training ends with 0."""
    train = stub(
        tmp_path,
        "train",
        'trap \'echo term >> "$OUT"; sleep 0.5; echo saved >> "$OUT"; exit 0\' TERM\n'
        'echo begun >> "$OUT"\nwhile true; do sleep 0.05; done',
    )
    process = run(
        [FILES / "worker.sh", tmp_path / "run"],
        tmp_path,
        TRAIN=str(train),
        FORWARD="1" if forward else "",
    )
    wait_for(tmp_path, 1)
    process.send_signal(signal.SIGTERM)
    if not forward:
        time.sleep(0.3)
        assert calls(tmp_path) == ["begun"]
        # As SLURM sends it to every process.
        found = subprocess.run(
            ["pgrep", "-P", str(process.pid)], capture_output=True, text=True
        )
        os.kill(int(found.stdout.split()[0]), signal.SIGTERM)
    assert process.wait(20) == 143
    assert calls(tmp_path) == ["begun", "term", "saved"]


# TF_CONFIG.


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_slurm_numbers_nodes_in_its_own_order(rank, tmp_path):
    """n2 before n10, as scontrol lists them."""
    stub(tmp_path, "scontrol", "printf 'n2\\nn10\\ngpu-a\\n'")
    stub(tmp_path, "srun", 'shift; exec "$@"')
    (tmp_path / "configs" / "cluster").mkdir(parents=True)
    stub(tmp_path / "configs" / "cluster", "worker.sh", 'echo "$TF_CONFIG $*" > "$OUT"')
    process = run(
        [FILES / "slurm.sh", "/shared/run", "--method=kurakin"],
        tmp_path,
        SLURM_SUBMIT_DIR=str(tmp_path),
        SLURM_STEP_NODELIST="n[2,10],gpu-a",
        SLURM_PROCID=str(rank),
        SLURM_JOB_ID="7",
    )
    assert process.wait(20) == 0
    text, flags = calls(tmp_path)[0].rsplit("} ", 1)
    assert flags == "/shared/run --method=kurakin"
    found = cluster.from_environment({"TF_CONFIG": text + "}"})
    assert found.addresses == ("n2:12345", "n10:12345", "gpu-a:12345")
    assert found.index == rank


@pytest.mark.parametrize(("code", "again"), [(0, 0), (1, 0), (2, 0), (143, 1)])
def test_slurm_queues_a_job_again_whose_time_is_up(code, again, tmp_path):
    stub(tmp_path, "scontrol", 'echo "$@" >> "$OUT"')
    stub(tmp_path, "srun", f"exit {code}")
    environment = {"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_ID": "7"}
    run([FILES / "slurm.sh", tmp_path / "run"], tmp_path, **environment).wait(20)
    assert calls(tmp_path) == ["requeue 7"] * again


def test_kubernetes_names_pods_as_the_job_does(tmp_path):
    yaml = pytest.importorskip("yaml")
    service, job = yaml.safe_load_all((FILES / "kubernetes.yaml").read_text())
    spec = job["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    given = {one["name"]: one["value"] for one in container["env"]}
    assert spec["completions"] == spec["parallelism"] == int(given["WORKERS"]) == 2
    assert spec["template"]["spec"]["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    (script,) = container["args"]
    written = tmp_path / "worker.sh"
    stub(tmp_path, "worker.sh", 'echo "$TF_CONFIG" > "$OUT"')
    called = "/tfadv/configs/cluster/worker.sh"
    assert called in script
    command = [*container["command"], script.replace(called, str(written))]
    environment = given | {"JOB_COMPLETION_INDEX": "1"}
    assert run(command, tmp_path, **environment).wait(20) == 0
    found = cluster.from_environment({"TF_CONFIG": calls(tmp_path)[0]})
    name = job["metadata"]["name"]
    expected = tuple(f"{name}-{i}.{service['metadata']['name']}:12345" for i in (0, 1))
    assert (found.addresses, found.index) == (expected, 1)
    assert json.loads(calls(tmp_path)[0])["task"]["type"] == "worker"
