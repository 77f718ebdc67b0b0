"""Execute runs on many machines: SLURM through submitit, or a Ray cluster.

Both start the same worker process as `Local` on some machine, and return its exit code. The machines share
only the folder of the study. A run that was stopped from outside, or whose machine was lost, is started again
and resumes from its checkpoint.
"""

import importlib
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
from optim_family.study.launchers import WORKER, Job, JobResult, Launcher, Worker
from optim_family.training.spec import RunSpec
from optim_family.training.stop_signal import StopSignal

# How often a run may be stopped from outside before it counts as failed.
RESTARTS: Final = 20
POLL_SECONDS: Final = 0.2  # between two queries of the cluster
SHUTDOWN_SECONDS: Final = 60.0  # time for runs to write their checkpoints
# Parameters of submitit that apply to every cluster; the others belong to SLURM.
_SHARED: Final = "name timeout_min mem_gb nodes cpus_per_task gpus_per_node tasks_per_node".split()


class Cluster(Launcher, ABC):
    """Executes jobs on other machines: all are submitted at once, the cluster schedules them."""

    @abstractmethod
    def submit(self, jobs: list[Job]) -> list[Any]:
        """Submit the jobs; return one handle a job."""

    @abstractmethod
    def result(self, handle: Any) -> tuple[int, str] | None:
        """Exit code (`Stopped.exit_code` if the machine was lost) and message; None while the job runs."""

    @abstractmethod
    def cancel(self, handle: Any) -> None:
        """Ask the job to write a checkpoint and stop."""

    def map(self, jobs: Iterable[Job], stop: StopSignal, on_poll: Callable[[], None]) -> Iterator[JobResult]:
        """Yield the result of every job as soon as it ends; resubmit a job that was stopped from outside."""
        todo = list(jobs)
        running, restarts = dict(zip(self.submit(todo), todo, strict=True)), dict.fromkeys(todo, 0)
        try:
            while running:
                stop.check()
                for handle, job in list(running.items()):
                    if (result := self.result(handle)) is None:
                        continue
                    del running[handle]
                    if result[0] == Stopped.exit_code and restarts[job] < RESTARTS:
                        restarts[job] += 1
                        running |= {self.submit([job])[0]: job}
                    else:
                        yield JobResult(job, *result)
                on_poll()
                time.sleep(POLL_SECONDS)
        finally:
            self._shut_down(list(running))

    def _shut_down(self, handles: list[Any]) -> None:
        """Cancel the running jobs, and wait until they have written their checkpoints."""
        for handle in handles:
            self.cancel(handle)
        end = time.monotonic() + SHUTDOWN_SECONDS
        while time.monotonic() < end and any(self.result(handle) is None for handle in handles):
            time.sleep(POLL_SECONDS)


@final
class RemoteJob:
    """A job in a form that can be pickled: called on another machine, it starts a worker and waits for it."""

    def __init__(self, spec: str, out: str, threads: int) -> None:
        self.spec, self.out, self.threads = spec, out, threads
        self.worker: Worker | None = None

    def __call__(self) -> tuple[int, str]:
        """Execute the run; return its exit code and last line of output."""
        job = Job(RunSpec.model_validate_json(self.spec), Path(self.out))
        slurm = os.environ.get("SUBMITIT_EXECUTOR") == "slurm"
        before = signal.signal(signal.SIGTERM, self._exit) if slurm else None
        self.worker = Worker(job, (sys.executable, *WORKER[1:]), self.threads)
        try:
            while not self.worker.ended:
                time.sleep(POLL_SECONDS)
        finally:  # the job was cancelled: the worker writes its checkpoint
            self.worker.process.terminate()
            if slurm:
                signal.signal(signal.SIGTERM, before)
        result = self.worker.result()
        return result.exit_code, result.message

    def _exit(self, *_: object) -> None:
        """Exit without a result: SLURM itself may requeue the job; with a result it would start twice."""
        self._stop()
        sys.exit(Stopped.exit_code)

    def _stop(self) -> None:
        """Stop the worker, which writes a checkpoint."""
        if self.worker is not None:
            self.worker.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.worker.process.wait(SHUTDOWN_SECONDS)

    def checkpoint(self) -> Any:
        """Stop, and return the job to requeue; submitit calls this."""
        import submitit

        self._stop()
        return submitit.helpers.DelayedSubmission(RemoteJob(self.spec, self.out, self.threads))


@final
class Submitit(Cluster):
    """SLURM: one job array, requeued when it is preempted; `cluster=local` starts processes on this machine.

    Args:
        folder: for scripts and logs, on the shared file system.
        workers: jobs at a time.
        settings: parameters of submitit, such as `partition`, `timeout_min`, `gpus_per_node`.

    Raises:
        UsageError: submitit is not installed, there is no SLURM, or a setting is unknown.
    """

    def __init__(self, folder: Path, workers: int, settings: Mapping[str, Any]) -> None:
        submitit = _imported("submitit", "slurm")
        defaults = {"timeout_min": 24 * 60, "cpus_per_task": 1, "array_parallelism": workers}
        options = {**defaults, **settings}
        cluster = options.pop("cluster", None)
        self.threads = int(options["cpus_per_task"])
        parameters = {key if key in _SHARED else f"slurm_{key}": value for key, value in options.items()}
        try:
            self._executor = submitit.AutoExecutor(folder, cluster=cluster)
            self._executor.update_parameters(**parameters)
        except Exception as error:
            raise UsageError(f"--launcher submitit: {one_line(error)}") from error

    def submit(self, jobs: list[Job]) -> list[Any]:
        """Submit one job array."""
        with self._executor.batch():
            return [self._executor.submit(_remote_job(job, self.threads)) for job in jobs]

    def result(self, handle: Any) -> tuple[int, str] | None:
        """The result of the worker; a job that ended without one was killed with its machine."""
        if not handle.done():
            return None
        try:
            result: tuple[int, str] = handle.result()
        except Exception as error:  # raised by submitit; its text ends with the log of the job
            return Stopped.exit_code, one_line(error)[-500:]
        return result

    def cancel(self, handle: Any) -> None:
        """Have the cluster send SIGTERM."""
        handle.cancel(check=False)


@final
class Ray(Cluster):
    """A Ray cluster: one task a run.

    Args:
        workers: tasks at a time, if this starts a cluster.
        address: of the cluster; None starts one on this machine.
        settings: options of a remote function, such as `num_cpus` and `num_gpus` of a run.

    Raises:
        UsageError: ray is not installed, or the cluster cannot be reached.
    """

    def __init__(self, workers: int, address: str | None, settings: Mapping[str, Any]) -> None:
        ray = _imported("ray", "ray")
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
        """Submit one task a job."""
        task = self._ray.remote(**self._options)(lambda remote_job: remote_job())
        return [task.remote(_remote_job(job, self.threads)) for job in jobs]

    def result(self, handle: Any) -> tuple[int, str] | None:
        """The result of the worker; a task that ended without one was lost with its node."""
        try:
            ended = self._ray.wait([handle], timeout=0)[0]
            result: tuple[int, str] | None = self._ray.get(handle) if ended else None
        except self._ray.exceptions.TaskCancelledError:
            return Stopped.exit_code, "cancelled"
        except Exception as error:  # raised by Ray: the node was lost
            return Stopped.exit_code, one_line(error)[-500:]
        return result

    def cancel(self, handle: Any) -> None:
        """Interrupt the task, which waits for the worker's checkpoint."""
        self._ray.cancel(handle, force=False)


def _remote_job(job: Job, threads: int) -> RemoteJob:
    return RemoteJob(job.spec.model_dump_json(), str(job.out.absolute()), threads)


def _imported(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UsageError(f"--launcher {name} needs {name}; pip install 'optim-family[{extra}]'") from None
