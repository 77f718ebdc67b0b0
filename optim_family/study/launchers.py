"""Many runs: where their processes are started, and how many at a time.

Every run has a process of its own, so that one which is killed takes no other with it. The threads of a
machine are divided among its workers: processes that fight for cores are slower by far than one after
another.
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

from optim_family.training.spec import RunSpec
from optim_family.training.stop_signal import StopSignal

WORKER: Final = (sys.executable, "-m", "optim_family.study.worker")
_PAUSE: Final = 0.1  # seconds between two looks at the workers


@final
@dataclass(frozen=True)
class Job:
    """A run, and the directory it belongs in."""

    spec: RunSpec = field(hash=False)
    out: Path


@final
@dataclass(frozen=True)
class Ending:
    """How the process of a job ended: its exit code, as of `optim-family run`, and its last words."""

    job: Job
    code: int
    words: str


class Launcher(ABC):
    """Carries out jobs, several at a time."""

    @abstractmethod
    def map(self, jobs: Iterable[Job], stop: StopSignal, tick: Callable[[], None]) -> Iterator[Ending]:
        """Every job's ending, as they come.

        Args:
            jobs: asked for one by one, whenever there is room for another.
            stop: obeyed between two looks at the workers.
            tick: called at every look.

        Raises:
            Stopped: `stop` said so; all workers have stopped with a checkpoint.
        """


@final
class Local(Launcher):
    """Processes of this machine, which share its cores fairly.

    Args:
        workers: how many at a time.
        program: what each of them is; it is told the run directory as an argument, and the specification
            by one line on stdin, which stays open for as long as somebody waits for it.
    """

    def __init__(self, workers: int, program: Sequence[str] = WORKER) -> None:
        self.workers, self.program = workers, program
        self.threads = max(1, cores() // workers)

    def map(self, jobs: Iterable[Job], stop: StopSignal, tick: Callable[[], None]) -> Iterator[Ending]:
        """Every job's ending, as they come; whatever happens, no worker outlives this."""
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
                    yield worker.ending()
                tick()
                time.sleep(_PAUSE)
        finally:
            _end(running)


@final
class Worker:
    """A process at work on one job; remembers where its words go."""

    def __init__(self, job: Job, program: Sequence[str], threads: int) -> None:
        self.job, self._held = job, ExitStack()
        self._words = self._held.enter_context(tempfile.TemporaryFile())
        self.process = subprocess.Popen(
            [*program, str(job.out)],
            stdin=subprocess.PIPE,
            stdout=self._words,
            stderr=self._words,
            bufsize=0,
            env={**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))},
            start_new_session=True,  # Ctrl-C is for us; we tell the workers
        )
        stdin = self.process.stdin
        assert stdin is not None
        self._held.callback(stdin.close)
        with suppress(BrokenPipeError):  # it has died already; its ending says of what
            stdin.write(job.spec.model_dump_json().encode() + b"\n")

    @property
    def ended(self) -> bool:
        """Whether the process has come to an end."""
        return self.process.poll() is not None

    def ending(self) -> Ending:
        """The exit code and the last line; a signal's name where a signal ended it."""
        code = self.process.wait()
        self._words.seek(0)
        lines = self._words.read().decode(errors="replace").strip().splitlines()
        self._held.close()
        killed = [f"killed by {signal.Signals(-code).name}"] if code < 0 else []
        return Ending(self.job, code, (killed + lines[-1:] or [""])[0])


def _end(workers: Iterable[Worker]) -> None:
    """Ask all to leave a checkpoint, and wait until they have; a second Ctrl-C does not wait."""
    for worker in workers:
        worker.process.terminate()
    try:
        for worker in workers:
            worker.ending()
    except BaseException:
        for worker in workers:
            worker.process.kill()
        raise


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
