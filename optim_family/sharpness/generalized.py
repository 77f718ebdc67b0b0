"""The generalised sharpness S_N = max over N(d) = 1 of dᵀHd, for the norm N of an optimizer's steps.

For a norm that is no quadratic form the maximum is NP-hard in general (ℓ_∞: the largest cut of a graph). The
search is Frank–Wolfe with an exact line search, from several starts:

    s = maximiser of ⟨Hv, s⟩ over N(s) ≤ 1        v ← v + γ (s − v),  γ in [0, 1] maximises vᵀHv

An iteration takes one product, since Hv follows by linearity, and vᵀHv never falls; for H ≥ 0 it is the
generalised power method (γ = 1). The best v and s on the unit sphere is a *lower bound* of S_N. On random
matrices it finds the maximum more often than the step sizes γ = 2/(k + 2) do (a test compares them).
Starts: the first eigenvector v₁, so that the result is at least λ₁/N(v₁)²; the steepest step at the gradient;
the last witness; then random vectors.

Source: M. Frank, P. Wolfe (1956); M. Journée et al., "Generalized power method for sparse principal component
analysis", JMLR 11 (2010); the sharpness: R. Islamov et al., arXiv:2603.05002 (2026).
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Final, final

import torch
from torch import Tensor

from optim_family.curvature.lanczos import Eigenpairs, top_eigenpairs
from optim_family.norms import Norm
from optim_family.operators import SymmetricOperator
from optim_family.space import inner

BUDGET: Final = 100  # Hessian-vector products of a reading
PER_START: Final = 20  # products of one start, at most
AGREEING: Final = 4  # starts that end at the same value before the search stops
EIGENVECTOR_SHARE: Final = 3  # v₁ takes at most one in so many products


@final
@dataclass(frozen=True)
class NormMaximum:
    """A lower bound of S_N, with the evidence for it.

    Attributes:
        value: dᵀHd of the witness.
        witness: d with N(d) = 1, [d].
        gap: ⟨Hd, s⟩ − dᵀHd ≥ 0, zero at a local maximum.
        spread: the best value minus the worst of the starts that ended at a local maximum.
        starts: how many.
        floor: λ₁ / N(v₁)² ≤ S_N, from the first Ritz pair.
        bound: of S_N − value, with the failure probability of `lanczos_bound`; infinite where the radius of
            the norm is not known.
        products: of H.
        converged: `AGREEING` starts ended at the best value.
    """

    value: float
    witness: Tensor
    gap: float
    spread: float
    starts: int
    floor: float
    bound: float
    products: int
    converged: bool


def maximize_over_norm(
    hessian: SymmetricOperator,
    norm: Norm,
    starts: Iterable[Tensor],
    *,
    eigen_start: Tensor,
    noise: float = 1.0,
    budget: int = BUDGET,
    rtol: float = 1e-3,
) -> NormMaximum:
    """A lower bound of S_N within a budget of products.

    Args:
        hessian: H on ℝᵈ.
        norm: N.
        starts: vectors [d] of any length, tried one after another; zero vectors are left out.
        eigen_start: of the search for v₁, [d].
        noise: norm of the random part of `eigen_start`, as a share of the whole.
        budget: Hessian-vector products, at least 2.
        rtol: relative gap at which a start ends, and relative difference of equal values.

    Raises:
        ValueError: the budget is below 2, or the norm is not one.
        FloatingPointError: a product is not finite.
    """
    require_budget(budget)
    pairs = top_eigenpairs(
        hessian, eigen_start, rtol=1e-2, max_products=max(1, budget // EIGENVECTOR_SHARE), noise=noise
    )
    products, ends = pairs.products, list[_End]()
    for start in _with(pairs.vectors[0], starts):
        if products >= budget or _agreeing(ends, rtol) >= AGREEING:
            break
        if length := norm_value(norm, start):
            ends.append(_ascend(hessian, norm, start / length, min(PER_START, budget - products), rtol))
            products += ends[-1].products
    best = max(ends, key=lambda end: end.value)
    stationary = [end.value for end in ends if end.stationary] or [best.value]
    top, v1 = pairs.values[0], norm_value(norm, pairs.vectors[0])
    return NormMaximum(
        value=best.value,
        witness=best.witness,
        gap=best.gap,
        spread=best.value - min(stationary),
        starts=len(ends),
        floor=top / v1**2,
        bound=_bound(pairs, norm, best.value),
        products=products,
        converged=_agreeing(ends, rtol) >= AGREEING,
    )


def require_budget(budget: Any) -> int:
    """The budget, checked.

    Raises:
        ValueError: it is no whole number, or below 2.
    """
    if not isinstance(budget, Integral) or budget < 2:
        raise ValueError(f"a generalised sharpness needs a budget of at least 2 products; got {budget!r}.")
    return int(budget)


def norm_value(norm: Norm, step: Tensor) -> float:
    """N(d), checked.

    Raises:
        ValueError: it is negative or not finite, or zero for a step that is not.
    """
    value = norm.value(step)
    if not 0 <= value < math.inf or (not value and bool(step.any())):
        raise ValueError(
            f"{type(norm).__name__} is not a norm: it is {value:.3g} for a step of length "
            f"{float(torch.linalg.vector_norm(step)):.3g}."
        )
    return value


@final
@dataclass(frozen=True)
class _End:
    """Where one start ended."""

    value: float
    witness: Tensor
    gap: float
    products: int
    stationary: bool


def _with(first: Tensor, others: Iterable[Tensor]) -> Iterator[Tensor]:
    yield first
    yield from others


def _agreeing(ends: list[_End], rtol: float) -> int:
    """How many starts ended at the best value."""
    best = max((end.value for end in ends), default=0.0)
    return sum(end.value >= best - rtol * abs(best) for end in ends)


def _ascend(hessian: SymmetricOperator, norm: Norm, v: Tensor, budget: int, rtol: float) -> _End:
    """Frank–Wolfe from v with N(v) = 1, for at most `budget` products."""
    hv, products = hessian @ v, 1
    best, value, gap = v, _quadratic(v, hv), math.inf
    while True:
        s, quadratic = norm.maximizer(hv), _quadratic(v, hv)
        gap = _quadratic(s, hv) - quadratic
        if not math.isfinite(gap):
            raise FloatingPointError("a product with the operator is not finite.")
        stationary = gap <= rtol * abs(quadratic)
        if stationary or products >= budget:
            return _End(value, best, gap, products, stationary)
        hs, products = hessian @ s, products + 1
        bend = _quadratic(s - v, hs - hv)
        share = 1.0 if bend >= 0 else min(1.0, gap / -bend)
        v, hv = v + share * (s - v), hv + share * (hs - hv)
        for point, product in ((s, hs), (v, hv)):
            length = norm_value(norm, point)
            if length and (at := _quadratic(point, product) / length**2) > value:
                best, value = point / length, at


def _quadratic(v: Tensor, product: Tensor) -> float:
    """⟨v, Hv⟩."""
    return float(inner(v[None], product)[0])


def _bound(pairs: Eigenpairs, norm: Norm, value: float) -> float:
    """S_N ≤ λ₁ radius², for λ₁ ≥ 0; a negative definite H has S_N ≤ 0."""
    radius = norm.radius()
    return max(0.0, max(0.0, pairs.values[0] + pairs.bound) * radius**2 - value)
