"""Readings of the generalised sharpness, in the norm or in the metric of an optimizer.

In a metric S_N is the eigenvalue λ₁(P^{-1/2} H P^{-1/2}), and the reading is that of the preconditioned view.
In any other norm it is a lower bound, divided by N*(g) if the step is normalised:

    value, threshold    S_N, or S_N / N*(g) with N*(g) in `dual`
    residual, error     the gap of Frank–Wolfe: zero at a local maximum
    bound               S_N is at most value + bound, as λ₁ radius² (failure probability 1 in 1,000)
    spread              between the best and the worst start that reached a local maximum
    floor               λ₁ / N(v₁)², or this / N*(g)
    converged           four starts ended at the same best value
    note                "lower bound", and why there is no threshold; all numbers are NaN at a zero gradient
"""

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, final

import torch
from torch import Tensor

from optim_family.geometry import Geometry, MetricNorm, UnknownMetric
from optim_family.norms import Norm
from optim_family.operators import SymmetricOperator
from optim_family.sharpness.generalized import BUDGET, NormMaximum, maximize_over_norm
from optim_family.sharpness.probe import Probe, Reading, eigen_start
from optim_family.sharpness.self_check import explain_products
from optim_family.sharpness.views import LOWER_BOUND, VIEWS, View, view_by_name


@final
class GeneralizedProbe:
    """Measures the generalised sharpness again and again; remembers the last witness.

    Args:
        view: the generalised one.
        k: has no effect: a maximum over a norm has no second value.
        rtol: relative gap at which a start ends.
        budget: Hessian-vector products of a reading.
        seed: of the random starts; readings are deterministic.
        max_products: in a metric, the products of the eigenvalue search.
    """

    def __init__(
        self,
        view: View | str = "generalized",
        *,
        k: int = 1,
        rtol: float = 1e-3,
        budget: int = BUDGET,
        seed: int = 0,
        max_products: int = 200,
    ) -> None:
        self.view, self.rtol, self.budget, self.seed = view_by_name(view), rtol, budget, seed
        self.count, self.witness = 0, torch.empty(0)
        self._in_metric = Probe(VIEWS["preconditioned"], k=k, rtol=rtol, max_products=max_products, seed=seed)

    def __call__(
        self, hessian: SymmetricOperator, weights: Tensor, geometry: Geometry | None = None
    ) -> Reading:
        """One reading at the weights w [d]."""
        return self.readings([self.view], hessian, weights, geometry, 1.0)[self.view.name]

    def readings(
        self,
        views: Iterable[View],
        hessian: SymmetricOperator,
        weights: Tensor,
        geometry: Geometry | None,
        length: float,
    ) -> dict[str, Reading]:
        """The reading under the name of each view; no generalised view has the factor ρ², `length`.

        Raises:
            ValueError: the optimizer has neither a norm nor a metric, the budget is below 2, the norm is not
                one, or the step is normalised and the operator has no gradient.
            FloatingPointError: a product or the gradient is not finite.
        """
        begin = time.perf_counter()
        norm = None if geometry is None else geometry.step_norm
        if geometry is None or norm is None:
            metric = None if geometry is None else geometry.metric
            reason = f": {metric.reason}" if isinstance(metric, UnknownMetric) else ""
            raise ValueError(
                f"the view {self.view.name!r} needs an optimizer with a norm or a metric{reason}."
            )
        if isinstance(norm, MetricNorm):
            in_metric = replace(geometry, metric=norm.metric, norm=None)
            reading = self._in_metric(hessian, weights, in_metric)
        else:
            dual = _dual(norm, hessian.gradient()) if geometry.normalized else None
            maximum = self._maximum(norm, hessian, weights)
            reading = _reading(maximum, geometry, dual, time.perf_counter() - begin)
        return {view.name: reading for view in views}

    def _maximum(self, norm: Norm, hessian: SymmetricOperator, weights: Tensor) -> NormMaximum:
        generator = torch.Generator(weights.device).manual_seed(self.seed * 1_000_003 + self.count)
        start, noise = eigen_start(hessian, weights, generator)
        self.count += 1
        with explain_products():
            maximum = maximize_over_norm(
                hessian,
                norm,
                self._starts(norm, hessian.gradient(), weights, generator),
                eigen_start=start,
                noise=noise,
                budget=self.budget,
                rtol=self.rtol,
            )
        self.witness = maximum.witness
        return maximum

    def _starts(
        self, norm: Norm, gradient: Tensor | None, weights: Tensor, generator: torch.Generator
    ) -> Iterator[Tensor]:
        """The steepest step, the last witness, and random vectors without end."""
        if gradient is not None:
            yield norm.maximizer(gradient)
        if self.witness.numel():
            yield self.witness.to(weights)
        while True:
            yield torch.randn(weights.shape, generator=generator, dtype=weights.dtype, device=weights.device)

    def state_dict(self) -> dict[str, Any]:
        """What the next reading depends on."""
        return {"count": self.count, "witness": self.witness, "metric": self._in_metric.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self.count, self.witness = state["count"], state["witness"]
        self._in_metric.load_state_dict(state["metric"])


def _dual(norm: Norm, gradient: Tensor | None) -> float:
    """N*(g), by which the sharpness of a normalised step is divided."""
    if gradient is None:
        raise ValueError(
            "the sharpness of a normalised step depends on the gradient, which is not known here."
        )
    dual = norm.dual(gradient)
    if not math.isfinite(dual):
        raise FloatingPointError("the gradient is not finite: there is no sharpness here.")
    if dual < 0:
        raise ValueError(f"{type(norm).__name__} is not a norm: N*(g) = {dual:.3g} at the gradient g.")
    return dual


def _reading(maximum: NormMaximum, geometry: Geometry, dual: float | None, seconds: float) -> Reading:
    scale = 1.0 if dual is None else 1 / dual if dual else math.nan
    known = math.isfinite(geometry.threshold)
    notes = [LOWER_BOUND]
    if dual == 0:
        notes.append("the gradient is zero, and S_N / N*(g) has no value")
    if not known:
        notes.append(f"no threshold: {geometry.no_threshold or 'none is known'}")
    if geometry.inexact:
        notes.append(f"the step is within {geometry.inexact:.0%} of the maximiser")
    value = scale * maximum.value
    return Reading(
        value=value,
        threshold=geometry.threshold if known else None,
        ratio=value / geometry.threshold if known else None,
        residual=scale * maximum.gap,
        error=scale * maximum.gap,
        bound=scale * maximum.bound,
        products=maximum.products,
        seconds=seconds,
        converged=maximum.converged,
        top=(value,),
        note="; ".join(notes),
        spread=scale * maximum.spread,
        floor=scale * maximum.floor,
        dual=dual,
    )
