"""Measure any torch model once, and change nothing about it."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, get_args

import torch
from torch import Tensor, nn

from optim_family.curvature.chunked_loss import ChunkLoss, chunk_losses
from optim_family.curvature.example_counts import Count
from optim_family.curvature.hessian import Hessian, Hvp
from optim_family.curvature.precision import deterministic_convolutions, full_precision
from optim_family.errors import unknown
from optim_family.geometry import Geometry, UnknownMetric
from optim_family.optimizers.external.averaging import (
    Point,
    at_point,
    require_point,
    warn_about_statistics,
)
from optim_family.optimizers.external.inferred_geometry import geometry_of, warn_about
from optim_family.sharpness.geometry_validation import validate_geometry
from optim_family.sharpness.invariance import TOLERANCE, scale_dependence, warn_about_scale
from optim_family.sharpness.metric_rounding import geometry_with_rounding, warn_about_rounding
from optim_family.sharpness.probe import Reading, ReadingMethod
from optim_family.sharpness.probe_set import ProbeSet
from optim_family.sharpness.self_check import Check, check_once
from optim_family.sharpness.view_selection import select_views
from optim_family.sharpness.views import View, view_by_name
from optim_family.space import ParameterSpace, norm, replace_gradients, unflatten

# Gradients in `.grad` that point along those of the loss and are so much longer have been scaled.
ALIGNED: Final = 0.3
SCALED: Final = 64.0


def measure(
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    chunks: Iterable[Any],
    optimizer: torch.optim.Optimizer | None = None,
    *,
    views: Sequence[str] | None = None,
    rtol: float = 1e-3,
    k: int = 1,
    budget: int | None = None,
    hvp: Hvp = "auto",
    count: Count | None = None,
    check: Check = "once",
    seed: int = 0,
    reading: ReadingMethod = "lanczos",
    mode: Hvp | None = None,
    point: Point | None = None,
) -> dict[str, Reading]:
    """Measure any torch model, in its present mode, and change nothing about it.

    The loss is Σ (n_chunk/n) · loss_fn(model(x), y). With BatchNorm in training mode the chunks share
    their statistics within, not across: other chunks are another loss.

    Args:
        model: weights that require a gradient are measured (all that the optimizer has, if one is given).
            What DataParallel, DistributedDataParallel or `torch.compile` have wrapped is measured itself.
        loss_fn: the mean loss of one chunk, a scalar, or an output with a scalar `.loss`.
        chunks: pairs (x, y), or triples (x, y, n) with n examples.
        optimizer: for thresholds and for the preconditioned views; a FamilyOptimizer, or one of torch's or
            timm's of which the metric is known. Its geometry is that of its next step, with the gradients in
            `.grad`, or those of this loss where there are none.
        views: names out of raw, spherical, riemannian, preconditioned, spherical-preconditioned, generalized;
            by default spherical, spherical-preconditioned if the optimizer has a metric that is not the
            identity, and generalized if it declares a norm; raw and preconditioned instead of these two if
            the loss is not scale-invariant. At most two gradients of the first chunk decide this.
        rtol: relative error at which a reading stops.
        k: how many of the largest eigenvalues, in `Reading.top`.
        budget: Hessian-vector products of the generalised view, at least 2; 100 if None.
        hvp: keep the gradient's graph between Hessian-vector products (`retained`), or rebuild it each time
            (`rebuilt`); `auto` keeps it for as many chunks as fit the free memory.
        count: n of a pair (x, y), where the lengths do not say it.
        check: whether the operator is the second derivative of the loss, for some ten gradients of the first
            chunk: `once` for each model and shape, in `full` at every call, or `off`. The result is in
            `Reading.check`.
        seed: of the noise that is mixed into the start of the search, and of the sample.
        reading: `lanczos`, or `sampled`: Lanczos on a sample of the chunks, corrected by few products over
            all of them, from 8 chunks on. `auto`: from 16 chunks on, where it pays.
        point: where a schedule-free optimizer is measured: `x`, the average that is evaluated (None), or `y`,
            where it computes gradients, in whatever mode it is. The point is in `Reading.point`.
        mode: the former name of `hvp`.

    Returns:
        One reading for each view, by its name.

    Raises:
        ValueError: an unknown view or reading, no chunks, chunks whose examples cannot be counted, no trained
            weights, a view whose metric is not known, a metric or norm that is none, a budget below 2,
            gradients in `.grad` that are scaled, or an operation without a second derivative.
        TypeError: geometry() of the optimizer returns no Geometry, or one whose parts are of other types.
        UnreliableReading: the operator is not the second derivative of the loss; a ValueError.
        FloatingPointError: weights, loss or gradient are not finite.
    """
    _check_arguments(loss_fn, optimizer, views, rtol, hvp := mode or hvp, check)
    requested, where = [view_by_name(name) for name in views or ()], require_point(optimizer, point)
    needed = any(view.own_geometry for view in requested)
    options: dict[str, Any] = {"rtol": rtol, "k": k, "seed": seed, "budget": budget, "reading": reading}
    space = _parameter_space(model, optimizer)
    losses = chunk_losses(model, loss_fn, chunks, count)
    warn_about_statistics(model, optimizer, where)
    with torch.inference_mode(False), torch.enable_grad(), full_precision(), deterministic_convolutions():
        at_y = _geometry_at_y(optimizer, losses, space) if where else None
        with at_point(optimizer, where):
            verdict, seconds = _check_loss(model, losses, space, check)
            weights, hessian = space.weights(), Hessian(losses, space.tensors, hvp)
            geometry = at_y or _geometry(optimizer, hessian, space, needed)
            scale = _scale_dependence(losses, hessian, requested)
            names = [v.name for v in requested] or _default_views(geometry, space.dim, scale < TOLERANCE)
            readings = ProbeSet(names, **options)(hessian, weights, geometry)
    warn_about_scale(names, scale)
    if optimizer is not None and geometry is not None:
        warn_about(optimizer, geometry)
    warn_about_rounding(readings)
    common: dict[str, Any] = {"check": verdict, "point": where or ""}
    return {name: replace(r, **common, seconds=r.seconds + seconds) for name, r in readings.items()}


def _check_loss(
    model: nn.Module, losses: Sequence[ChunkLoss], space: ParameterSpace, check: Check
) -> tuple[str, float]:
    """What the check of the loss said, and the seconds that it took; 0 without a check."""
    if not math.isfinite(float(norm(space.weights()))):
        raise FloatingPointError(f"the weights of this {type(model).__name__} are not finite.")
    begin = time.perf_counter()
    verdict = check_once(losses, space.tensors, check)
    return verdict, time.perf_counter() - begin if verdict else 0.0


def _check_arguments(loss_fn: Any, optimizer: Any, views: Any, rtol: float, hvp: Any, check: Any) -> None:
    """Refuse what would fail later in torch's words, or give a number without a meaning."""
    if isinstance(loss_fn, type):
        raise ValueError(
            f"loss_fn is the class {loss_fn.__name__}; give an object of it: {loss_fn.__name__}()."
        )
    if optimizer is not None and not hasattr(optimizer, "param_groups"):
        raise ValueError(
            f"the optimizer {type(optimizer).__name__} has no param_groups; give the one inside."
        )
    if isinstance(views, str):
        raise ValueError(f"views must be a list of names; write [{views!r}].")
    if not 0 < rtol < 1:
        raise ValueError(f"rtol must lie between 0 and 1; got {rtol!r}.")
    if hvp not in get_args(Hvp):
        raise ValueError(f"{unknown('hvp', hvp, get_args(Hvp))}.")
    if check not in get_args(Check):
        raise ValueError(f"{unknown('check', check, get_args(Check))}.")


def _scale_dependence(losses: Sequence[ChunkLoss], hessian: Hessian, requested: Sequence[View]) -> float:
    """That of the first chunk, where a view depends on it; the gradient of a single chunk is at hand."""
    if requested and not any(view.spherical for view in requested):
        return math.inf
    return scale_dependence(losses[0], hessian.params, hessian.gradient() if len(losses) == 1 else None)


def _default_views(geometry: Geometry | None, dim: int, invariant: bool) -> tuple[str, ...]:
    metric = geometry.metric if geometry else UnknownMetric(dim, "no optimizer")
    norm = geometry.norm if geometry else None
    return select_views(None, metric, norm=norm, invariant=invariant).views


def _parameter_space(model: nn.Module, optimizer: torch.optim.Optimizer | None) -> ParameterSpace:
    """The weights that are measured, in the order in which the optimizer's metric has them."""
    if optimizer is None:
        return ParameterSpace.of(model)
    space = ParameterSpace.of_optimizer(optimizer)
    if {id(p) for p in space.tensors}.isdisjoint(id(p) for p in model.parameters()):
        raise ValueError(f"the optimizer trains no parameter of this {type(model).__name__}.")
    return space


def _geometry(
    optimizer: torch.optim.Optimizer | None, hessian: Hessian, space: ParameterSpace, needed: bool
) -> Geometry | None:
    """The geometry of the next step; weights without a gradient get that of this loss meanwhile."""
    if optimizer is None:
        return None
    own = unflatten(hessian.gradient(), space.tensors)
    before = [p.grad for p in space.tensors]
    dense = [g.to_dense() if g is not None and g.is_sparse else g for g in before]
    problem = _problem_of(dense, own)
    if problem and needed:
        raise ValueError(problem)
    gradients = [g if h is None or problem else h for h, g in zip(dense, own, strict=True)]
    with replace_gradients(space.tensors, gradients):
        geometry = geometry_with_rounding(partial(geometry_of, optimizer), space.tensors)
    return _valid(geometry, optimizer, space)


def _geometry_at_y(
    optimizer: torch.optim.Optimizer | None, losses: Sequence[ChunkLoss], space: ParameterSpace
) -> Geometry:
    """The geometry of the next step of a schedule-free optimizer, with the gradient of this loss at y.

    Their steps overwrite `.grad`.
    """
    assert optimizer is not None
    with at_point(optimizer, "y"):
        gradient = Hessian(losses, space.tensors, "rebuilt").gradient()
        with replace_gradients(space.tensors, unflatten(gradient, space.tensors)):
            geometry = geometry_with_rounding(partial(geometry_of, optimizer), space.tensors)
            return _valid(geometry, optimizer, space)


def _valid(geometry: Geometry, optimizer: torch.optim.Optimizer, space: ParameterSpace) -> Geometry:
    """The geometry, if its metric or norm is one and its threshold is positive."""
    if geometry.threshold < 0:
        raise ValueError(
            f"the weight decay of this {type(optimizer).__name__} turns the weights over in every step: its "
            f"threshold is {geometry.threshold:.3g}. Use a smaller lr · weight_decay."
        )
    return validate_geometry(geometry, space.weights())


def _problem_of(gradients: Sequence[Tensor | None], own: Sequence[Tensor]) -> str | None:
    """Why the gradients in `.grad` cannot be those of a step."""
    both = zip(gradients, own, strict=True)
    pairs = [(h.to(g.dtype).flatten(), g.flatten()) for h, g in both if h is not None]
    if not pairs:
        return None
    h, g = (torch.cat(parts).double() for parts in zip(*pairs, strict=True))
    if not h.isfinite().all():
        return "the gradients in .grad are not finite: call zero_grad() first."
    length, own_length = float(norm(h)), float(norm(g))
    cosine = float(h @ g) / (length * own_length or 1.0)
    if cosine > ALIGNED and cosine * length > SCALED * own_length:
        return (
            f"the gradients in .grad are {cosine * length / own_length:.0f} times those of this loss, as a "
            "GradScaler leaves them: call its unscale_(optimizer) first, or zero_grad()."
        )
    return None
