"""Measure any torch model once, and change nothing about it."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from optim_family.curvature.chunked_loss import ChunkLoss, chunk_losses
from optim_family.curvature.hessian import Hessian, Mode
from optim_family.curvature.precision import full_precision
from optim_family.geometry import Geometry
from optim_family.optimizers.external.inferred_geometry import geometry_of
from optim_family.sharpness.probe import ProbeSet, Reading
from optim_family.space import ParameterSpace


def measure(
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    chunks: Iterable[tuple[Any, Any]],
    optimizer: torch.optim.Optimizer | None = None,
    *,
    views: Sequence[str] = ("raw", "spherical"),
    rtol: float = 1e-3,
    k: int = 1,
    mode: Mode | None = None,
) -> dict[str, Reading]:
    """Measure any torch model, in its present mode, and change nothing about it.

    The loss is Σ (n_chunk/n) · loss_fn(model(x), y). With BatchNorm in training mode the chunks share
    their statistics within, not across: other chunks are another loss.

    Args:
        model: weights that require a gradient are measured (all that the optimizer has, if one is given).
        loss_fn: the mean loss of one chunk, a scalar.
        chunks: pairs (x, y) with len(y) examples each.
        optimizer: for thresholds and for the preconditioned views; a FamilyOptimizer, or one of torch's or
            timm's of which the metric is known. Its geometry is that of its next step, with the gradients in
            `.grad`, or those of this loss where there are none.
        views: names out of raw, spherical, riemannian, preconditioned, spherical-preconditioned.
        rtol: relative error at which a reading stops.
        k: how many of the largest eigenvalues, in `Reading.top`.
        mode: keep the gradient's graph between products or rebuild it; chosen by the free memory if None.

    Returns:
        One reading for each view, by its name.

    Raises:
        ValueError: an unknown view, no chunks, no trained weights, or a view whose metric is not known.
    """
    panel = ProbeSet(views, rtol=rtol, k=k)
    space = _trained(model, optimizer)
    losses = chunk_losses(model, loss_fn, chunks)
    with full_precision(), torch.enable_grad():
        geometry = _geometry(optimizer, losses, space)
        return panel(Hessian(losses, space.tensors, mode), space.weights(), geometry)


def _trained(model: nn.Module, optimizer: torch.optim.Optimizer | None) -> ParameterSpace:
    """The weights that are measured, in the order in which the optimizer's metric has them."""
    if optimizer is None:
        return ParameterSpace.of(model)
    held = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    if {id(p) for p in held}.isdisjoint(id(p) for p in model.parameters()):
        raise ValueError(f"the optimizer trains no parameter of this {type(model).__name__}.")
    return ParameterSpace({str(index): p for index, p in enumerate(held)})


def _geometry(
    optimizer: torch.optim.Optimizer | None, losses: Sequence[ChunkLoss], space: ParameterSpace
) -> Geometry | None:
    """The geometry of the next step, with this loss's gradient lent to weights that have none."""
    if optimizer is None:
        return None
    bare = [p for p in space.tensors if p.grad is None]
    try:
        if bare:
            for loss in losses:
                shares = torch.autograd.grad(loss(), bare, materialize_grads=True)
                for p, share in zip(bare, shares, strict=True):
                    p.grad = share if p.grad is None else p.grad + share
        return geometry_of(optimizer)
    finally:
        for p in bare:
            p.grad = None
