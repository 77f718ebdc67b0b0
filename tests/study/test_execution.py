import fcntl
import json
import signal
from collections.abc import Callable, Iterable, Iterator

import pytest

from optim_family.errors import CorruptError, Stopped
from optim_family.runs.store import RunStore
from optim_family.study import execution
from optim_family.study.launchers import Job, JobResult, Launcher
from optim_family.study.spec import StudySpec
from optim_family.training.spec import RunSpec
from optim_family.training.stop_signal import StopSignal


class Pretender(Launcher):
    """Leaves for each seed the planned status and exit code, or calls the planned function."""

    def __init__(self, plan):
        self.plan, self.done = plan, []

    def map(self, jobs: Iterable[Job], stop: StopSignal, on_poll: Callable[[], None]) -> Iterator[JobResult]:
        for job in jobs:
            stop.check()
            on_poll()
            self.done.append(job.spec.seed)
            status, code = self.plan.get(job.spec.seed, ("done", 0))
            if callable(status):
                status()
            else:
                leave(job, status)
            yield JobResult(job, code, f"ended with {code}")


def leave(job, status, step=10, records=2):
    with RunStore.open(job.out, job.spec.model_dump(mode="json")) as store:
        for i in range(records):
            store.append({"step": 5 * (i + 1), "train_loss": 0.5, "elapsed": 1.0 + i})
        store.write("status.json", {"status": status, "step": step})


@pytest.fixture
def todo(tmp_path):
    runs = tuple(RunSpec(optimizer="gd", hyper={"lr": 0.1}, steps=10, seed=seed) for seed in range(4))
    return execution.jobs(StudySpec("mine", "?", {}, runs, ""), tmp_path)


def execute(todo, launcher, stop=None):
    results = []
    failed = execution.run_study(
        todo, launcher, stop=stop or StopSignal(), on_result=results.append, on_poll=lambda: None
    )
    assert launcher.done == [result.job.spec.seed for result in results]
    return failed


def states(todo):
    return [execution.state(job).status for job in todo]


def test_every_run_has_a_folder_of_its_own(todo, tmp_path):
    assert len({job.out for job in todo}) == len(todo)
    assert all(job.out.parent == tmp_path and job.spec.key in job.out.name for job in todo)


def test_what_is_done_is_passed_over(todo):
    leave(todo[1], "done")
    launcher = Pretender({})
    assert execute(todo, launcher) == []
    assert launcher.done == [0, 2, 3]
    again = Pretender({})
    execute(todo, again)
    assert again.done == [] and states(todo) == ["done"] * 4


def test_what_was_interrupted_is_resumed(todo):
    leave(todo[0], "stopped")
    leave(todo[2], "running")  # by somebody who was killed
    assert states(todo) == ["stopped", "waiting", "stopped", "waiting"]
    launcher = Pretender({})
    execute(todo, launcher)
    assert launcher.done == [0, 1, 2, 3]


def test_what_diverged_is_not_tried_again(todo):
    first, again = Pretender({1: ("diverged", 3)}), Pretender({})
    assert execute(todo, first) == []
    execute(todo, again)
    assert again.done == [] and states(todo)[1] == "diverged"


def test_a_run_that_fails_is_given_up_until_the_next_call(todo):
    first, again = Pretender({1: ("failed", 6), 2: ("running", 1)}), Pretender({})
    failed = execute(todo, first)
    assert [(result.job.spec.seed, result.message) for result in failed] == [
        (1, "ended with 6"),
        (2, "ended with 1"),
    ]
    assert first.done == [0, 1, 2, 3]
    assert execute(todo, again) == [] and again.done == [1, 2]


def test_a_run_whose_process_is_killed_is_given_up_after_two_failures(todo):
    launcher = Pretender({2: ("running", -9)})
    failed = execute(todo, launcher)
    assert [(result.job.spec.seed, result.exit_code) for result in failed] == [(2, -9)]
    assert launcher.done == [0, 1, 2, 3, 2]


def test_a_run_whose_process_is_killed_once_has_not_failed(todo):
    ends = iter(["running", "done"])
    launcher = Pretender({2: (lambda: leave(todo[2], next(ends), records=1), -9)})
    assert execute(todo, launcher) == [] and launcher.done == [0, 1, 2, 3, 2]


def test_a_worker_that_leaves_a_run_unfinished_without_a_word_has_failed(todo):
    failed = execute(todo, Pretender({1: ("running", 0)}))
    assert [result.job.spec.seed for result in failed] == [1]


def test_runs_that_others_hold_are_passed_over_and_looked_at_again(todo, monkeypatch):
    monkeypatch.setattr(execution, "BUSY_POLL_SECONDS", 0.0)
    store = RunStore.open(todo[0].out, todo[0].spec.model_dump(mode="json"))
    launcher = Pretender({3: (lambda: (store.close(), leave(todo[3], "done")), 0)})
    assert states(todo)[0] == "running"
    assert execute(todo, launcher) == []
    assert launcher.done == [1, 2, 3, 0]


def test_a_run_that_somebody_else_takes_first_is_no_failure(todo):
    launcher = Pretender({0: (lambda: leave(todo[0], "done"), 4)})
    assert execute(todo, launcher) == [] and launcher.done == [0, 1, 2, 3]


def test_a_run_that_somebody_else_has_begun_is_no_failure_and_looked_at_again(todo):
    ways = iter([(0, "running"), (1, "done")])

    def begun_by_another():
        records, status = next(ways)
        leave(todo[0], status, records=records)

    launcher = Pretender({0: (begun_by_another, 4)})
    assert execute(todo, launcher) == [] and launcher.done == [0, 1, 2, 3, 0]


def test_a_run_that_somebody_else_finishes_meanwhile_is_not_begun(todo):
    launcher = Pretender({0: (lambda: (leave(todo[0], "done"), leave(todo[2], "done")), 0)})
    execute(todo, launcher)
    assert launcher.done == [0, 1, 3]


def test_waiting_for_others_can_be_stopped(todo):
    stop = StopSignal()
    with RunStore.open(todo[0].out, todo[0].spec.model_dump(mode="json")), pytest.raises(Stopped):
        execution.run_study(
            todo[:1],
            Pretender({}),
            stop=stop,
            on_result=print,
            on_poll=lambda: setattr(stop, "signal", signal.SIGTERM),
        )


def test_looking_at_a_run_does_not_lock_it(todo):
    leave(todo[0], "stopped")
    with (todo[0].out / "lock").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # somebody else looks
        assert execution.state(todo[0]).status == "stopped"
    leave(todo[0], "done", records=0)


def test_the_state_of_a_run_tells_its_last_whole_record(todo):
    leave(todo[0], "running", step=7, records=3)
    with (todo[0].out / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step":20,"train_lo')
    state = execution.state(todo[0])
    assert (state.step, state.record["step"], state.record["train_loss"]) == (15, 15, 0.5)
    assert execution.state(todo[1]).record == {} and execution.state(todo[1]).step == 0


@pytest.mark.parametrize("name", ["status.json", "metrics.jsonl"])
def test_a_damaged_run_is_no_reason_not_to_look_at_the_others(todo, name):
    leave(todo[0], "done")
    (todo[0].out / name).write_text("{damaged\n")
    assert states(todo)[:2] == ["failed", "waiting"]


def test_a_log_that_is_longer_than_a_look_at_its_end(todo, monkeypatch):
    leave(todo[0], "done", records=50)
    whole = execution.state(todo[0]).record
    monkeypatch.setattr(execution, "TAIL_BYTES", 200)
    assert execution.state(todo[0]).record == whole and whole["step"] == 250


def test_only_runs_that_have_begun_are_read(todo):
    leave(todo[2], "done")
    (run,) = execution.runs(todo)
    assert run.path == todo[2].out and len(run.records) == 2
    spec = json.loads((todo[2].out / "spec.json").read_text())
    (todo[2].out / "spec.json").write_text(json.dumps(spec | {"steps": 11}))
    with pytest.raises(CorruptError):
        execution.runs(todo)


def test_runs_of_other_settings_are_told_from_those_of_the_study(tmp_path):
    def run(**fields):
        return RunSpec(**({"optimizer": "gd", "hyper": {"lr": 0.1}, "steps": 10, "device": "auto"} | fields))

    study = StudySpec("mine", "?", {}, (run(seed=0), run(seed=1)), "")
    others = [run(seed=1, every=5), run(hyper={"lr": 0.5}), run(seed=0, device="cpu", steps=20)]
    for spec in (*study.runs, *others):
        leave(Job(spec, tmp_path / spec.title), "done")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "spec.json").write_text("{")
    expected = sorted(["every 5, not 20", "lr 0.5, not 0.1", "steps 20, not 10"])
    assert sorted(execution.other_settings(study, tmp_path)) == expected
    assert sorted(execution.other_settings(study.only(["seeds=0"]), tmp_path)) == expected
