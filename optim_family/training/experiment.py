"""From a specification to the things that a run consists of, with every mistake found before it begins."""

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from optim_family import registry
from optim_family.data import datasets
from optim_family.errors import UsageError
from optim_family.geometry import Geometry, Metric, UnknownMetric
from optim_family.networks import build, scale_invariance
from optim_family.optimizers.base import OptimizerBase
from optim_family.registry import plugin_errors
from optim_family.sharpness.view_selection import RUN, select_views
from optim_family.training.lr_scheduler import Scheduler
from optim_family.training.objective import Objective
from optim_family.training.process_group import ProcessGroup
from optim_family.training.provenance import make_provenance
from optim_family.training.spec import MemoryFormat, RunSpec

LIBRARIES = ("optim-family", "torch", "torchvision", "timm", "numpy", "scipy")


@final
@dataclass(frozen=True)
class Experiment:
    """What is trained, by what, and what is measured.

    Attributes:
        views: measured at every record.
        skipped_views: spherical views that do not apply, because the loss is not scale-invariant.
        scheduler: sets the learning rate, where it changes.
    """

    spec: RunSpec
    objective: Objective
    optimizer: OptimizerBase
    verdict: scale_invariance.ScaleInvariance
    views: tuple[str, ...]
    skipped_views: tuple[str, ...]
    scheduler: Scheduler | None = None

    def geometry(self) -> Geometry:
        """The optimizer's, for its next step.

        Raises:
            PluginError: it fails.
        """
        with plugin_errors(self.spec.optimizer, "failed in geometry()"):
            return self.optimizer.geometry()

    def optimizer_state(self) -> dict[str, Any]:
        """What the optimizer remembers, for a checkpoint.

        Raises:
            PluginError: it fails.
        """
        with plugin_errors(self.spec.optimizer, "failed in state_dict()"):
            return self.optimizer.state_dict()

    def set_lr(self, step: int) -> None:
        """Set the learning rate of step t; after the last step that of the last one stays in force."""
        if self.scheduler:
            self.scheduler(min(step, self.spec.steps - 1))

    def optimizer_step(self) -> None:
        """One optimizer step.

        Raises:
            PluginError: it fails.
        """
        with plugin_errors(self.spec.optimizer, "failed in step()"):
            self.optimizer.step()

    def provenance(self) -> dict[str, Any]:
        """What the numbers depend on beyond the specification, as JSON."""
        dataset, space = self.objective.data, self.objective.space
        entry = registry.entry(self.spec.optimizer)
        return make_provenance(
            space,
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
            device=_device_name(space.tensors[0].device),
            ghost_batch=self.objective.ghost_batch,
            memory_format=self.objective.memory_format,
            processes=self.objective.process_group.size,
        )


def build_experiment(
    spec: RunSpec,
    process_group: ProcessGroup | None = None,
    memory_format: MemoryFormat | None = None,
    make_optimizer: Callable[..., OptimizerBase] | None = None,
) -> Experiment:
    """Build everything, try it once, and write nothing.

    `make_optimizer` makes the optimizer from tensors, if the caller has validated `spec.hyper` already.

    Raises:
        UsageError: a name, a hyper-parameter, a batch size, a schedule, a view or a device that cannot be.
        CorruptError: the data is damaged.
        PluginError: the optimizer fails.
    """
    if make_optimizer is None:
        optimizer_class = registry.load(spec.optimizer)
        with plugin_errors(spec.optimizer, "failed in its constructor"):
            hyper = optimizer_class.Hyper.model_validate(spec.hyper)
    objective = build_objective(spec, process_group, memory_format)
    space, verdict = objective.space, check_scale_invariance(objective)
    with plugin_errors(spec.optimizer, "failed in its constructor"):
        optimizer = make_optimizer(space.tensors) if make_optimizer else optimizer_class(space.tensors, hyper)
    scheduler = Scheduler(spec.schedule, optimizer, spec.steps) if spec.schedule else None
    objective.gradient(0)
    with plugin_errors(spec.optimizer, "failed in geometry()"):
        metric = validate_geometry(optimizer.geometry(), space.weights()).metric
    selection = select_views(
        spec.views,
        RUN,
        metric,
        invariant=verdict.invariant,
        loss=f"{spec.model} with norm {spec.norm} is {verdict.summary}",
    )
    return Experiment(spec, objective, optimizer, verdict, selection.views, selection.skipped, scheduler)


def build_objective(
    spec: RunSpec, process_group: ProcessGroup | None = None, memory_format: MemoryFormat | None = None
) -> Objective:
    """The loss that a specification is about, at its initial weights.

    Raises:
        UsageError: a name, a batch size or a device that cannot be.
        CorruptError: the data is damaged.
    """
    device = _device(spec.device)
    dataset = datasets.load(spec.data, limit=spec.limit, seed=spec.seed).to(device)
    model = build.build(
        spec.model,
        classes=dataset.classes,
        channels=dataset.channels,
        size=dataset.size,
        norm=spec.norm,
        seed=spec.seed,
        dtype=torch.float32 if spec.precision == "float32" else torch.float64,
    ).to(device)
    return Objective(
        model,
        dataset,
        loss=spec.loss,
        ghost_batch=spec.ghost_batch,
        batch_size=spec.batch_size,
        seed=spec.seed,
        hvp=spec.hvp,
        process_group=process_group,
        memory_format=memory_format,
    )


def check_scale_invariance(objective: Objective) -> scale_invariance.ScaleInvariance:
    """Whether the loss is scale-invariant in all that is trained, at its present weights."""
    space = objective.space
    return scale_invariance.check(objective.sample_loss, dict(zip(space.names, space.tensors, strict=True)))


def validate_geometry(geometry: Geometry, weights: Tensor) -> Geometry:
    """The same geometry, once P^{-1/2} has been applied to the weights [d] and the threshold looked at.

    Raises:
        TypeError: it has no metric.
        ValueError: P has another dimension or is no positive definite matrix, or there is no such threshold.
    """
    if not isinstance(geometry.metric, Metric):
        raise TypeError(f"geometry().metric must be a Metric; got {type(geometry.metric).__name__}")
    if isinstance(geometry.metric, UnknownMetric):
        return geometry
    if geometry.metric.dim != len(weights):
        raise ValueError(f"the metric is for {geometry.metric.dim} weights, and {len(weights)} are trained")
    product = geometry.metric.power(-0.5) @ weights  #                          [d, d] · [d] → [d]
    if not (float(weights @ product) > 0 and bool(product.isfinite().all())):
        raise ValueError(
            "the metric must be positive definite and finite; wᵀP^{-1/2}w is not, for the weights w"
        )
    if not geometry.threshold > 0:
        raise ValueError(f"the threshold must be positive; got {geometry.threshold}")
    return geometry


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"there is no device {name!r}; use cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"the device {name!r} was asked for, and torch sees {torch.cuda.device_count()} CUDA devices "
            "here; use --device cpu, or look at what `optim-family doctor` says"
        )
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"runs use cpu or cuda; got the device {name!r}")
    return device


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()}, {os.cpu_count()} cores"
