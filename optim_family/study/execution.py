"""A study under way: which of its runs are finished, and what is left to do.

The runs of a study lie side by side in one folder, each under its own name. Whoever wants may work on them:
a run that another process or machine holds is passed over and looked at again later.
"""

import fcntl
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, final

from optim_family.errors import BusyError, CorruptError
from optim_family.runs.atomic_files import unseal
from optim_family.runs.run import Run, read_run
from optim_family.study.launchers import Ending, Job, Launcher
from optim_family.study.spec import StudySpec
from optim_family.training.stop_signal import StopSignal

FINISHED: Final = ("done", "diverged")
TAIL: Final = 1 << 16  # bytes at the end of a log in which the last record surely is
PATIENCE: Final = 2.0  # seconds between two looks at runs that others hold


@final
@dataclass(frozen=True)
class State:
    """How far a run is.

    Attributes:
        status: waiting, running, stopped, failed, done or diverged.
        step: of the last record or checkpoint.
        record: the last one; empty before the first.
    """

    job: Job
    status: str
    step: int = 0
    record: dict[str, Any] = field(default_factory=dict)


def jobs(study: StudySpec, folder: Path) -> list[Job]:
    """The runs of a study, and where in its folder they belong."""
    return [Job(spec, folder / spec.title) for spec in study.runs]


def state(job: Job) -> State:
    """How far a run is, as its directory tells; nothing is locked and nothing is verified."""
    if not (job.out / "spec.json").exists():
        return State(job, "waiting")
    try:
        told = unseal(job.out / "status.json") if (job.out / "status.json").exists() else {}
        record = _last_record(job.out / "metrics.jsonl")
    except (CorruptError, ValueError):
        return State(job, "failed")  # whoever works on it will say what is wrong
    status = told.get("status", "stopped")
    if status not in FINISHED:
        status = "running" if _held(job.out) else "stopped" if status == "running" else status
    return State(job, status, max(told.get("step", 0), record.get("step", 0)), record)


def finished(job: Job) -> bool:
    """Whether there is nothing more to do; a run that diverged is not tried again."""
    return state(job).status in FINISHED


def has_failed(ending: Ending) -> bool:
    """Whether a run is not finished, and not because somebody else works on it."""
    return ending.code != BusyError.exit_code and not finished(ending.job)


def carry_out(
    todo: Sequence[Job],
    launcher: Launcher,
    *,
    stop: StopSignal,
    tell: Callable[[Ending], None],
    tick: Callable[[], None],
) -> list[Ending]:
    """Do what is left of a study, and come back to what others hold until they are done with it.

    Args:
        todo: all runs of the study.
        launcher: carries them out.
        stop: obeyed soon.
        tell: told of every ending.
        tick: called often.

    Returns:
        The endings of those runs that failed; they are tried again the next time.

    Raises:
        Stopped: `stop` said so; every run under way has left a checkpoint.
    """
    failed: list[Ending] = []
    while left := [job for job in todo if not finished(job) and all(job != each.job for each in failed)]:
        for ending in launcher.map(_free(left), stop, tick):
            tell(ending)
            failed += [ending] * has_failed(ending)
        if all(_held(job.out) for job in left):
            _wait(stop, tick)
    return failed


def runs(todo: Iterable[Job]) -> list[Run]:
    """The runs that have begun, as their directories hold them.

    Raises:
        CorruptError: one of them is damaged.
    """
    return [read_run(job.out) for job in todo if (job.out / "spec.json").exists()]


def _free(left: Iterable[Job]) -> Iterator[Job]:
    """Those that still need somebody, at the moment when one is asked for."""
    return (job for job in left if not finished(job) and not _held(job.out))


def _wait(stop: StopSignal, tick: Callable[[], None]) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        stop.check()
        tick()
        time.sleep(0.1)


def _held(out: Path) -> bool:
    """Whether somebody writes to a run directory."""
    try:
        with (out / "lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _last_record(path: Path) -> dict[str, Any]:
    """The last whole line of a log that may be growing."""
    if not path.exists():
        return {}
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        lines = file.read().split(b"\n")[:-1]
    return dict(json.loads(lines[-1])) if lines else {}
