"""Runs on many machines, tested in one process: which jobs are submitted, resubmitted and cancelled."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from optim_family.cli.study import launcher_from_options
from optim_family.errors import Stopped, UsageError
from optim_family.runs.run import read_run
from optim_family.study import clusters
from optim_family.study.clusters import Cluster, Ray, RemoteJob, Submitit
from optim_family.study.launchers import Job, Local
from optim_family.training.spec import RunSpec
from optim_family.training.stop_signal import StopSignal

JOBS = [Job(RunSpec(optimizer="gd", hyper={}, seed=seed), Path(f"runs/{seed}")) for seed in range(3)]


class Scripted(Cluster):
    """A cluster on which the n-th try of each job ends as a script says."""

    def __init__(self, script):
        self.script, self.submitted, self.cancelled = script, [], []

    def submit(self, jobs):
        self.submitted += [job.spec.seed for job in jobs]
        return [(job.spec.seed, len(self.submitted), n) for n, job in enumerate(jobs)]

    def result(self, handle):
        seed = handle[0]
        return self.script[seed].pop(0) if self.script[seed] else (0, "")

    def cancel(self, handle):
        self.cancelled.append(handle[0])


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(clusters, "POLL_SECONDS", 0.0)


def exit_codes(cluster, stop=None):
    return {end.job.spec.seed: end.exit_code for end in cluster.map(JOBS, stop or StopSignal(), lambda: None)}


def test_all_are_handed_over_at_once_and_end_as_they_come():
    cluster = Scripted({0: [None, None], 1: [(3, "diverged")], 2: [None, (1, "no")]})
    assert exit_codes(cluster) == {1: 3, 2: 1, 0: 0} and cluster.submitted == [0, 1, 2]


def test_a_run_that_was_stopped_from_outside_is_started_again():
    cluster = Scripted({0: [(75, "")] * 3, 1: [], 2: []})
    assert exit_codes(cluster) == {0: 0, 1: 0, 2: 0} and cluster.submitted == [0, 1, 2, 0, 0, 0]


def test_a_run_that_is_stopped_again_and_again_has_failed():
    cluster = Scripted({0: [(75, "")] * 1000, 1: [], 2: []})
    assert exit_codes(cluster) == {0: 75, 1: 0, 2: 0}
    assert cluster.submitted.count(0) == 1 + clusters.RESTARTS


def test_asked_to_stop_it_cancels_and_waits_for_what_is_under_way():
    stop, cluster = StopSignal(), Scripted({0: [(0, "")], 1: [None] * 5, 2: [None] * 3})
    results = cluster.map(JOBS, stop, lambda: None)
    assert next(results).job.spec.seed == 0
    stop.signal = signal.SIGTERM
    with pytest.raises(Stopped):
        next(results)
    assert cluster.cancelled == [1, 2] and cluster.script == {0: [], 1: [], 2: []}


@pytest.mark.parametrize("executor", ["slurm", "local", ""])
def test_a_remote_job_leaves_the_signals_as_they_were(tmp_path, monkeypatch, executor):
    monkeypatch.setenv("SUBMITIT_EXECUTOR", executor)
    before, seen = signal.getsignal(signal.SIGTERM), []
    monkeypatch.setattr(time, "sleep", lambda _: seen.append(signal.getsignal(signal.SIGTERM)))
    spec = RunSpec(optimizer="gdd", hyper={}).model_dump_json().replace("gdd", "nobody")
    remote_job = RemoteJob(spec, str(tmp_path / "run"), 1)
    assert remote_job()[0] == 2
    assert (seen[0] != before) == (executor == "slurm") and signal.getsignal(signal.SIGTERM) == before
    with pytest.raises(SystemExit) as left:
        remote_job._exit()  # the worker has ended, its job has not
    assert left.value.code == Stopped.exit_code


def test_a_remote_job_is_one_worker_and_returns_how_it_ended(tmp_path):
    spec = RunSpec(optimizer="gdd", hyper={}).model_dump_json()
    code, message = RemoteJob(spec.replace("gdd", "nobody"), str(tmp_path / "run"), 1)()
    assert code == 2 and "there is no optimizer 'nobody'" in message


def test_a_job_that_slurm_ends_gives_no_answer_and_leaves_a_checkpoint(tmp_path):
    """SLURM may queue it again by itself; submitit takes any answer for the end of the job."""
    spec = RunSpec(optimizer="gd", hyper={}, model="bn_mlp", limit=20, steps=10**6, every=1)
    imports = "from optim_family.study.clusters import RemoteJob"
    code = f"{imports}; print(RemoteJob({spec.model_dump_json()!r}, 'run', 1)())"
    environment = {**os.environ, "SUBMITIT_EXECUTOR": "slurm", "OMP_NUM_THREADS": "1"}
    path = os.pathsep.join(sys.path)
    remote_job = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
    )
    log = tmp_path / "run" / "metrics.jsonl"
    while remote_job.poll() is None and not (log.exists() and log.stat().st_size):
        time.sleep(0.05)
    remote_job.terminate()
    said, _ = remote_job.communicate(timeout=100)
    assert (said, remote_job.returncode) == (b"", Stopped.exit_code)
    assert read_run(tmp_path / "run").status["status"] == "stopped"


@pytest.mark.parametrize("name", ["submitit", "ray"])
def test_what_is_not_installed_is_named_with_its_extra(monkeypatch, tmp_path, name):
    monkeypatch.setitem(sys.modules, name, None)
    extra = {"submitit": "slurm"}.get(name, name)
    with pytest.raises(
        UsageError, match=rf"--launcher {name} needs {name}; pip install 'optim-family\[{extra}\]'"
    ):
        Submitit(tmp_path, 1, {}) if name == "submitit" else Ray(1, None, {})


def test_settings_are_pairs_and_belong_to_a_launcher(tmp_path):
    assert launcher_from_options("local", tmp_path, (), None) is Local
    with pytest.raises(UsageError, match="write KEY=VALUE"):
        launcher_from_options("submitit", tmp_path, ("partition",), None)
    for settings, address in (((), "auto"), (("a=1",), None)):
        with pytest.raises(UsageError, match="--launcher local takes no"):
            launcher_from_options("local", tmp_path, settings, address)


def test_submitit_refuses_what_it_does_not_know(tmp_path):
    pytest.importorskip("submitit", reason="the extra slurm is not installed")
    with pytest.raises(UsageError, match=r"--launcher submitit: .*colour"):
        Submitit(tmp_path, 1, {"cluster": "local", "colour": "red"})
