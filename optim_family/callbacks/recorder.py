"""Measure in someone else's training loop, and leave a run directory that `compare` reads.

recorder = Recorder(model, optimizer, loss_fn, chunks, every=50)
for x, y in loader:
    ...                     # the script as it was, up to optimizer.step()
    recorder.step()
"""

import math
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial, wraps
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optim_family.callbacks import recorder_metadata
from optim_family.curvature.chunked_loss import ChunkLoss, chunk_losses
from optim_family.curvature.example_counts import Count, pairs_and_counts
from optim_family.curvature.hessian import Hessian, chunk_gradient
from optim_family.curvature.isolation import read_chunks
from optim_family.curvature.precision import deterministic_convolutions, full_precision
from optim_family.geometry import Geometry, UnknownMetric, equilibrium_rotation
from optim_family.optimizers.external.averaging import (
    Point,
    at_point,
    require_point,
    require_training,
    warn_about_statistics,
)
from optim_family.optimizers.external.inferred_geometry import geometry_of, unwrapped_optimizer, warn_about
from optim_family.runs.labels import facts
from optim_family.runs.layout import PROVENANCE, STATUS
from optim_family.runs.store import RunStore
from optim_family.sharpness.along_update import UpdateObserver
from optim_family.sharpness.geometry_validation import validate_geometry
from optim_family.sharpness.invariance import TOLERANCE, scale_dependence, warn_about_scale
from optim_family.sharpness.metric_rounding import geometry_with_rounding
from optim_family.sharpness.probe import ReadingMethod
from optim_family.sharpness.probe_set import ProbeSet
from optim_family.sharpness.self_check import check_once
from optim_family.sharpness.view_selection import select_views
from optim_family.sharpness.views import view_by_name
from optim_family.space import ParameterSpace, norm, replace_gradients, unflatten
from optim_family.training.record import training_record


def _ignore(line: str) -> None:
    """What a recorder without a log does with a line."""


@final
@dataclass(frozen=True)
class LossAndGeometry:
    """The loss over all chunks at the present weights, and the optimizer's geometry with its gradient.

    `geometry` is None if the loss or the gradient is not finite.
    """

    loss: float
    accuracy: float | None
    gradient_norm: float
    chunk_losses: Sequence[ChunkLoss]
    geometry: Geometry | None


@final
class Recorder(AbstractContextManager["Recorder"]):
    """Records a run while a script trains it; a context manager, or close it at the end.

    Weights, gradients, buffers and random state do not change. Remembers the step, τ = Σ ηλ, the highest
    reported loss and the state of the probes. Stops recording after a loss that is not finite.

    Args:
        model: as for `measure`; in its present mode at each record.
        optimizer: any; its geometry is that of a step with the gradient over all chunks.
        loss_fn: the mean loss of one chunk, a scalar.
        chunks: pairs (x, y), or triples (x, y, n) with n examples, kept in memory: the loss is
            Σ (n_chunk/n) · loss_fn(model(x), y).
        every: steps between two records; the first is written at once.
        out: a new folder; if None, the first free one of runs/NAME, runs/NAME-2, …, with a warning if you
            gave a name that is taken.
        views: names of the views; by default those of `measure`, for the loss at the first record.
        rtol: relative error at which a measurement stops.
        count: n of a pair (x, y), where the lengths do not say it.
        name: of the run in figures and tables, and of its folder in runs/; if None, that of the optimizer.
        seed: of the script, so that reports group runs by it, and of the noise that starts a search.
        config: settings of the script, numbers and texts by name; `load_runs` has them as `config.NAME`, and
            legends show those that differ.
        log: called with one line at the start and for each record; for example `print`.
        budget: Hessian-vector products of the generalised view, at least 2; 100 if None.
        along: measure the critical sharpness and the directional smoothness of the last step before each
            record, by forward passes; with `views=[]` nothing else, which needs no second derivatives. The
            curvature along the step is measured if there are views.
        reading: the search for λ₁, as for `measure`.
        point: where a schedule-free optimizer is measured, as for `measure`; loss and accuracy too. `along`
            stays at y, which its steps move.

    Attributes:
        steps: optimizer steps so far.

    Raises:
        UsageError: the folder holds a run.
        ValueError: an argument is invalid, the optimizer trains no weight of the model, or the metric of a
            view is unknown.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        loss_fn: Callable[[Any, Any], Tensor],
        chunks: Iterable[Any],
        *,
        every: int = 50,
        out: Path | str | None = None,
        views: Sequence[str] | None = None,
        rtol: float = 1e-3,
        count: Count | None = None,
        name: str | None = None,
        seed: int | None = None,
        config: Mapping[str, Any] | None = None,
        log: Callable[[str], object] | None = None,
        budget: int | None = None,
        along: bool = False,
        reading: ReadingMethod = "lanczos",
        point: Point | None = None,
    ) -> None:
        self._accumulation = getattr(optimizer, "gradient_state", None)  # of accelerate's wrapper
        self.optimizer = optimizer = unwrapped_optimizer(optimizer)
        self.model, self.loss_fn, self.every, self.steps = model, loss_fn, every, 0
        recorder_metadata.check(model, optimizer, every, views, rtol)
        extra = recorder_metadata.extra_fields(name, seed, config, reading)
        pairs, examples = pairs_and_counts(read_chunks(chunks), loss_fn, count)
        self.chunks = [(x, y, n) for (x, y), n in zip(pairs, examples, strict=True)]
        self.space = ParameterSpace.of_optimizer(optimizer)
        self._begin, self.tau, self.peak, self.log = time.perf_counter(), 0.0, -math.inf, log or _ignore
        path = recorder_metadata.folder(out, name, recorder_metadata.name(optimizer))
        self.log(f"{path}: first measurement, of {self.space.dim:,} weights on {len(pairs)} chunks")
        self.point = require_point(optimizer, point)
        warn_about_statistics(model, optimizer, self.point)
        first, geometry = self._first(views, along, rtol=rtol, seed=seed or 0, budget=budget, reading=reading)
        warn_about(optimizer, geometry)
        self.observer = UpdateObserver(optimizer, self.space) if along else None
        names = self.probes.names
        spec = recorder_metadata.spec(model, optimizer, loss_fn, every=every, views=names, rtol=rtol) | extra
        self._begin_run(path, spec | ({"point": self.point} if self.point else {}), examples, first)

    def _first(
        self, views: Sequence[str] | None, along: bool, **options: Any
    ) -> tuple[dict[str, Any], Geometry | None]:
        """Choose the views and measure them, before anything is written: an invalid view leaves no folder."""
        geometry = self._geometry_at_y()
        with at_point(self.optimizer, self.point):
            here = self._loss_and_geometry(geometry)
            if here.geometry:
                validate_geometry(here.geometry, self.space.weights())
            chosen = self._views(here, views, along)
            self.probes = ProbeSet(chosen, **options)
            return self._measure(here), here.geometry

    def _begin_run(
        self, path: Path, spec: dict[str, Any], examples: Sequence[float], first: dict[str, Any]
    ) -> None:
        """Write specification, provenance and the first record."""
        self.store = RunStore.open(path, spec)
        weakref.finalize(self, self.store.close)
        self._mode_check = self.optimizer.register_step_pre_hook(require_training)
        self.store.write(PROVENANCE, recorder_metadata.provenance(self.optimizer, self.space, examples))
        self._write(first)
        self._arm()

    def _arm(self) -> None:
        """Remember the next step if a record follows it."""
        if self.observer:
            self.observer.expect((self.steps + 1) % self.every == 0)

    def step(
        self,
        *,
        loss: float | None = None,
        test_accuracy: float | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Call after each `optimizer.step()`; steps that accelerate skips do not count.

        Args:
            loss: of this step; a record holds the highest since the last record.
            test_accuracy: a fraction, for the record of this step, if there is one.
            metrics: further numbers by name, for the record of this step, if there is one.

        Raises:
            ValueError: test_accuracy is not a fraction, or a metric is no number or has the name of a field.
        """
        accuracy = None if test_accuracy is None else float(test_accuracy)
        if accuracy is not None and not 0 <= accuracy <= 1:
            raise ValueError(f"test_accuracy must be a fraction between 0 and 1; got {accuracy:g}.")
        own = recorder_metadata.own_metrics(metrics or {})
        self.peak = max(self.peak, -math.inf if loss is None else loss)
        if self._accumulation is not None and not self._accumulation.sync_gradients:
            return
        self.tau += recorder_metadata.rate(self.optimizer) * recorder_metadata.decay(self.optimizer)
        self.steps += 1
        if self.steps % self.every == 0 and self.status == "running":
            geometry = self._geometry_at_y()
            with at_point(self.optimizer, self.point):
                here = self._loss_and_geometry(geometry)
                record = self._measure(here)
            record |= {"test_accuracy": accuracy} | own
            self._write(record | (self._along(here) if math.isfinite(record["train_loss"]) else {}))
        self._arm()

    def _along(self, here: LossAndGeometry) -> dict[str, Any]:
        """The measurement along the last step, as a field of a record."""
        if self.observer is None:
            return {}
        with torch.inference_mode(False), full_precision(), deterministic_convolutions():
            losses = chunk_losses(self.model, self.loss_fn, self.chunks)
            update = self.observer.measure(losses, curvature=bool(self.probes.names))
        if update is None:
            return {}
        rate = recorder_metadata.rate(self.optimizer)
        angle = equilibrium_rotation(here.geometry, rate) if here.geometry else None
        if angle is not None and not self._is_invariant(here):
            angle = None
        return {"along": replace(update, equilibrium_rotation=angle).as_record()}

    def _is_invariant(self, here: LossAndGeometry) -> bool:
        """Whether the loss is scale-invariant, by the gradients of its first chunk."""
        with torch.inference_mode(False), torch.enable_grad(), full_precision(), deterministic_convolutions():
            return scale_dependence(here.chunk_losses[0], self.space.tensors) < TOLERANCE

    @property
    def count(self) -> int:
        """The former name of `steps`."""
        return self.steps

    def close(self, status: str = "done") -> None:
        """End the run; closing twice is harmless."""
        if self.status == "running":
            self._write_status(status)
        if self.observer:
            self.observer.close()
        self._mode_check.remove()
        self.store.close()

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.close("failed" if kind else "done")

    def _views(self, point: LossAndGeometry, views: Sequence[str] | None, along: bool) -> Sequence[str]:
        """The requested views, or the default ones that apply; warns of spherical ones that do not."""
        if views is not None and not views and along:
            return views
        with torch.inference_mode(False), torch.enable_grad(), full_precision(), deterministic_convolutions():
            scale = scale_dependence(point.chunk_losses[0], self.space.tensors)
        if views:
            known = [view_by_name(name).name for name in views]
            warn_about_scale(known, scale)
            return known
        unknown = Geometry(UnknownMetric(self.space.dim, "no gradient"), math.inf, None)
        geometry, invariant = point.geometry or unknown, scale < TOLERANCE
        return select_views(None, geometry.metric, norm=geometry.norm, invariant=invariant).views

    def _write(self, record: dict[str, Any]) -> None:
        self.store.append(record)
        self.peak = -math.inf
        finite = record["views"] or (not self.probes.names and math.isfinite(record["train_loss"]))
        self._write_status("running" if finite else "diverged")
        self.log(f"step {record['step']}  {facts(record)}")

    def _measure(self, point: LossAndGeometry) -> dict[str, Any]:
        """A record of the present step, with the fields of `run`."""
        weights, readings = self.space.weights(), {}
        if point.geometry and self.probes.names:
            with (
                torch.inference_mode(False),
                torch.enable_grad(),
                full_precision(),
                deterministic_convolutions(),
            ):
                verdict = check_once(point.chunk_losses, self.space.tensors)
                hessian = Hessian(point.chunk_losses, self.space.tensors)
                readings = self.probes(hessian, weights, point.geometry)
            readings = {name: replace(r, check=verdict) for name, r in readings.items()}
        return training_record(
            step=self.steps,
            tau=self.tau,
            train_loss=point.loss,
            peak_loss=max(self.peak, point.loss),
            train_accuracy=point.accuracy,
            test_accuracy=None,
            weight_norm=float(norm(weights)),
            gradient_norm=point.gradient_norm,
            lr=recorder_metadata.rate(self.optimizer),
            weight_decay=recorder_metadata.decay(self.optimizer),
            views={name: reading.as_record() for name, reading in readings.items()},
            point=self.point,
            elapsed=time.perf_counter() - self._begin,
        )

    def _geometry_at_y(self) -> Geometry | None:
        """The geometry of a schedule-free optimizer, which computes gradients at y; None of any other."""
        with at_point(self.optimizer, "y"):
            return self._loss_and_geometry().geometry if self.point else None

    def _loss_and_geometry(self, geometry: Geometry | None = None) -> LossAndGeometry:
        """The loss and the geometry, with the gradient over all chunks instead of the script's."""
        correct: list[Tensor] = []

        @wraps(self.loss_fn, updated=())  # errors name the loss of the script
        def loss_and_accuracy(outputs: Any, y: Any) -> Tensor:
            logits = getattr(outputs, "logits", outputs)  # models of transformers return a ModelOutput
            labelled = isinstance(y, Tensor) and y.ndim == 1 and not y.is_floating_point()
            if labelled and isinstance(logits, Tensor) and logits.ndim == 2:
                correct.append(logits.detach().argmax(1) == y)
            return self.loss_fn(outputs, y)

        params, loss = self.space.tensors, 0.0
        with torch.inference_mode(False), torch.enable_grad(), full_precision(), deterministic_convolutions():
            total = torch.zeros_like(self.space.weights())
            for chunk_loss in chunk_losses(self.model, loss_and_accuracy, self.chunks):
                chunks_before = len(correct)
                value, gradient = chunk_gradient(chunk_loss, params)
                del correct[chunks_before:-1]  # a loss that draws random numbers may be evaluated twice
                loss, total = loss + float(value), total + gradient
        accuracy = float(torch.cat(correct).double().mean()) if correct else None
        losses = chunk_losses(self.model, self.loss_fn, self.chunks)
        with replace_gradients(params, unflatten(total, params)):
            size = float(norm(self.space.gradient()))
            finite = math.isfinite(loss) and math.isfinite(size)
            compute = partial(geometry_of, self.optimizer)
            geometry = (geometry or geometry_with_rounding(compute, params)) if finite else None
            return LossAndGeometry(loss, accuracy, size, losses, geometry)

    def _write_status(self, status: str) -> None:
        self.status, seconds = status, time.perf_counter() - self._begin
        self.store.write(STATUS, {"status": status, "step": self.steps, "seconds": seconds})
