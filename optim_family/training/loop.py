"""One run: train, measure, record, and stand ready to be interrupted and continued to the last bit."""

import math
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, final

import torch

from optim_family.curvature import memory
from optim_family.curvature.precision import full_precision, repeatable
from optim_family.errors import OptimFamilyError, Stopped, UsageError
from optim_family.registry import plugin_errors
from optim_family.runs.atomic_files import diff_specs
from optim_family.runs.run import read_run
from optim_family.runs.store import NullStore, RunStore, Store
from optim_family.training import checkpoint
from optim_family.training.experiment import Experiment, assemble
from optim_family.training.measurements import Instruments
from optim_family.training.process_group import Alone, World
from optim_family.training.progress import Watcher
from optim_family.training.spec import MemoryFormat, RunSpec
from optim_family.training.stop_signal import Stop

Status = Literal["done", "diverged"]

# Seconds between two checkpoints: what a crash costs at most, and no result depends on it.
CHECKPOINT_SECONDS = 60.0


@final
@dataclass(frozen=True)
class Outcome:
    """How a run ended, and where it lies."""

    status: Status
    path: Path


def train(
    spec: RunSpec,
    out: Path,
    *,
    resume: bool = False,
    watcher: Watcher | None = None,
    stop: Stop | None = None,
    world: World | None = None,
    memory_format: MemoryFormat | None = None,
) -> Outcome:
    """Carry out a run, or what is left of it.

    Args:
        spec: what to do.
        out: the run directory; made if it does not exist.
        resume: continue from the last checkpoint, where there is one.
        watcher: told what happens.
        stop: asked before every step and every Hessian product.
        world: the processes that share the run, all of which call this; the first of them writes.
        memory_format: how images lie in memory; if None, as when the run began, or as is fastest here.

    Raises:
        UsageError: the specification cannot be carried out, or `out` holds another run, or part of this
            one and `resume` is not set.
        BusyError: another process is at it.
        CorruptError: the directory or the data is damaged.
        OptimFamilyError: the memory does not suffice.
        PluginError: the optimizer failed.
        Stopped: `stop` said so; a checkpoint is left.
    """
    watcher, stop, world = watcher or Watcher(), stop or Stop(), world or Alone()
    with memory.explained(), full_precision(), repeatable():
        chosen = memory_format or world.told(_memory_format_of(out) if world.leads else None)
        experiment = assemble(spec, world, chosen)
        plain = spec.model_dump(mode="json")
        with RunStore.open(out, plain) if world.leads else NullStore(out) as store:
            training = Training(experiment, store, watcher, stop)
            training.restore(resume)
            try:
                return Outcome(training.go(), out)
            finally:
                watcher.end()


def _memory_format_of(out: Path) -> MemoryFormat | None:
    """The layout in which the run in `out` began, if there is one; contiguous, before there was a choice."""
    if not (out / "provenance.json").exists():
        return None
    begun: MemoryFormat = read_run(out).provenance.get("memory_format", "contiguous")
    return begun


@final
class Training:
    """A run under way: remembers the step, the last record, τ, the highest loss since it and the time."""

    def __init__(self, experiment: Experiment, store: Store, watcher: Watcher, stop: Stop) -> None:
        self.experiment, self.store, self.watcher = experiment, store, watcher
        self.spec, self.objective = experiment.spec, experiment.objective
        self.world, self.exact = experiment.objective.world, True
        self.check = partial(self.world.check, stop)
        self.instruments = Instruments(experiment, self.check, watcher.note)
        self.step, self.recorded, self.tau, self.peak = 0, -1, 0.0, -math.inf
        self._earlier, self._begin, self._saved = 0.0, time.perf_counter(), time.perf_counter()

    def go(self) -> Status:
        """Train to the end, or to the first number that is not finite."""
        self.watcher.begin(self.spec.steps, self.step)
        self._say_what_is_absent()
        self._attest()
        self._mark("running")
        try:
            while self.advance():
                if time.perf_counter() - self._saved > CHECKPOINT_SECONDS:
                    self.save()
        except FloatingPointError:
            return self._diverge()
        except Stopped:
            self.save()
            self._mark("stopped")
            raise
        except Exception:
            with suppress(OptimFamilyError):  # the first failure is the one to report
                self._mark("failed")
            raise
        self.save()
        self._mark("done")
        return "done"

    def advance(self) -> bool:
        """One step, with a record before it where one is due; False when the last record is made."""
        self.check()
        self.experiment.schedule(self.step)
        loss = float(self.objective.gradient(self.step))
        if not math.isfinite(loss):
            raise FloatingPointError("the training loss is not finite")
        self.peak = max(self.peak, loss)
        last = self.step == self.spec.steps
        if self.recorded < self.step and (last or self.step % self.spec.every == 0):
            self._record()
        else:
            self.instruments.pass_by(self.step)
        if not last:
            values = self.experiment.optimizer.values
            self.tau += values["lr"] * values["weight_decay"]
            self.experiment.move()
            self.step += 1
            self.watcher.step(self.step, loss)
        return not last

    def _record(self) -> None:
        space, values = self.objective.space, self.experiment.optimizer.values
        gradient_norm = float(torch.linalg.vector_norm(space.gradient()))
        if not math.isfinite(gradient_norm):
            raise FloatingPointError("the gradient is not finite")
        readings = self.instruments(self.step)
        weights = space.weights()
        self.world.same("weights", int(weights.view(torch.uint8).sum(dtype=torch.int64)))
        norm = float(torch.linalg.vector_norm(weights))
        shrink = values["lr"] * values["weight_decay"]
        evaluation = self.objective.evaluate()
        self._write(
            train_loss=evaluation.train_loss,
            peak_loss=self.peak,
            train_accuracy=evaluation.train_accuracy,
            test_accuracy=evaluation.test_accuracy,
            test_loss=evaluation.test_loss,
            **evaluation.further,
            weight_norm=norm,
            gradient_norm=gradient_norm,
            effective_lr=values["lr"] / ((1 - shrink) * norm**2),
            lr=values["lr"],
            hvp=self.objective.mode,
            views=readings,
        )
        self.recorded, self.peak = self.step, -math.inf

    def _write(self, **fields: Any) -> None:
        record = {"step": self.step, "tau": self.tau, **fields, "elapsed": self.elapsed}
        self.store.append(record, must_match=self.exact)
        self.watcher.record(record)

    def _diverge(self) -> Status:
        """The last record says where it ended; nothing in it is finite."""
        self._write(train_loss=None, views={})
        self._mark("diverged")
        return "diverged"

    def _attest(self) -> None:
        """Write what the numbers depend on; say what has changed since an earlier part of the run."""
        if not self.world.leads:
            return
        now, before = self.experiment.provenance(), read_run(self.store.path).provenance
        self.exact = before.get("processes", self.world.size) == self.world.size  # sums in another order
        changes = diff_specs(now, before) if self.step and before else []
        if changes:
            self.watcher.note(
                f"resumed under other conditions ({'; '.join(changes)}); the last bits may differ from now on"
            )
        self.store.write("provenance.json", now)

    def _say_what_is_absent(self) -> None:
        if self.experiment.absent:
            measured = ", ".join(self.experiment.views)
            self.watcher.note(
                f"{' and '.join(self.experiment.absent)} sharpness: not applicable, the loss is "
                f"{self.experiment.verdict.summary}; measuring {measured}"
            )

    @property
    def elapsed(self) -> float:
        """Seconds of the run, those before an interruption included."""
        return self._earlier + time.perf_counter() - self._begin

    def _mark(self, status: str) -> None:
        self.store.write(
            "status.json",
            {"status": status, "step": self.step, "steps": self.spec.steps, "seconds": self.elapsed},
        )

    def save(self) -> None:
        """Leave a checkpoint of the state before the present step."""
        tree = {
            "model": self.objective.model.state_dict(),
            "optimizer": self.experiment.memory(),
            "instruments": self.instruments.state_dict(),
            "recorded": self.recorded,
            "tau": self.tau,
            "peak": self.peak,
            "elapsed": self.elapsed,
            "spec": self.spec.key,
            "data": self.objective.data.sha256,
        }
        self._mark("running")  # the records reach the disk before a checkpoint that counts on them
        if self.world.leads:
            # nothing else in the tree can fail
            with plugin_errors(self.spec.optimizer, "returned a state_dict() that cannot be saved"):
                checkpoint.save(self.store.checkpoints, self.step, tree)
        self._saved = time.perf_counter()

    def restore(self, resume: bool) -> None:
        """Go to the last checkpoint of the directory, if there is one.

        Raises:
            UsageError: there is one, and `resume` is not set; or the data has changed since.
        """
        self.world.same("specification or data", [self.spec.key, self.objective.data.sha256])
        latest = partial(checkpoint.load_latest, self.store.checkpoints, self.watcher.note, self.spec.key)
        found = self.world.told(latest() if self.world.leads else None)
        if found is None:
            return
        self.step, tree = found
        if not resume:
            raise UsageError(
                f"{self.store.path} holds this run up to step {self.step} of {self.spec.steps}; add --resume "
                "to continue it"
            )
        if tree["data"] != self.objective.data.sha256:
            raise UsageError(f"{self.store.path} was begun with other data; use another --out")
        self.objective.model.load_state_dict(tree["model"])
        with plugin_errors(self.spec.optimizer, "failed in load_state_dict()"):
            self.experiment.optimizer.load_state_dict(tree["optimizer"])
        self.instruments.load_state_dict(tree["instruments"])
        self.recorded, self.tau = tree["recorded"], tree["tau"]
        self.peak, self._earlier = tree["peak"], tree["elapsed"]
