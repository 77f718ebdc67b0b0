"""One run: train, measure, record, and be ready to be interrupted and resumed, bitwise identical."""

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, final

import torch

from optim_family.curvature import memory
from optim_family.curvature.precision import deterministic, full_precision
from optim_family.errors import OptimFamilyError, Stopped
from optim_family.optimizers.base import OptimizerBase
from optim_family.runs.layout import STATUS
from optim_family.runs.store import NullStore, RunStore, Store
from optim_family.training.experiment import Experiment, build_experiment
from optim_family.training.measurements import Measurements
from optim_family.training.process_group import ProcessGroup, SingleProcess
from optim_family.training.progress import ProgressListener
from optim_family.training.record import training_record
from optim_family.training.resume import Checkpoints, memory_format_of, write_provenance
from optim_family.training.spec import MemoryFormat, RunSpec
from optim_family.training.stop_signal import StopSignal

Status = Literal["done", "diverged"]

# Seconds between two checkpoints: a crash costs at most as much, and no result depends on it.
CHECKPOINT_SECONDS = 60.0


@final
@dataclass(frozen=True)
class Outcome:
    """How a run ended, and its directory."""

    status: Status
    path: Path


def train(
    spec: RunSpec,
    out: Path,
    *,
    resume: bool = False,
    listener: ProgressListener | None = None,
    stop: StopSignal | None = None,
    process_group: ProcessGroup | None = None,
    memory_format: MemoryFormat | None = None,
    make_optimizer: Callable[..., OptimizerBase] | None = None,
) -> Outcome:
    """Execute a run, or what is left of it.

    Args:
        spec: the run.
        out: the run directory; made if it does not exist.
        resume: continue from the last checkpoint, where there is one.
        listener: reports progress.
        stop: checked before every step and every Hessian product.
        process_group: the processes that share the run, all of which call this; the first of them writes.
        memory_format: layout of the images in memory; if None, the one the run began with, else the fastest
            on this device.
        make_optimizer: makes the optimizer from tensors, if the caller has validated `spec.hyper` already.

    Raises:
        UsageError: the specification is invalid, or `out` holds another run, or part of this one and
            `resume` is not set.
        BusyError: another process writes to `out`.
        CorruptError: the directory or the data is damaged.
        OptimFamilyError: out of memory.
        PluginError: the optimizer failed.
        Stopped: `stop` requested it; a checkpoint is left.
    """
    stop, group = stop or StopSignal(), process_group or SingleProcess()
    listener = listener or ProgressListener()
    with memory.explain_oom(), full_precision(), deterministic():
        begun_with = group.broadcast(memory_format_of(out) if group.is_main_process else None)
        experiment = build_experiment(spec, group, memory_format or begun_with, make_optimizer)
        plain = spec.model_dump(mode="json")
        with RunStore.open(out, plain) if group.is_main_process else NullStore(out) as store:
            trainer = Trainer(experiment, store, listener, stop)
            trainer.restore(resume)
            try:
                return Outcome(trainer.run(), out)
            finally:
                listener.on_end()


@final
class Trainer:
    """A run in progress: holds its state, the time of its last checkpoint, and the experiment."""

    def __init__(
        self, experiment: Experiment, store: Store, listener: ProgressListener, stop: StopSignal
    ) -> None:
        self.experiment, self.store, self.listener = experiment, store, listener
        self.spec, self.objective = experiment.spec, experiment.objective
        self.process_group, self.same_sums = experiment.objective.process_group, True
        self.check = partial(self.process_group.check, stop)
        self.measurements = Measurements(experiment, self.check, listener.on_message)
        self.checkpoints = Checkpoints(experiment, self.measurements, store, listener.on_message)
        self.state = self.checkpoints.state
        self._begin = self._saved = time.perf_counter()

    def run(self) -> Status:
        """Train to the end, or to the first number that is not finite."""
        self.listener.on_start(self.spec.steps, self.state.step)
        self._report_skipped_views()
        self.same_sums = write_provenance(self.experiment, self.store, self.state, self.listener.on_message)
        self._write_status("running")
        try:
            while self.step():
                if time.perf_counter() - self._saved > CHECKPOINT_SECONDS:
                    self.save()
        except FloatingPointError:
            return self._diverge()
        except Stopped:
            self.save()
            self._write_status("stopped")
            raise
        except Exception:
            with suppress(OptimFamilyError):  # the first failure is the one to report
                self._write_status("failed")
            raise
        self.save()
        self._write_status("done")
        return "done"

    def step(self) -> bool:
        """One step, with a record before it where one is due; False when the last record is made."""
        self.check()
        self.experiment.set_lr(self.state.step)
        loss = float(self.objective.gradient(self.state.step))
        if not math.isfinite(loss):
            raise FloatingPointError("the training loss is not finite")
        self.state.peak = max(self.state.peak, loss)
        last = self.state.step == self.spec.steps
        if self.state.recorded < self.state.step and (last or self.state.step % self.spec.every == 0):
            self._record()
        else:
            self.measurements.observe_step(self.state.step)
        if not last:
            values = self.experiment.optimizer.values
            self.state.tau += values["lr"] * values["weight_decay"]
            self.experiment.optimizer_step()
            self.state.step += 1
            self.listener.on_step(self.state.step, loss)
        return not last

    def _record(self) -> None:
        space, values = self.objective.space, self.experiment.optimizer.values
        gradient_norm = float(torch.linalg.vector_norm(space.gradient()))
        if not math.isfinite(gradient_norm):
            raise FloatingPointError("the gradient is not finite")
        readings = self.measurements(self.state.step)
        weights = space.weights()
        self.process_group.require_equal("weights", int(weights.view(torch.uint8).sum(dtype=torch.int64)))
        evaluation = self.objective.evaluate()
        self._write(
            training_record(
                step=self.state.step,
                tau=self.state.tau,
                train_loss=evaluation.train_loss,
                peak_loss=self.state.peak,
                train_accuracy=evaluation.train_accuracy,
                test_accuracy=evaluation.test_accuracy,
                test_sets={"test_loss": evaluation.test_loss, **evaluation.further},
                weight_norm=float(torch.linalg.vector_norm(weights)),
                gradient_norm=gradient_norm,
                lr=values["lr"],
                weight_decay=values["weight_decay"],
                hvp=self.objective.mode,
                views=readings,
                elapsed=self.elapsed,
            )
        )
        self.state.recorded, self.state.peak = self.state.step, -math.inf

    def _write(self, record: dict[str, Any]) -> None:
        self.store.append(record, must_match=self.same_sums)
        self.listener.on_record(record)

    def _diverge(self) -> Status:
        """The last record says where it ended; nothing in it is finite."""
        state = self.state
        self._write(
            {"step": state.step, "tau": state.tau, "train_loss": None, "views": {}, "elapsed": self.elapsed}
        )
        self._write_status("diverged")
        return "diverged"

    def _report_skipped_views(self) -> None:
        if self.experiment.skipped_views:
            measured = ", ".join(self.experiment.views)
            self.listener.on_message(
                f"{' and '.join(self.experiment.skipped_views)} sharpness: not applicable, the loss is "
                f"{self.experiment.verdict.summary}; measuring {measured}"
            )

    @property
    def elapsed(self) -> float:
        """Seconds of the run, including those before an interruption."""
        return self.state.elapsed + time.perf_counter() - self._begin

    def _write_status(self, status: str) -> None:
        self.store.write(
            STATUS,
            {"status": status, "step": self.state.step, "steps": self.spec.steps, "seconds": self.elapsed},
        )

    def save(self) -> None:
        """Leave a checkpoint of the state before the present step."""
        self._write_status("running")  # the records reach the disk before a checkpoint that counts on them
        self.checkpoints.save(self.elapsed)
        self._saved = time.perf_counter()

    def restore(self, resume: bool) -> None:
        """Load the last checkpoint of the directory, if there is one.

        Raises:
            UsageError: there is one, and `resume` is not set; or the data has changed since.
        """
        self.state = self.checkpoints.load(resume)
