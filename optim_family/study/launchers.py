"""Start many runs, several at a time, each in a process of its own.

A process that is killed then takes no other run with it. The workers of a machine divide its threads:
processes that compete for cores are far slower than one after another.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, final

from optim_family.resources import thread_limit
from optim_family.training.spec import RunSpec
from optim_family.training.stop_signal import StopSignal

WORKER: Final = (sys.executable, "-m", "optim_family.study.worker")
POLL_SECONDS: Final = 0.1  # between two checks of the workers


@final
@dataclass(frozen=True)
class Job:
    """A run and its run directory."""

    spec: RunSpec = field(hash=False)
    out: Path


@final
@dataclass(frozen=True)
class JobResult:
    """How the process of a job ended: an exit code of `optim-family run`, and its last line of output."""

    job: Job
    exit_code: int
    message: str


class Launcher(ABC):
    """Executes jobs, several at a time."""

    @abstractmethod
    def map(self, jobs: Iterable[Job], stop: StopSignal, on_poll: Callable[[], None]) -> Iterator[JobResult]:
        """Yield the result of every job as soon as it ends.

        Args:
            jobs: an iterator is advanced only when another job can start.
            stop: checked at every poll.
            on_poll: called at every poll.

        Raises:
            Stopped: `stop` was requested; all workers have written a checkpoint and ended.
        """


@final
class Local(Launcher):
    """Processes on this machine, which divide its cores equally; OMP_NUM_THREADS limits the threads of each.

    Args:
        workers: processes at a time.
        program: the command of a worker. It gets the run directory as its argument and the specification as
            one line on stdin, which stays open as long as this process lives.
    """

    def __init__(self, workers: int, program: Sequence[str] = WORKER) -> None:
        self.workers, self.program = workers, program
        share = max(1, cores() // workers)
        self.threads = min(share, thread_limit() or share)

    def map(self, jobs: Iterable[Job], stop: StopSignal, on_poll: Callable[[], None]) -> Iterator[JobResult]:
        """Yield the result of every job as soon as it ends; no worker outlives this call."""
        waiting, running = iter(jobs), list[Worker]()
        try:
            while True:
                stop.check()
                while len(running) < self.workers and (job := next(waiting, None)):
                    running.append(Worker(job, self.program, self.threads))
                if not running:
                    return
                for worker in [each for each in running if each.ended]:
                    running.remove(worker)
                    yield worker.result()
                on_poll()
                time.sleep(POLL_SECONDS)
        finally:
            _shut_down(running)


@final
class Worker:
    """A process that executes one job; holds its stdin and a temporary file with its output."""

    def __init__(self, job: Job, program: Sequence[str], threads: int) -> None:
        self.job, self._resources = job, ExitStack()
        self._output = self._resources.enter_context(tempfile.TemporaryFile())
        self.process = subprocess.Popen(
            [*program, str(job.out)],
            stdin=subprocess.PIPE,
            stdout=self._output,
            stderr=self._output,
            bufsize=0,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)},
            start_new_session=True,  # Ctrl-C reaches this process, which then stops the workers
        )
        stdin = self.process.stdin
        assert stdin is not None
        self._resources.callback(stdin.close)
        with suppress(BrokenPipeError):  # the process has already died; `result` says why
            stdin.write(job.spec.model_dump_json().encode() + b"\n")

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        return self.process.poll() is not None

    def result(self) -> JobResult:
        """Wait for the exit code and the last line of output, or the name of the signal that ended it."""
        code = self.process.wait()
        self._output.seek(0)
        lines = self._output.read().decode(errors="replace").strip().splitlines()
        self._resources.close()
        killed = [f"killed by {signal.Signals(-code).name}"] if code < 0 else []
        return JobResult(self.job, code, (killed + lines[-1:] or [""])[0])


def _shut_down(workers: Iterable[Worker]) -> None:
    """Ask all workers to write a checkpoint, and wait for them; a second Ctrl-C kills them."""
    for worker in workers:
        worker.process.terminate()
    try:
        for worker in workers:
            worker.result()
    except BaseException:
        for worker in workers:
            worker.process.kill()
        raise


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
