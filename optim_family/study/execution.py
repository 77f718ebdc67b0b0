"""Execute the unfinished runs of a study, each in its own directory of one folder.

Several processes and machines may work on a study: a run that another process has locked is skipped, and its
state is read again later.
"""

import fcntl
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, final

from optim_family.errors import BusyError, CorruptError
from optim_family.runs import layout
from optim_family.runs.labels import compact, flat
from optim_family.runs.run import FINISHED, Run, read_run
from optim_family.runs.store import unseal_if_any
from optim_family.study.launchers import Job, JobResult, Launcher
from optim_family.study.spec import StudySpec
from optim_family.training.stop_signal import StopSignal

TAIL_BYTES: Final = 1 << 16  # at the end of a log; more than any record takes
ATTEMPTS: Final = 2  # of a run whose process is killed, within a call; then the run is given up
BUSY_POLL_SECONDS: Final = 2.0  # between two checks of runs that other processes have locked


@final
@dataclass(frozen=True)
class State:
    """The progress of a run.

    Attributes:
        status: waiting, running, stopped, failed, done or diverged.
        step: of the last record or checkpoint.
        record: the last record; empty before the first.
    """

    job: Job
    status: str
    step: int = 0
    record: dict[str, Any] = field(default_factory=dict)


def jobs(study: StudySpec, folder: Path) -> list[Job]:
    """The runs of a study with their run directories."""
    return [Job(spec, folder / spec.title) for spec in study.runs]


def state(job: Job) -> State:
    """Read the progress of a run from its directory, without a lock and without verifying the files."""
    if not (job.out / layout.SPEC).exists():
        return State(job, "waiting")
    try:
        stored_status = unseal_if_any(job.out / layout.STATUS)
        record = _last_record(job.out / layout.LOG)
    except (CorruptError, ValueError):
        return State(job, "failed")  # the process that resumes it reports what is wrong
    status = stored_status.get("status", "stopped")
    if status not in FINISHED:
        status = "running" if _is_locked(job.out) else "stopped" if status == "running" else status
    return State(job, status, max(stored_status.get("step", 0), record.get("step", 0)), record)


def finished(job: Job) -> bool:
    """Whether a run is done or diverged; neither is repeated."""
    return state(job).status in FINISHED


def has_failed(result: JobResult) -> bool:
    """Whether a run is unfinished although no other process works on it."""
    return result.exit_code != BusyError.exit_code and not finished(result.job)


def run_study(
    jobs: Sequence[Job],
    launcher: Launcher,
    *,
    stop: StopSignal,
    on_result: Callable[[JobResult], None],
    on_poll: Callable[[], None],
) -> list[JobResult]:
    """Execute the unfinished runs of a study, and wait for those that other processes have locked.

    A run whose process is killed, for lack of memory for instance, is tried `ATTEMPTS` times; after any other
    failure it is given up at once. A run that was stopped from outside (exit code 75) has not failed: a
    cluster starts it again, up to `clusters.RESTARTS` times within a call.

    Args:
        jobs: all runs of the study.
        launcher: executes them.
        stop: checked at every poll.
        on_result: called with the result of every process.
        on_poll: called at every poll.

    Returns:
        The results of the runs given up; the next call tries them again.

    Raises:
        Stopped: `stop` was requested; every running run has written a checkpoint.
    """
    attempts, given_up = Counter[Job](), dict[Job, JobResult]()
    while todo := [job for job in jobs if not finished(job) and job not in given_up]:
        available = (job for job in todo if not finished(job) and not _is_locked(job.out))  # when asked for
        for result in launcher.map(available, stop, on_poll):
            on_result(result)
            attempts[result.job] += has_failed(result)
            if has_failed(result) and (result.exit_code >= 0 or attempts[result.job] == ATTEMPTS):
                given_up[result.job] = result
        if all(_is_locked(job.out) for job in todo):
            _wait(stop, on_poll)
    return list(given_up.values())


def other_settings(study: StudySpec, folder: Path) -> Iterator[str]:
    """For each run in the folder that the study does not have: how it differs from the nearest that it has.

    For example `every 50, not 100`.
    """
    own = (*study.runs, *study.left_out)
    titles, fields = {run.title for run in own}, [_compared(run.model_dump(mode="json")) for run in own]
    for path in sorted(folder.glob(f"*/{layout.SPEC}")):
        if path.parent.name in titles:
            continue
        with suppress(CorruptError, ValueError, KeyError):
            other = _compared(unseal_if_any(path))
            nearest = max(fields, key=lambda each: len(each.items() & other.items()))
            yield ", ".join(
                f"{key.removeprefix('hyper.')} {other.get(key)}, not {nearest.get(key)}"
                for key in {**nearest, **other}
                if nearest.get(key) != other.get(key)
            )


def _compared(spec: dict[str, Any]) -> dict[str, str]:
    """The fields that tell one run from another, as text; a study leaves the device to each machine."""
    return {key: compact(value) for key, value in flat(spec).items() if key != "device"}


def runs(jobs: Iterable[Job]) -> list[Run]:
    """Read the runs that have begun.

    Raises:
        CorruptError: a run is damaged.
    """
    return [read_run(job.out) for job in jobs if (job.out / layout.SPEC).exists()]


def _wait(stop: StopSignal, on_poll: Callable[[], None]) -> None:
    end = time.monotonic() + BUSY_POLL_SECONDS
    while time.monotonic() < end:
        stop.check()
        on_poll()
        time.sleep(0.1)


def _is_locked(out: Path) -> bool:
    """Whether a process writes to a run directory."""
    try:
        with (out / layout.LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _last_record(path: Path) -> dict[str, Any]:
    """The last complete line of a log to which another process may be writing."""
    if not path.exists():
        return {}
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        lines = file.read().split(b"\n")[:-1]
    return dict(json.loads(lines[-1])) if lines else {}
