"""The largest eigenvalues of a symmetric operator: thick-restart Lanczos that stops on the value's error.

In an orthonormal basis Q with A Qᵀ = Qᵀ T + β q eᵀ, a Ritz pair (θᵢ, Qᵀsᵢ) has the residual rᵢ = β|sᵢ,last|.
The value is far better than the vector. For every j ≥ i, with μ above A on all but the first j Ritz vectors,

    0 ≤ λᵢ − θᵢ ≤ (r₁² + … + rⱼ²) / (θᵢ − μ),

clustered values included. μ is not known; θⱼ₊₁ + rⱼ₊₁ is taken for it, so that an estimate counts only once
the Ritz value below it has been resolved. To this comes the growth of θᵢ that its last two rounds let expect,
long where a cluster is still being separated. A member that the Krylov space has hardly met can break the
estimate, by about the width of the cluster. What it could have missed is said by a bound of its own, from
`lanczos_bound`.

Source: K. Wu, H. Simon, "Thick-restart Lanczos method for large symmetric eigenvalue problems", SIAM J.
Matrix Anal. Appl. 22 (2000); B. Parlett, "The Symmetric Eigenvalue Problem" (1998), chapters 10 and 11.
"""

from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from optim_family.curvature.krylov import KrylovSpace
from optim_family.operators import SymmetricOperator

# With fewer products than this and two more for each further value, an eigenvalue may not have shown at all.
MIN_PRODUCTS = 7

Array = NDArray[np.float64]


@final
@dataclass(frozen=True)
class Eigenpairs:
    """The k largest eigenvalues, largest first, with the evidence for them."""

    values: tuple[float, ...]
    vectors: Tensor  #                                                            [k, d], orthonormal
    residuals: tuple[float, ...]  # ‖A v − θ v‖
    errors: tuple[float, ...]  # |λ − θ| at most, if no eigenvalue near the top has been missed
    bound: float  # λ₁ − θ₁ at most, whatever the spectrum, but for the risk of `lanczos_bound`
    products: int
    converged: bool


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
        start: where the Krylov space begins, [d]; mix noise into what is known to lean to some eigenvectors,
            or a larger eigenvalue elsewhere stays unseen.
        k: how many eigenvalues, at most d, multiples counted; for k > 1 a second search looks for copies.
        rtol: stop when every error is below rtol · |θ|.
        max_products: give up after so many products, with `converged=False`.
        basis_size: vectors kept before a restart; memory is about basis_size · d numbers.
        noise: norm of the isotropic random part of start, as a share of the whole; the bound rests on it.

    Raises:
        ValueError: k is not between 1 and d, or start is zero or not finite.
        NotSymmetric: the products are not those of one symmetric operator.
        FloatingPointError: a product is not finite.
    """
    if not 1 <= k <= operator.dim:
        raise ValueError(f"k must be between 1 and the dimension {operator.dim}; got {k}.")
    pairs = _search(operator, start, k, rtol, max_products, basis_size, noise)
    for turn in range(k):
        if k == 1 or not pairs.converged or pairs.products >= max_products or k == operator.dim:
            break
        # One space from one vector meets one copy of an exact multiple: another vector meets the next.
        generator = torch.Generator(start.device).manual_seed(turn)
        fresh = torch.randn(start.shape, generator=generator, dtype=start.dtype, device=start.device)
        rest = _Lowered(operator, pairs)
        other = _search(rest, fresh, 1, rtol, max_products - pairs.products, basis_size, 1.0)
        known = other.values[0] <= pairs.values[-1] + max(pairs.errors[-1], rtol * abs(pairs.values[-1]))
        pairs = _merged(pairs, other, k, known)
        if known:
            break
    return pairs


@final
class _Lowered(SymmetricOperator):
    """A with the known eigenvalues moved below all others, so that its largest one is the next."""

    def __init__(self, operator: SymmetricOperator, pairs: Eigenpairs) -> None:
        self.operator, self.dim, self.vectors = operator, operator.dim, pairs.vectors
        size = 2 * max(map(abs, pairs.values))
        self.by = torch.tensor([value + size for value in pairs.values]).to(pairs.vectors)

    @property
    def unit_roundoff(self) -> float:
        """That of A."""
        return self.operator.unit_roundoff

    def apply(self, v: Tensor) -> Tensor:
        """(A − Σ (λᵢ + c) vᵢvᵢᵀ) v."""
        return torch.addmv(self.operator @ v, self.vectors.T, self.by * (self.vectors @ v), alpha=-1)


def _merged(pairs: Eigenpairs, other: Eigenpairs, k: int, known: bool) -> Eigenpairs:
    """The k largest of both; where the other one is known already only its products count."""
    products, converged = pairs.products + other.products, pairs.converged and other.converged
    if known:
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
    """The k largest eigenvalues that the Krylov space of one vector meets."""
    krylov = KrylovSpace(operator, start, min(max(basis_size, 3 * k + 4), operator.dim), noise)
    before = last = np.full(k, -np.inf)  # Ritz values of the last two rounds
    for products in range(1, max(max_products, k) + 1):
        krylov.expand()
        theta, vectors = krylov.ritz()
        residuals = krylov.beta * np.abs(vectors[-1])
        noise_floor = krylov.rounding + krylov.asymmetry
        errors = value_errors(theta, residuals)[:k] + noise_floor
        if not krylov.complete:  # a space that still grows into a cluster has not met all of it
            errors += _expected_growth(theta[:k], last[: len(theta)], before[: len(theta)], krylov.rounding)
        converged = _converged(theta[:k], errors, rtol, noise_floor)
        enough = krylov.complete or products >= MIN_PRODUCTS + 2 * k
        finished = converged and enough and len(theta) >= k and krylov.has_looked_around(theta[0], products)
        if finished or products >= max(max_products, k):
            break
        before, last = last, np.append(theta[:k], np.full(max(0, k - len(theta)), -np.inf))
        krylov.restart_if_full(k)
    if krylov.asymmetry or krylov.eps > torch.finfo(torch.float32).eps:
        finished = finished and bool(np.all(errors <= rtol * np.abs(theta[:k])))
    scale = krylov.gain
    return Eigenpairs(
        values=tuple((theta[:k] / scale).tolist()),
        vectors=krylov.to_full_space(vectors[:, :k]),
        residuals=tuple((residuals[:k] / scale).tolist()),
        errors=tuple((errors / scale).tolist()),
        bound=float(max(0.0, krylov.upper_bound() - theta[0]) + krylov.rounding) / scale,
        products=products + krylov.wasted,
        converged=finished,
    )


def value_errors(theta: Array, residuals: Array) -> Array:
    """How far λᵢ can lie above each Ritz value θᵢ, [m]: the best of the bounds over j, and at most rᵢ.

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
    """The growth g of each value in this round, or g f/(1−f), that to come if its ratio f stays, if more."""
    with np.errstate(invalid="ignore", divide="ignore"):
        now, previous = theta - last, last - before
        ratio = np.nan_to_num(now / previous, nan=0.0)
        to_come = np.where(ratio < 1, ratio / (1 - ratio), np.inf)
        grown: Array = np.where(now <= rounding, np.abs(now), now * np.maximum(1.0, to_come))
    return grown


def _converged(theta: Array, errors: Array, rtol: float, rounding: float) -> bool:
    return bool(np.all(errors <= np.maximum(rtol * np.abs(theta), 2 * rounding)))
