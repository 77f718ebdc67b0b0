"""How far the rounding of a gradient moves the metric that comes from it.

The metric of Adam before its first step comes from a single gradient. Some of its many entries are close to
zero by chance, and rounding decides how close. The top eigenvector lies on just these weights, so that the
preconditioned sharpness can change several times over with the number of threads. After a step or two no
entry of the average of squares is that small.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from optim_family.geometry import DiagonalMetric, Geometry
from optim_family.sharpness.probe import Reading
from optim_family.sharpness.views import MAX_ROUNDING
from optim_family.space import replace_gradients

# The rounding of an entry, in machine epsilons of the root mean square of its tensor. The gradients of two
# numbers of threads differ by 5 in a small MLP, and by 10⁵ where an activation crosses a kink.
ROUNDINGS: Final = 100.0


def geometry_with_rounding(geometry_of: Callable[[], Geometry], tensors: Sequence[Tensor]) -> Geometry:
    """The geometry; the change of a diagonal metric by rounding is in its `rounding`.

    It computes the geometry again from gradients whose entries are further from zero by ROUNDINGS.

    Args:
        geometry_of: computes the geometry from `.grad`.
        tensors: the weights, in the order of the metric.
    """
    geometry = geometry_of()
    if not isinstance(geometry.metric, DiagonalMetric):
        return geometry
    with replace_gradients(tensors, [t.grad if t.grad is None else _further(t.grad) for t in tensors]):
        moved = geometry_of().metric
    if not isinstance(moved, DiagonalMetric):
        return geometry
    diagonal = geometry.metric.diagonal
    return replace(geometry, metric=DiagonalMetric(diagonal, (1 - diagonal / moved.diagonal).abs()))


def warn_about_rounding(readings: Mapping[str, Reading]) -> None:
    """Warn of readings that rounding changes by more than MAX_ROUNDING."""
    changes = {name: x for name, r in readings.items() if (x := r.rounding or 0.0) > MAX_ROUNDING}
    if changes:
        warnings.warn(
            f"{' and '.join(changes)} sharpness: the rounding of the gradient behind the metric can "
            f"change the value by {max(changes.values()):.0%}; take some steps first.",
            stacklevel=3,
        )


def _further(gradient: Tensor) -> Tensor:
    """Each entry further from zero by the rounding of the tensor."""
    rounding = ROUNDINGS * torch.finfo(gradient.dtype).eps * gradient.square().mean().sqrt()
    return gradient + rounding.copysign(gradient)
