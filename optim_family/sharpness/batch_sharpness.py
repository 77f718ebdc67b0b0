"""Batch sharpness: the curvature of the mini-batch loss along the mini-batch gradient.

    E_B[g_Bᵀ H_B g_B / ‖g_B‖²],    g_B = ∇L_B,  H_B = ∇²L_B

In mini-batch training it hovers near the stability threshold, while λ₁(∇²L) stays below. With the full batch
it is the Rayleigh quotient of the gradient, at most λ₁. In an optimizer's metric P the gradient is
P^{-1/2} g_B and the Hessian P^{-1/2} H_B P^{-1/2}.

With momentum β it settles between two plateaus, 2(1 − β)/η for small batches and 2(1 + β)/η for large ones
(arXiv:2604.14108): at β = 0.9 they differ by a factor of 19, so that both are given.

Source: A. Andreyev, P. Beneventano, "Edge of stochastic stability: revisiting the edge of stability for SGD",
arXiv:2412.20553.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, final

import torch
from scipy.special import stdtrit
from torch import Tensor

from optim_family.curvature.chunked_loss import ChunkLoss
from optim_family.curvature.hessian import Hessian, chunk_gradient
from optim_family.curvature.precision import full_precision
from optim_family.geometry import Geometry
from optim_family.sharpness.probe import view_operator, view_threshold
from optim_family.sharpness.views import VIEWS, View, view_by_name
from optim_family.space import flatten, inner, norm


@final
@dataclass(frozen=True)
class BatchSharpness:
    """An estimate of the batch sharpness, with the evidence for it.

    Attributes:
        value: the mean of the quotients, in the unit of the view.
        error: half the width of Student's confidence interval; None for a single batch.
        standard_error: of the mean; None for a single batch.
        confidence: the probability that value ± error covers the expectation, if the quotients are
            independent and nearly normal.
        threshold: the stability threshold of the same view; None if it has none.
        ratio: value / threshold.
        small_batch_threshold: with momentum β, threshold · (1 − β)/(1 + β): the plateau of small batches, as
            the threshold is that of large ones; None without momentum, where both are one.
        quotients: g_Bᵀ H_B g_B / ‖g_B‖² of each batch, in order.
        products: Hessian-vector products, one for each batch.
        seconds: wall time.
    """

    value: float
    error: float | None
    standard_error: float | None
    confidence: float
    threshold: float | None
    ratio: float | None
    quotients: tuple[float, ...]
    products: int
    seconds: float
    small_batch_threshold: float | None = None

    @property
    def small_batch_ratio(self) -> float | None:
        """value / small_batch_threshold; None without momentum."""
        return self.value / self.small_batch_threshold if self.small_batch_threshold else None

    def as_record(self) -> dict[str, Any]:
        """As JSON; the plateau of small batches and the ratio to it only with momentum."""
        record = asdict(self)
        if self.small_batch_ratio is None:
            del record["small_batch_threshold"]
            return record
        return record | {"small_batch_ratio": self.small_batch_ratio}


def batch_sharpness(
    batches: Iterable[Sequence[ChunkLoss]],
    params: Sequence[Tensor],
    geometry: Geometry | None = None,
    *,
    view: View | str = VIEWS["raw"],
    confidence: float = 0.95,
    all_reduce: Callable[[Tensor], Tensor] | None = None,
) -> BatchSharpness:
    """Estimate E_B[g_Bᵀ H_B g_B / ‖g_B‖²] from mini-batches, with one gradient and one product each.

    `[chunk_losses(model, loss_fn, [batch]) for batch in loader]` are the batches of any model.

    Args:
        batches: independent mini-batches, each as the closures whose sum is its loss. Batches that cover
            the training set without replacement make the interval too wide.
        params: the tensors that w consists of, in order.
        geometry: of the optimizer, for thresholds and for the preconditioned views.
        view: the factors around g_B and H_B.
        confidence: of the interval, between 0 and 1.
        all_reduce: sums a vector [d] over the processes that share each batch; None for a single process.

    Raises:
        ValueError: there is no batch, the confidence is not between 0 and 1, the view is unknown, or its
            metric is unknown.
        FloatingPointError: a batch has a gradient that is zero or not finite.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence lies between 0 and 1; got {confidence}.")
    view, begin = view_by_name(view), time.perf_counter()
    weights = flatten(p.detach() for p in params)
    with full_precision(), torch.enable_grad():
        unscaled = [_quotient(view, batch, params, weights, geometry, all_reduce) for batch in batches]
    if not unscaled:
        raise ValueError("there is nothing to measure on: `batches` gave no mini-batch.")
    scale = float(norm(weights)) ** 2 if view.spherical else 1.0  # the first synchronisation
    quotients = (scale * torch.stack(unscaled).double()).tolist()
    if bad := [i for i, q in enumerate(quotients) if not math.isfinite(q)]:
        raise FloatingPointError(
            f"the gradient of batch {bad[0]} is zero or not finite: it has no direction."
        )
    n, mean = len(quotients), math.fsum(quotients) / len(quotients)
    threshold = view_threshold(view, geometry)
    standard_error = statistics.stdev(quotients) / math.sqrt(n) if n > 1 else None
    error = None if standard_error is None else standard_error * float(stdtrit(n - 1, (1 + confidence) / 2))
    return BatchSharpness(
        value=mean,
        error=error,
        standard_error=standard_error,
        confidence=confidence,
        threshold=None if threshold is None else scale * threshold,
        ratio=mean / (scale * threshold) if threshold else None,
        quotients=tuple(quotients),
        products=n,
        seconds=time.perf_counter() - begin,
        small_batch_threshold=_small_batch_threshold(threshold, geometry, scale),
    )


def _small_batch_threshold(threshold: float | None, geometry: Geometry | None, scale: float) -> float | None:
    """The plateau of small batches with momentum, where there is one."""
    if threshold is None or geometry is None or not geometry.momentum:
        return None
    return scale * threshold * (1 - geometry.momentum) / (1 + geometry.momentum)


def _quotient(
    view: View,
    batch: Sequence[ChunkLoss],
    params: Sequence[Tensor],
    weights: Tensor,
    geometry: Geometry | None,
    all_reduce: Callable[[Tensor], Tensor] | None,
) -> Tensor:
    """gᵀ H g / ‖g‖² of one mini-batch in a view, a scalar on the device."""
    hessian = Hessian(batch, params, "rebuilt", all_reduce)  # rebuilt: there is only one product
    operator = view_operator(view, hessian, weights, geometry)
    g = torch.zeros_like(weights)
    for chunk in batch:
        g += chunk_gradient(chunk, params)[1]
    g = all_reduce(g) if all_reduce else g
    for factor in reversed(operator.factors):  # ∇ at the preconditioned weights is A₁ ⋯ Aₙ ∇L
        g = factor @ g
    g = g / norm(g)  # before the product: squares of a small gradient underflow
    return inner(g[None], operator @ g)[0]
