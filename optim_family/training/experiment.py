"""Builds a run from its specification, and raises every mistake before the run begins."""

import os
import platform
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from optim_family import registry
from optim_family.curvature.precision import find_nondeterministic
from optim_family.data import datasets
from optim_family.errors import UsageError
from optim_family.geometry import Geometry
from optim_family.networks import build, scale_invariance
from optim_family.optimizers.base import OptimizerBase
from optim_family.optimizers.external.averaging import (
    Point,
    at_point,
    require_point,
    require_training,
    start_training,
)
from optim_family.optimizers.external.inferred_geometry import geometry_of
from optim_family.registry import plugin_errors
from optim_family.sharpness.geometry_validation import validate_geometry
from optim_family.sharpness.metric_rounding import geometry_with_rounding
from optim_family.sharpness.view_selection import select_views
from optim_family.space import ParameterSpace
from optim_family.training.lr_scheduler import Scheduler
from optim_family.training.objective import Objective
from optim_family.training.process_group import ProcessGroup
from optim_family.training.record import make_provenance
from optim_family.training.spec import MemoryFormat, RunSpec

LIBRARIES = ("optim-family", "torch", "torchvision", "timm", "numpy", "scipy")


@final
@dataclass(frozen=True)
class Experiment:
    """The objective, the optimizer, and the views to measure.

    Attributes:
        views: measured at every record.
        skipped_views: spherical views that do not apply, because the loss is not scale-invariant.
        scheduler: sets the learning rate; None for a constant one.
        point: where the weights are measured, if the optimizer averages them; None if it does not.
        not_deterministic: operations of the gradient that have no deterministic kernel on this device.
    """

    spec: RunSpec
    objective: Objective
    optimizer: OptimizerBase
    verdict: scale_invariance.ScaleInvariance
    views: tuple[str, ...]
    skipped_views: tuple[str, ...]
    scheduler: Scheduler | None = None
    not_deterministic: tuple[str, ...] = ()
    point: Point | None = None

    @contextmanager
    def measured_point(self, step: int) -> Iterator[None]:
        """Inside, the weights are where they are measured, with the gradient of this step there."""
        tensors = self.objective.space.tensors
        gradients = [tensor.grad for tensor in tensors]
        with at_point(self.optimizer, self.point) as moved:
            if moved:
                self.objective.gradient(step)
            yield
        for tensor, gradient in zip(tensors, gradients, strict=True):
            tensor.grad = gradient

    def evaluated_point(self) -> AbstractContextManager[bool]:
        """Inside, the weights are where they are evaluated: at the average, if the optimizer has one."""
        return at_point(self.optimizer, self.point and "x")

    def geometry(self) -> Geometry:
        """The geometry of the optimizer's next step; an exception in it becomes a PluginError."""
        with plugin_errors(self.spec.optimizer, "failed in geometry()"):
            return geometry_with_rounding(self.optimizer.geometry, self.objective.space.tensors)

    def optimizer_step(self, step: int, loss: Tensor) -> None:
        """One optimizer step; an exception in it becomes a PluginError.

        Args:
            step: its number, which chooses the mini-batch of a closure.
            loss: at the present weights, whose gradient is in `.grad`.
        """
        closure = self._closure(step, loss) if self.optimizer.needs_closure else None
        with plugin_errors(self.spec.optimizer, "failed in step()"):
            self.optimizer.step(closure) if closure else self.optimizer.step()

    def _closure(self, step: int, loss: Tensor) -> Callable[[], Tensor]:
        """The loss and the gradient of this step's examples, again where the weights have moved."""
        space = self.objective.space
        known, gradients = space.weights(), [tensor.grad for tensor in space.tensors]

        def closure() -> Tensor:
            same = all(tensor.grad is g for tensor, g in zip(space.tensors, gradients, strict=True))
            if same and torch.equal(space.weights(), known):
                return loss
            return self.objective.gradient(step)

        return closure

    def provenance(self) -> dict[str, Any]:
        """What the numbers depend on beyond the specification, as JSON."""
        objective, dataset, entry = self.objective, self.objective.data, registry.entry(self.spec.optimizer)
        device, cpu = objective.space.tensors[0].device, f"{platform.machine()}, {os.cpu_count()} cores"
        return make_provenance(
            objective.space,
            libraries=LIBRARIES,
            optimizer={"target": entry.target, "distribution": entry.source},
            data={
                "sha256": dataset.sha256,
                "train": len(dataset.y_train),
                "test": len(dataset.y_test),
                "classes": dataset.classes,
                "shape": list(dataset.x_train.shape[1:]),
            },
            model={"invariant": self.verdict.invariant, "verdict": self.verdict.summary},
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else cpu,
            ghost_batch=objective.ghost_batch,
            memory_format=objective.memory_format,
            processes=objective.process_group.size,
            **({"cuda_graphs": objective.replay.state} if objective.replay else {}),
            **({"not_deterministic": [*self.not_deterministic]} if self.not_deterministic else {}),
        )


def build_experiment(
    spec: RunSpec,
    process_group: ProcessGroup | None = None,
    memory_format: MemoryFormat | None = None,
    make_optimizer: Callable[..., OptimizerBase] | None = None,
    cuda_graphs: bool = False,
) -> Experiment:
    """Build everything, compute one gradient and one geometry, and write nothing.

    `make_optimizer` makes the optimizer from tensors, if the caller has validated `spec.hyper` already;
    with `cuda_graphs` the gradients of steps are replayed.

    Raises:
        UsageError: an invalid name, hyper-parameter, batch size, schedule, view or device.
        CorruptError: the data is damaged.
        PluginError: the optimizer raises an exception.
    """
    if make_optimizer is None:
        optimizer_class = registry.load(spec.optimizer)
        with plugin_errors(spec.optimizer, "failed in its constructor"):
            hyper = optimizer_class.Hyper.model_validate(spec.hyper)
    objective = build_objective(spec, process_group, memory_format)
    space, verdict = objective.space, check_scale_invariance(objective)
    with plugin_errors(spec.optimizer, "failed in its constructor"):
        optimizer = make_optimizer(space.tensors) if make_optimizer else optimizer_class(space.tensors, hyper)
    point = _point(spec, optimizer)
    scheduler = Scheduler(spec.schedule, optimizer, spec.steps) if spec.schedule else None
    not_deterministic: list[str] = []
    with find_nondeterministic(not_deterministic):
        objective.gradient(0)
    if cuda_graphs:
        objective.use_cuda_graphs()
    with plugin_errors(spec.optimizer, "failed in geometry()"):
        geometry = _first_geometry(optimizer, space)
    loss = f"{spec.model} with norm {spec.norm} is {verdict.summary}"
    selection = select_views(
        spec.views, geometry.metric, norm=geometry.norm, invariant=verdict.invariant, loss=loss
    )
    return Experiment(
        spec,
        objective,
        optimizer,
        verdict,
        selection.views,
        selection.skipped,
        scheduler,
        tuple(not_deterministic),
        point,
    )


def _first_geometry(optimizer: OptimizerBase, space: ParameterSpace) -> Geometry:
    """The geometry before the first step, checked."""
    weights = space.weights()
    geometry = validate_geometry(geometry_of(optimizer), weights)
    if not torch.equal(weights, space.weights()):
        raise ValueError("it moves the weights, which only step() may")
    return geometry


def _point(spec: RunSpec, optimizer: OptimizerBase) -> Point | None:
    """Where the weights are measured; an optimizer that averages them trains from here on."""
    start_training(optimizer)
    optimizer.register_step_pre_hook(require_training)
    try:
        point = require_point(optimizer, spec.point)
    except ValueError as error:
        raise UsageError(f"--point: {str(error).rstrip('.')}") from error
    if point == "x" and spec.midpoint:
        raise UsageError("--midpoint removes an oscillation that the average x does not have; add --point y")
    return point


def build_objective(
    spec: RunSpec, process_group: ProcessGroup | None = None, memory_format: MemoryFormat | None = None
) -> Objective:
    """The training loss of a specification, at its initial weights.

    Raises:
        UsageError: an invalid name, batch size or device.
        CorruptError: the data is damaged.
    """
    device = _device(spec.device, process_group)
    if spec.precision == "tf32" and device.type != "cuda":
        raise UsageError("TF32 is a format of CUDA devices; use --precision float32 on a CPU")
    dataset = datasets.load(spec.data, limit=spec.limit, seed=spec.seed).to(device)
    model = build.build(
        spec.model,
        classes=dataset.classes,
        channels=dataset.channels,
        size=dataset.size,
        norm=spec.norm,
        seed=spec.seed,
        dtype=torch.float64 if spec.precision == "float64" else torch.float32,
    ).to(device)
    options = spec.model_dump(include={"loss", "ghost_batch", "batch_size", "seed", "hvp"})
    return Objective(
        model,
        dataset,
        **options,
        process_group=process_group,
        memory_format=memory_format,
        tf32=spec.precision == "tf32",
    )


def check_scale_invariance(objective: Objective) -> scale_invariance.ScaleInvariance:
    """Whether the loss is scale-invariant in all trained weights, checked at their present values."""
    space = objective.space
    return scale_invariance.check(objective.sample_loss, dict(zip(space.names, space.tensors, strict=True)))


def _device(name: str, process_group: ProcessGroup | None) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"there is no device {name!r}; use cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"the device {name!r} does not exist: torch sees {torch.cuda.device_count()} CUDA devices; "
            "use --device cpu, or run `optim-family doctor`"
        )
    shared = process_group is not None and process_group.size > 1 and device.index is not None
    if shared and device.type == "cuda":
        raise UsageError(
            f"all processes of this run would share the device {name!r}; use --device cuda, which gives each "
            "process a GPU of its own"
        )
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"runs use cpu or cuda; got the device {name!r}")
    return device
