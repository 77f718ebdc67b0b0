"""A study on SLURM, on its stand-in, and on a Ray cluster that loses a node: nothing lost or done twice."""

import os
import shutil
import signal
import subprocess
import sys
from uuid import uuid4

import pytest

from optim_family.runs.run import read_run
from optim_family.study import execution
from optim_family.study.spec import load
from tests.helpers.counts import SHARE
from tests.helpers.environments import ENVIRONMENT, wait_until

pytestmark = pytest.mark.skipif(SHARE is None, reason="a minute each: they are part of `make faults`")
STUDY = """
question = "Do all of them arrive?"
claims = ["edge"]
data = { name = "digits", limit = 20 }
train = { model = "bn_mlp", batch_size = "full", steps = STEPS, device = "cpu", seeds = SEEDS }
measure = { every = 20, rtol = 1e-2 }
[[grid]]
optimizer = "gd"
"""


def written(folder, steps, seeds):
    text = STUDY.replace("STEPS", str(steps)).replace("SEEDS", str(list(range(seeds))))
    (folder / "mine.toml").write_text(text, encoding="utf-8")
    return execution.jobs(load(str(folder / "mine.toml")), folder / "runs" / "mine")


def command(*options):
    return [sys.executable, "-m", "optim_family", "study", "run", "mine.toml", *options]


def is_complete(jobs, steps):
    for job in jobs:
        run = read_run(job.out)
        assert run.status["status"] == "done"
        assert [record["step"] for record in run.records] == list(range(0, steps + 1, 20))


def test_a_study_through_submitit_with_a_worker_killed_and_one_preempted(tmp_path, held):
    pytest.importorskip("submitit", reason="the extra slurm is not installed")
    jobs = written(tmp_path, 4000, 2)
    options = (
        "--launcher",
        "submitit",
        "--set-launcher",
        "cluster=local",
        "--set-launcher",
        "timeout_min=30",
    )
    process = start(tmp_path, command(*options))
    writers = wait_until(
        lambda: [pid for job in jobs if (pid := writer(job))][1:] and list(map(writer, jobs)), process
    )
    os.kill(writers[0], signal.SIGTERM)
    os.kill(writers[1], signal.SIGKILL)
    out, err = process.communicate(timeout=500)
    is_complete(jobs[:1], 4000)
    again = subprocess.run(command(*options), cwd=tmp_path, env=ENVIRONMENT, capture_output=True, check=False)
    assert again.returncode == 0, (out, err, again.stderr)
    is_complete(jobs, 4000)
    held("a worker of a submitit study killed, another preempted", of=1)


def test_a_study_on_slurm_with_a_run_preempted_and_one_requeued(tmp_path, held):
    pytest.importorskip("submitit", reason="the extra slurm is not installed")
    if not shutil.which("sinfo") or subprocess.run(["sinfo"], capture_output=True, check=False).returncode:
        pytest.skip("there is no SLURM; tests/faults/slurm.sh sets one up")
    jobs = written(tmp_path, 1500, 2)
    name = f"study-{uuid4().hex}"
    options = ("--launcher", "submitit", "--workers", "2", "--set-launcher", f"name={name}")
    process = start(tmp_path, command(*options))
    wait_until(lambda: all(map(writer, jobs)), process)
    tasks = said("squeue", "--noheader", "--array", "--format=%i", f"--name={name}").split()
    said("scancel", "--signal=USR2", tasks[0])  # as before the end of the time, and at a preemption
    said("scontrol", "requeue", tasks[1])  # the job is killed, and waits again
    out, err = process.communicate(timeout=580)
    assert process.returncode == 0, (out, err)
    is_complete(jobs, 1500)
    assert all("Restarts=1" in said("scontrol", "show", "job", task) for task in tasks)
    assert len(said("sacct", "--noheader", "--allocations", f"--name={name}").splitlines()) == 2
    held("a run preempted and one requeued by SLURM", of=1)


def said(*words):
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def test_a_study_on_a_ray_cluster_that_loses_a_node(tmp_path, held):
    pytest.importorskip("ray", reason="the extra ray is not installed")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        doomed = cluster.add_node(num_cpus=1)
        jobs = written(tmp_path, 4000, 3)
        process = start(tmp_path, command("--launcher", "ray", "--address", cluster.address))
        wait_until(lambda: all(map(writer, jobs[:2])), process)
        cluster.remove_node(doomed, allow_graceful=False)
        out, err = process.communicate(timeout=550)
        assert process.returncode == 0, (out, err)
    finally:
        cluster.shutdown()
    is_complete(jobs, 4000)
    held("a node of a Ray cluster killed in the middle of a study", of=1)


def test_a_study_on_a_ray_cluster_whose_head_is_lost_and_started_again(tmp_path, held):
    pytest.importorskip("ray", reason="the extra ray is not installed")
    from ray.cluster_utils import Cluster

    jobs, ended = written(tmp_path, 4000, 2), []
    for lost in (True, False):
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
        try:
            process = start(tmp_path, command("--launcher", "ray", "--address", cluster.address))
            if lost:
                wait_until(lambda: all(map(writer, jobs)), process)
                cluster.shutdown()
            ended.append((*process.communicate(timeout=280), process.returncode))
        finally:
            cluster.shutdown()
    assert ended[0][-1] != 0 and ended[1][-1] == 0, ended
    is_complete(jobs, 4000)
    held("the head of a Ray cluster lost in the middle of a study, and started again", of=1)


def start(folder, words):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(words, cwd=folder, env=ENVIRONMENT, **pipes)


def writer(job):
    """The process that writes to a run which has a record."""
    log = job.out / "metrics.jsonl"
    if not (log.exists() and log.stat().st_size):
        return None
    holder = (job.out / "lock").read_text().split()
    return int(holder[1]) if execution.state(job).status == "running" else None
