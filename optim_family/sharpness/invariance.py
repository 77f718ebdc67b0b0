"""Whether a loss is scale-invariant, for at most two gradients of its first chunk.

    L(2w) = L(w)   and therefore   2 g(2w) = g(w)

Half of this is a weaker test: ⟨g, w⟩ = 0 holds nearly at random in many dimensions, and a loss of small
outputs hardly changes. `networks.scale_invariance` is the bitwise test of `run` and `models check`.
"""

import math
import warnings
from collections.abc import Iterable, Sequence
from typing import Final

import torch
from torch import Tensor

from optim_family.curvature.chunked_loss import ChunkLoss
from optim_family.curvature.hessian import chunk_gradient
from optim_family.sharpness.views import VIEWS
from optim_family.space import flatten, norm

# A loss counts as scale-invariant below this: BatchNorm's ε causes about 1e-5, a network without
# normalisation about 1 and more.
TOLERANCE: Final = 0.1
ROUNDINGS: Final = 1e3  # a gradient of fewer machine epsilons, times ‖w‖, counts as 0


def scale_dependence(chunk: ChunkLoss, params: Sequence[Tensor], gradient: Tensor | None = None) -> float:
    """‖2 g(2w) − g(w)‖ / ‖g(w)‖ of one chunk, 0 for a scale-invariant loss; ∞ if all weights are 0.

    Args:
        chunk: a closure that returns the loss, the same at equal weights.
        params: the tensors that w consists of; they are restored.
        gradient: g(w), [d], if it is at hand.
    """
    length = float(norm(flatten(p.detach() for p in params)))
    if not length:
        return math.inf
    before = chunk_gradient(chunk, params)[1] if gradient is None else gradient
    data = [p.data for p in params]
    try:
        # Other data rather than data changed in place: graphs that the caller holds stay valid.
        for p in params:
            p.data = 2 * p.data
        after = 2 * chunk_gradient(chunk, params)[1]
    except (RuntimeError, ValueError, ArithmeticError):  # a loss that is not defined there
        return math.inf
    finally:
        for p, held in zip(params, data, strict=True):
            p.data = held
    size = max(float(norm(before)), ROUNDINGS * torch.finfo(before.dtype).eps / length)
    change = float(norm(after - before)) / size
    return change if math.isfinite(change) else math.inf


def warn_about_scale(views: Iterable[str], dependence: float) -> None:
    """Warn if spherical views are measured of a loss that is not scale-invariant."""
    spherical = [name for name in views if VIEWS[name].spherical]
    if spherical and not dependence < TOLERANCE:
        warnings.warn(
            f"{' and '.join(spherical)} sharpness: the loss is not scale-invariant (2 g(2w) differs from "
            f"g(w) by {dependence:.2g} of its length), so that the factor ρ² has no meaning; measure raw or "
            "preconditioned instead.",
            stacklevel=3,
        )
