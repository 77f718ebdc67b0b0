import os
import signal
import subprocess
import sys

import pytest

from optim_family.errors import Stopped
from optim_family.study import launchers
from optim_family.study.launchers import Job, Local
from optim_family.training.spec import RunSpec
from optim_family.training.stop_signal import StopSignal

# What a worker does in these tests: it tells of itself in a file, and ends as its seed says.
PLAY = """
import json, os, pathlib, signal, sys, time
out, seed = pathlib.Path(sys.argv[1]), json.loads(sys.stdin.readline())["seed"]
threads = os.environ["OMP_NUM_THREADS"], os.environ["MKL_NUM_THREADS"]
(out.parent / f"{out.name}.env").write_text(" ".join(threads))
if seed == 9:
    os.kill(os.getpid(), signal.SIGKILL)
if seed == 8:
    signal.signal(signal.SIGTERM, lambda *_: (out.with_suffix(".asked").touch(), sys.exit(75)))
    out.with_suffix(".pid").write_text(str(os.getpid()))
    time.sleep(600)
print("some talk\\nlast words", file=sys.stderr)
sys.exit(seed)
"""
PROGRAM = (sys.executable, "-S", "-c", PLAY)


def jobs(tmp_path, seeds):
    specs = [RunSpec(optimizer="gd", hyper={}, seed=seed) for seed in seeds]
    return [Job(spec, tmp_path / f"{number}") for number, spec in enumerate(specs)]


def results_of(todo, workers=2, stop=None, on_poll=lambda: None):
    return list(Local(workers, PROGRAM).map(todo, stop or StopSignal(), on_poll))


def test_every_job_ends_with_its_exit_code_and_its_message(tmp_path):
    results = results_of(jobs(tmp_path, [0, 3, 4, 1]))
    assert {result.job.out.name: result.exit_code for result in results} == {"0": 0, "1": 3, "2": 4, "3": 1}
    assert {result.message for result in results} == {"last words"}


def test_a_worker_that_is_killed_takes_no_other_with_it(tmp_path):
    results = {result.exit_code: result.message for result in results_of(jobs(tmp_path, [9, 0, 5]))}
    assert results == {-9: "killed by SIGKILL", 0: "last words", 5: "last words"}


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_no_more_at_a_time_than_asked_for(tmp_path, workers):
    active, most = 0, 0

    def asked_for():
        nonlocal active, most
        for job in jobs(tmp_path, range(3)):
            active += 1
            most = max(most, active)
            yield job

    for _ in Local(workers, PROGRAM).map(asked_for(), StopSignal(), lambda: None):
        active -= 1
    assert (active, most) == (0, workers)


@pytest.mark.parametrize(
    ("workers", "limit", "threads"),
    [(1, "", 8), (2, "", 4), (1000, "", 1), (1, "3", 3), (2, "16", 4), (1, "0", 8), (1, "2,1", 8)],
)
def test_the_cores_are_divided_among_the_workers(tmp_path, monkeypatch, workers, limit, threads):
    monkeypatch.setattr(launchers, "cores", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", limit)
    results_of(jobs(tmp_path, [0]), workers)
    assert (tmp_path / "0.env").read_text() == f"{threads} {threads}"


def test_a_stop_request_reaches_every_worker_and_waits_for_it(tmp_path):
    stop, todo = StopSignal(), jobs(tmp_path, [8, 8, 8])
    pids = [job.out.with_suffix(".pid") for job in todo[:2]]

    def on_poll():
        if all(path.exists() and path.read_text() for path in pids):
            stop.signal = signal.SIGINT

    with pytest.raises(Stopped):
        results_of(todo, stop=stop, on_poll=on_poll)
    assert [job.out.with_suffix(".asked").exists() for job in todo] == [True, True, False]
    for path in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.read_text()), 0)


def test_a_caller_that_fails_leaves_no_worker_behind(tmp_path):
    (job,) = jobs(tmp_path, [8])
    pid = job.out.with_suffix(".pid")

    def on_poll():
        if pid.exists() and pid.read_text():
            raise RuntimeError

    with pytest.raises(RuntimeError):
        results_of([job], on_poll=on_poll)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_a_worker_whose_starter_is_gone_stops_by_itself():
    imports = "import time; from optim_family.study.worker import stop_when_orphaned"
    program = f"{imports}; stop_when_orphaned(); time.sleep(600)"
    worker = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE)
    worker.stdin.close()
    assert worker.wait(timeout=60) == -signal.SIGTERM


def test_the_cores_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 5, 7}, raising=False)
    assert launchers.cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert launchers.cores() == os.cpu_count()
