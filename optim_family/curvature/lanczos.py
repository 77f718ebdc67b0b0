"""The largest eigenvalues of a symmetric operator: thick-restart Lanczos that stops on the value's error.

In an orthonormal basis Q with A Qᵀ = Qᵀ T + β q eᵀ, a Ritz pair (θᵢ, Qᵀsᵢ) has the residual rᵢ = β|sᵢ,last|.
The value converges faster than the vector. With μ a bound of A on the complement of j ≥ i Ritz vectors,

    0 ≤ λᵢ − θᵢ ≤ (r₁² + … + rⱼ²) / (θᵢ − μ),

also inside a cluster. The search estimates μ by θⱼ₊₁ + rⱼ₊₁, so that an estimate counts only after the next
Ritz value has converged. It adds the further growth of θᵢ, extrapolated from the last two rounds; this growth
lasts long while a cluster separates. The estimate can be too small by about the width of a cluster, if the
Krylov space hardly contains one of its members. `lanczos_bound` bounds eigenvalues that the search missed.

Source: K. Wu, H. Simon, "Thick-restart Lanczos method for large symmetric eigenvalue problems", SIAM J.
Matrix Anal. Appl. 22 (2000); B. Parlett, "The Symmetric Eigenvalue Problem" (1998), chapters 10 and 11.
"""

from dataclasses import dataclass, replace
from typing import Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from optim_family.curvature.krylov import KrylovSpace
from optim_family.operators import SymmetricOperator
from optim_family.space import upload

# The search takes at least MIN_PRODUCTS + 2k products, 9 for k = 1: before that an eigenvalue may not appear.
MIN_PRODUCTS = 7

Array = NDArray[np.float64]


@final
@dataclass(frozen=True)
class Eigenpairs:
    """The k largest eigenvalues, largest first, with the evidence for them.

    Attributes:
        values: θ.
        vectors: [k, d], orthonormal rows v.
        residuals: ‖A v − θ v‖.
        errors: bounds of |λ − θ|, if the search missed no eigenvalue near the top.
        bound: of λ₁ − θ₁ for any spectrum, with the failure probability of `lanczos_bound`; or ∞.
        products: number of products with A.
        converged: all errors are below the tolerance.
        sample_products: number of products with a sample of the terms of A.
        sample_share: of all terms, that are in the sample.
        method: the search that gave the values.
        audit: relative difference of the two searches, where both were made.
    """

    values: tuple[float, ...]
    vectors: Tensor
    residuals: tuple[float, ...]
    errors: tuple[float, ...]
    bound: float
    products: int
    converged: bool
    sample_products: int = 0
    sample_share: float = 0.0
    method: Literal["lanczos", "sampled"] = "lanczos"
    audit: float | None = None


def top_eigenpairs(
    operator: SymmetricOperator,
    start: Tensor,
    *,
    k: int = 1,
    rtol: float = 1e-3,
    max_products: int = 200,
    basis_size: int = 24,
    noise: float = 1.0,
) -> Eigenpairs:
    """The k most positive eigenvalues of A, each to the relative accuracy rtol.

    Args:
        operator: the symmetric map A on ℝᵈ.
        start: first vector of the Krylov space, [d]; add noise to a vector that lies near some eigenvectors,
            or the search misses larger eigenvalues orthogonal to it.
        k: number of eigenvalues with multiplicity, at most d; for k > 1 further searches find multiple ones.
        rtol: the search stops when every error is below rtol · |θ|.
        max_products: the search stops after this number of products, with `converged=False`.
        basis_size: vectors before a restart; memory is about basis_size · d numbers.
        noise: norm of the isotropic random part of start, as a share of the whole; the bound depends on it.

    Raises:
        ValueError: k is not between 1 and d, or start is zero or not finite.
        NotSymmetric: the products are not those of one symmetric operator.
        FloatingPointError: a product is not finite.
    """
    if not 1 <= k <= operator.dim:
        raise ValueError(f"k must be between 1 and the dimension {operator.dim}; got {k}.")
    pairs = _search(operator, start, k, rtol, max_products, basis_size, noise)
    for seed in range(k):
        if k == 1 or not pairs.converged or pairs.products >= max_products or k == operator.dim:
            break
        # The Krylov space of one vector contains one eigenvector of a multiple eigenvalue; that of another
        # vector contains the next.
        generator = torch.Generator(start.device).manual_seed(seed)
        noise_start = torch.randn(start.shape, generator=generator, dtype=start.dtype, device=start.device)
        deflated = _DeflatedOperator(operator, pairs)
        other = _search(deflated, noise_start, 1, rtol, max_products - pairs.products, basis_size, 1.0)
        is_new = other.values[0] > pairs.values[-1] + max(pairs.errors[-1], rtol * abs(pairs.values[-1]))
        pairs = _merge_eigenpairs(pairs, other, k, is_new)
        if not is_new:
            break
    return pairs


@final
class _DeflatedOperator(SymmetricOperator):
    """A with the known eigenvalues shifted below all others: its largest eigenvalue is the next one of A."""

    def __init__(self, operator: SymmetricOperator, pairs: Eigenpairs) -> None:
        self.operator, self.dim, self.vectors = operator, operator.dim, pairs.vectors
        c = 2 * max(map(abs, pairs.values))
        shifts = torch.tensor([value + c for value in pairs.values]).to(pairs.vectors.dtype)
        self.shifts = upload(shifts, pairs.vectors.device)

    @property
    def machine_epsilon(self) -> float:
        """That of A."""
        return self.operator.machine_epsilon

    def apply(self, v: Tensor) -> Tensor:
        """(A − Σ (λᵢ + c) vᵢvᵢᵀ) v."""
        return torch.addmv(self.operator @ v, self.vectors.T, self.shifts * (self.vectors @ v), alpha=-1)


def _merge_eigenpairs(pairs: Eigenpairs, other: Eigenpairs, k: int, is_new: bool) -> Eigenpairs:
    """The k largest of both; if the other one is not new, only its products are added."""
    products, converged = pairs.products + other.products, pairs.converged and other.converged
    if not is_new:
        return replace(pairs, products=products, converged=converged)
    values, residuals = pairs.values + other.values, pairs.residuals + other.residuals
    order = sorted(range(len(values)), key=lambda i: -values[i])[:k]
    errors = pairs.errors + other.errors
    return Eigenpairs(
        values=tuple(values[i] for i in order),
        vectors=torch.cat([pairs.vectors, other.vectors])[order],
        residuals=tuple(residuals[i] for i in order),
        errors=tuple(errors[i] for i in order),
        bound=pairs.bound,
        products=products,
        converged=converged,
    )


def _search(
    operator: SymmetricOperator,
    start: Tensor,
    k: int,
    rtol: float,
    max_products: int,
    basis_size: int,
    noise: float,
) -> Eigenpairs:
    """The k largest eigenvalues in the Krylov space of one vector."""
    krylov = KrylovSpace(operator, start, min(max(basis_size, 3 * k + 4), operator.dim), noise)
    before = last = np.full(k, -np.inf)  # Ritz values of the last two rounds
    for products in range(1, max(max_products, k) + 1):
        krylov.expand()
        theta, vectors = krylov.ritz()
        residuals = krylov.beta * np.abs(vectors[-1])
        noise_floor = krylov.rounding + krylov.asymmetry
        errors = value_errors(theta, residuals)[:k] + noise_floor
        if not krylov.complete:  # the space may not contain a whole cluster yet
            errors += _expected_growth(theta[:k], last[: len(theta)], before[: len(theta)], krylov.rounding)
        converged = bool(np.all(errors <= np.maximum(rtol * np.abs(theta[:k]), 2 * noise_floor)))
        enough = krylov.complete or products >= MIN_PRODUCTS + 2 * k
        finished = converged and enough and len(theta) >= k and krylov.bound_is_tight(theta[0], products)
        if finished or products >= max(max_products, k):
            break
        before, last = last, np.append(theta[:k], np.full(max(0, k - len(theta)), -np.inf))
        krylov.restart_if_full(k)
    if krylov.asymmetry or krylov.eps > torch.finfo(torch.float32).eps:
        finished = finished and bool(np.all(errors <= rtol * np.abs(theta[:k])))
    scale = krylov.scale
    return Eigenpairs(
        values=tuple((theta[:k] / scale).tolist()),
        vectors=krylov.to_full_space(vectors[:, :k]),
        residuals=tuple((residuals[:k] / scale).tolist()),
        errors=tuple((errors / scale).tolist()),
        bound=float(max(0.0, krylov.upper_bound() - theta[0]) + krylov.rounding) / scale,
        products=products + krylov.extra_products,
        converged=finished,
    )


def value_errors(theta: Array, residuals: Array) -> Array:
    """Bounds of λᵢ − θᵢ, [m]: the least over j, and at most rᵢ.

    Args:
        theta: all Ritz values, largest first, [m].
        residuals: their residuals rᵢ, [m].
    """
    squares = np.cumsum(residuals**2)[:-1]  #                       r₁² + … + rⱼ² for j < m, [m − 1]
    gaps = theta[:, None] - (theta + residuals)[None, 1:]  #                        [i, j], [m, m − 1]
    useful = (gaps > 0) & (np.arange(len(theta))[:, None] <= np.arange(len(squares)))
    bounds = np.divide(squares, gaps, out=np.full_like(gaps, np.inf), where=useful)
    best: Array = np.minimum(residuals, bounds.min(axis=1, initial=np.inf))
    return best


def _expected_growth(theta: Array, last: Array, before: Array, rounding: float) -> Array:
    """max(g, g f/(1−f)): the growth g of this round, or its geometric extrapolation with ratio f."""
    with np.errstate(invalid="ignore", divide="ignore"):
        now, previous = theta - last, last - before
        ratio = np.nan_to_num(now / previous, nan=0.0)
        to_come = np.where(ratio < 1, ratio / (1 - ratio), np.inf)
        grown: Array = np.where(now <= rounding, np.abs(now), now * np.maximum(1.0, to_come))
    return grown
