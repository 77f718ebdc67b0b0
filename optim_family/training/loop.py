"""One run: train, measure, record, and save checkpoints, from which it is resumed bitwise identical."""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal, final

import torch

from optim_family.curvature import memory
from optim_family.curvature.precision import deterministic, full_precision
from optim_family.errors import OptimFamilyError, Stopped
from optim_family.optimizers.base import OptimizerBase
from optim_family.runs.layout import STATUS
from optim_family.runs.store import RunStore, require_possible
from optim_family.training.experiment import Experiment, build_experiment
from optim_family.training.loss_log import LossLog, NotFinite
from optim_family.training.measurements import Measurements
from optim_family.training.process_group import ProcessGroup, SingleProcess
from optim_family.training.progress import ProgressListener
from optim_family.training.record import training_record
from optim_family.training.resume import Checkpoints, memory_format_of, write_provenance
from optim_family.training.spec import MemoryFormat, RunSpec
from optim_family.training.stop_signal import StopSignal

Status = Literal["done", "diverged"]

CHECKPOINT_SECONDS = 60.0  # between two checkpoints: the most that a crash costs; no result depends on it


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
    cuda_graphs: bool = False,
) -> Status:
    """Execute a run from its start or from its last checkpoint; returns its final status.

    Args:
        spec: the run.
        out: the run directory; created if it does not exist.
        resume: continue from the last checkpoint, if there is one.
        listener: receives the events of the run.
        stop: checked before every step and every Hessian-vector product.
        process_group: the processes that share the run; each calls this, and the main process writes.
        memory_format: layout of the images; if None, that of the earlier part of the run, else the fastest.
        make_optimizer: makes the optimizer from tensors, if the caller has validated `spec.hyper` already.
        cuda_graphs: replay the gradients of steps on a GPU, where that changes no bit.

    Raises:
        UsageError: the specification is invalid, or `out` holds another run, or part of this one and
            `resume` is not set.
        BusyError: another process writes to `out`.
        CorruptError: the directory or the data is damaged.
        OptimFamilyError: out of memory.
        PluginError: the optimizer raised an exception.
        Stopped: a stop request; a checkpoint has been saved.
    """
    stop, group = stop or StopSignal(), process_group or SingleProcess()
    listener = listener or ProgressListener()
    if group.is_main_process:
        require_possible(out)
    with memory.explain_oom(), full_precision(), deterministic():
        earlier = group.broadcast(memory_format_of(out) if group.is_main_process else None)
        experiment = build_experiment(spec, group, memory_format or earlier, make_optimizer, cuda_graphs)
        spec_json = spec.model_dump(mode="json")
        with RunStore.open(out, spec_json) if group.is_main_process else nullcontext() as store:
            trainer = Trainer(experiment, out, store, listener, stop)
            trainer.checkpoints.load(resume)
            try:
                return trainer.run()
            finally:
                listener.on_end()


@final
class Trainer:
    """A run in progress: its experiment, its state, and the time of its last checkpoint.

    Only the main process has a store.
    """

    def __init__(
        self,
        experiment: Experiment,
        out: Path,
        store: RunStore | None,
        listener: ProgressListener,
        stop: StopSignal,
    ) -> None:
        self.experiment, self.store, self.listener = experiment, store, listener
        self.spec, self.objective = experiment.spec, experiment.objective
        self.process_group, self.same_sums = experiment.objective.process_group, True
        self.check = partial(self.process_group.check, stop)
        self.measurements = Measurements(experiment, self._before_product, listener.on_message)
        self.checkpoints = Checkpoints(experiment, self.measurements, out, listener.on_message)
        self.state = self.checkpoints.state
        self.losses, self._loss = LossLog(self.objective.device), math.nan  # the last loss that was read
        self._begin = self._saved = time.perf_counter()

    def run(self) -> Status:
        """Train to the last step, or until the loss or the gradient is not finite."""
        self.listener.on_start(self.spec.steps, self.state.step)
        for notice in filter(None, (self.objective.data.notice, self.spec.notice)):
            self.listener.on_message(notice)
        if self.experiment.point:
            self.listener.on_message(f"measured at {self.experiment.point}, evaluated at x, the average")
        if skipped := self.experiment.skipped_views:
            self.listener.on_message(
                f"{' and '.join(skipped)} sharpness: not applicable, the loss is "
                f"{self.experiment.verdict.summary}; measuring {', '.join(self.experiment.views)}"
            )
        if names := ", ".join(self.experiment.not_deterministic):
            self.listener.on_message(
                f"not deterministic on this GPU: {names}; a repeated or resumed run agrees up to rounding"
            )
        self.same_sums = write_provenance(self.experiment, self.store, self.state, self.listener.on_message)
        self._write_status("running")
        try:
            self._train()
        except FloatingPointError as error:
            return self._diverge(error)
        except Stopped:
            self._write_status("stopped")
            raise
        except Exception:
            with suppress(OptimFamilyError):  # the first failure is the one to report
                self._write_status("failed")
            raise
        self._write_status("done")
        return "done"

    def _train(self) -> None:
        """All steps, with a checkpoint from time to time, at a stop request and at the end."""
        try:
            while self.step():
                if time.perf_counter() - self._saved > CHECKPOINT_SECONDS:
                    self.save()
        except FloatingPointError:
            raise
        except Exception as error:
            self._read_losses()  # an unread loss that is not finite explains every later error
            if isinstance(error, Stopped):
                self.save()
            raise
        self.save()

    def step(self) -> bool:
        """Write a record if one is due, then take one step; returns False after the last record."""
        self.check()
        if self.experiment.scheduler:  # the last record keeps the rate of the last step
            self.experiment.scheduler(min(self.state.step, self.spec.steps - 1))
        last = self.state.step == self.spec.steps
        due = self.state.recorded < self.state.step and (last or self.state.step % self.spec.every == 0)
        loss = self.objective.gradient(self.state.step, compare=due)
        self.losses.append(self.state.step, self.state.tau, loss)
        if due or self.losses.is_full:
            self._read_losses()
        if due:
            self._record()
        else:
            self.measurements.observe_step(self.state.step)
        if not last:
            values = self.experiment.optimizer.values
            self.state.tau += values["lr"] * values["weight_decay"]
            self.experiment.optimizer_step(self.state.step, loss)
            self.state.step += 1
            self.listener.on_step(self.state.step, self._loss)
        return not last

    def _read_losses(self) -> None:
        """Read the losses since the last time from the device.

        Raises:
            NotFinite: one of them is not finite.
        """
        for _, loss in self.losses.read():
            self._loss, self.state.peak = loss, max(self.state.peak, loss)

    def _before_product(self) -> None:
        self.check()
        self.listener.on_product()

    def _record(self) -> None:
        space, values = self.objective.space, self.experiment.optimizer.values
        gradient_norm = float(torch.linalg.vector_norm(space.gradient()))
        if not math.isfinite(gradient_norm):
            raise FloatingPointError("the gradient is not finite")
        geometry = self.experiment.geometry()
        with self.experiment.measured_point(self.state.step):
            gradient_norm = float(torch.linalg.vector_norm(space.gradient()))
            readings, weights = self.measurements(self.state.step, geometry), space.weights()
        self.process_group.require_equal("weights", int(weights.view(torch.uint8).sum(dtype=torch.int64)))
        with self.experiment.evaluated_point():
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
                hvp=self.objective.kept_graphs,
                point=self.experiment.point,
                along=self.measurements.along(self.state.step, geometry),
                views=readings,
                elapsed=self.elapsed,
            )
        )
        self.state.recorded, self.state.peak = self.state.step, -math.inf

    def _write(self, record: dict[str, Any]) -> None:
        if self.store:
            self.store.append(record, must_match=self.same_sums)
        self.listener.on_record(record)

    def _diverge(self, error: FloatingPointError) -> Status:
        """Write a last record without a loss, of the step whose loss is not finite."""
        state = self.state
        if isinstance(error, NotFinite):
            state.step, state.tau = error.step, error.tau
        self._write(
            {"step": state.step, "tau": state.tau, "train_loss": None, "views": {}, "elapsed": self.elapsed}
        )
        self._write_status("diverged")
        return "diverged"

    @property
    def elapsed(self) -> float:
        """Seconds of the run, including those before an interruption."""
        return self.state.elapsed + time.perf_counter() - self._begin

    def _write_status(self, status: str) -> None:
        if self.store:
            step, steps = self.state.step, self.spec.steps
            self.store.write(
                STATUS, {"status": status, "step": step, "steps": steps, "seconds": self.elapsed}
            )

    def save(self) -> None:
        """Save a checkpoint of the state before the present step, unless an earlier loss is not finite."""
        self._read_losses()
        self._write_status("running")  # the records reach the disk before a checkpoint that relies on them
        self.checkpoints.save(self.elapsed)
        self._saved = time.perf_counter()
