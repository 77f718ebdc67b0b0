"""Many runs on many machines: SLURM through submitit, or a Ray cluster. Neither knows what a run is.

Both start on some machine the same worker as `Local` does here, and are told its exit code. All that the
machines have in common is the folder of the study. A run that was stopped from outside, or whose machine was
lost, is started again, and goes on from its checkpoint.
"""

import logging
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, final

from optim_family.errors import Stopped, UsageError, one_line
from optim_family.study.launchers import WORKER, Ending, Job, Launcher, Worker
from optim_family.training.spec import RunSpec
from optim_family.training.stop_signal import StopSignal

# How often a run may be stopped from outside before it counts as failed.
RESTARTS: Final = 20
_PAUSE: Final = 0.2  # seconds between two looks at the cluster
_FAREWELL: Final = 60.0  # seconds that runs have for their checkpoints
# Settings of submitit that every cluster knows; the others are SLURM's.
_SHARED: Final = "name timeout_min mem_gb nodes cpus_per_task gpus_per_node tasks_per_node".split()


class Cluster(Launcher, ABC):
    """Carries out jobs elsewhere: all are handed over at once, the cluster decides when."""

    @abstractmethod
    def submit(self, jobs: list[Job]) -> list[Any]:
        """Hand over; one handle a job."""

    @abstractmethod
    def ending(self, handle: Any) -> tuple[int, str] | None:
        """Exit code and last words, `Stopped.exit_code` if the machine was lost; None while it goes on."""

    @abstractmethod
    def cancel(self, handle: Any) -> None:
        """Ask it to leave a checkpoint and stop."""

    def map(self, jobs: Iterable[Job], stop: StopSignal, tick: Callable[[], None]) -> Iterator[Ending]:
        """Every job's ending, as they come."""
        todo = list(jobs)
        left, stops = dict(zip(self.submit(todo), todo, strict=True)), dict.fromkeys(todo, 0)
        try:
            while left:
                stop.check()
                for handle, job in list(left.items()):
                    if (end := self.ending(handle)) is None:
                        continue
                    del left[handle]
                    if end[0] == Stopped.exit_code and stops[job] < RESTARTS:
                        stops[job] += 1
                        left |= {self.submit([job])[0]: job}
                    else:
                        yield Ending(job, *end)
                tick()
                time.sleep(_PAUSE)
        finally:
            self._end(list(left))

    def _end(self, handles: list[Any]) -> None:
        """Cancel what is under way, and wait until it has left its checkpoints."""
        for handle in handles:
            self.cancel(handle)
        end = time.monotonic() + _FAREWELL
        while time.monotonic() < end and any(self.ending(handle) is None for handle in handles):
            time.sleep(_PAUSE)


@final
class Errand:
    """A job as it is sent to another machine: called there, it starts a worker and waits for its end."""

    def __init__(self, spec: str, out: str, threads: int) -> None:
        self.spec, self.out, self.threads = spec, out, threads
        self.worker: Worker | None = None

    def __call__(self) -> tuple[int, str]:
        """Exit code and last words of the run."""
        job = Job(RunSpec.model_validate_json(self.spec), Path(self.out))
        slurm = os.environ.get("SUBMITIT_EXECUTOR") == "slurm"
        before = signal.signal(signal.SIGTERM, self._leave) if slurm else None
        self.worker = Worker(job, (sys.executable, *WORKER[1:]), self.threads)
        try:
            while not self.worker.ended:
                time.sleep(_PAUSE)
        finally:  # cancelled: wait for its checkpoint
            self.worker.process.terminate()
            if slurm:
                signal.signal(signal.SIGTERM, before)
        ending = self.worker.ending()
        return ending.code, ending.words

    def _leave(self, *_: object) -> None:
        """SLURM ends the job and decides whether to queue it again: an answer would have it started twice."""
        self._stop()
        sys.exit(Stopped.exit_code)

    def _stop(self) -> None:
        """The run leaves a checkpoint."""
        if self.worker is not None:
            self.worker.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.worker.process.wait(_FAREWELL)

    def checkpoint(self) -> Any:
        """What submitit calls before it has the job queued again."""
        import submitit

        self._stop()
        return submitit.helpers.DelayedSubmission(Errand(self.spec, self.out, self.threads))


@final
class Submitit(Cluster):
    """SLURM: one job array, queued again when it is preempted; `cluster=local` are processes of this machine.

    Args:
        folder: for scripts and logs, on the shared file system.
        workers: how many at a time.
        settings: of submitit, as `partition`, `timeout_min`, `gpus_per_node`.

    Raises:
        UsageError: submitit is not installed, there is no SLURM, or a setting is unknown.
    """

    def __init__(self, folder: Path, workers: int, settings: Mapping[str, Any]) -> None:
        try:
            import submitit
        except ImportError:
            raise UsageError(_missing("submitit")) from None
        usual = {"timeout_min": 24 * 60, "cpus_per_task": 1, "array_parallelism": workers}
        given = {**usual, **settings}
        cluster = given.pop("cluster", None)
        self.threads = int(given["cpus_per_task"])
        try:
            self._executor = submitit.AutoExecutor(folder, cluster=cluster)
            named = {key if key in _SHARED else f"slurm_{key}": value for key, value in given.items()}
            self._executor.update_parameters(**named)
        except Exception as error:
            raise UsageError(f"--launcher submitit: {one_line(error)}") from error

    def submit(self, jobs: list[Job]) -> list[Any]:
        """One job array."""
        with self._executor.batch():
            return [self._executor.submit(_errand(job, self.threads)) for job in jobs]

    def ending(self, handle: Any) -> tuple[int, str] | None:
        """What the worker said; a job without an answer was killed with its machine."""
        if not handle.done():
            return None
        try:
            code, words = handle.result()
        except Exception as error:  # submitit's own, with the log of the job in it
            return Stopped.exit_code, one_line(error)[-500:]
        return code, words

    def cancel(self, handle: Any) -> None:
        """SIGTERM by way of the cluster."""
        handle.cancel(check=False)


@final
class Ray(Cluster):
    """A Ray cluster: one task a run, with the CPUs and GPUs that a run takes.

    Args:
        workers: how many at a time, where Ray is started here.
        address: of the cluster; None starts one on this machine.
        settings: `num_cpus` and `num_gpus` a run, and more options of a remote function.

    Raises:
        UsageError: ray is not installed, or the cluster is not there.
    """

    def __init__(self, workers: int, address: str | None, settings: Mapping[str, Any]) -> None:
        try:
            import ray
        except ImportError:
            raise UsageError(_missing("ray")) from None
        self._ray, self._options = ray, {"num_cpus": 1, "max_retries": 0, **settings}
        self.threads = max(1, int(self._options["num_cpus"]))
        start = {"address": address} if address else {"num_cpus": workers * self.threads}
        try:
            ray.init(**start, log_to_driver=False, logging_level=logging.ERROR, ignore_reinit_error=True)
        except Exception as error:
            raise UsageError(
                f"--launcher ray: no cluster at {address or 'all'}: {one_line(error)}"
            ) from error

    def submit(self, jobs: list[Job]) -> list[Any]:
        """One task each."""
        work = self._ray.remote(**self._options)(_carried_out)
        return [
            work.remote(job.spec.model_dump_json(), str(job.out.absolute()), self.threads) for job in jobs
        ]

    def ending(self, handle: Any) -> tuple[int, str] | None:
        """What the worker said; a task without an answer was lost with its node."""
        try:
            if not self._ray.wait([handle], timeout=0)[0]:
                return None
            code, words = self._ray.get(handle)
        except self._ray.exceptions.TaskCancelledError:
            return Stopped.exit_code, "cancelled"
        except Exception as error:  # Ray's own: the node was lost
            return Stopped.exit_code, one_line(error)[-500:]
        return code, words

    def cancel(self, handle: Any) -> None:
        """An interrupt in the task, which waits for the worker's checkpoint."""
        self._ray.cancel(handle, force=False)


def _carried_out(spec: str, out: str, threads: int) -> tuple[int, str]:
    return Errand(spec, out, threads)()


def _errand(job: Job, threads: int) -> Errand:
    return Errand(job.spec.model_dump_json(), str(job.out.absolute()), threads)


def _missing(name: str) -> str:
    extra = {"submitit": "slurm"}.get(name, name)
    return f"--launcher {name} needs {name}; pip install 'optim-family[{extra}]'"
