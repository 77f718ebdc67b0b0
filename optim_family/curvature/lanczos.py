"""The largest eigenvalues of a symmetric operator: thick-restart Lanczos that stops on the value's error.

In an orthonormal basis Q with A Qᵀ = Qᵀ T + β q eᵀ, a Ritz pair (θᵢ, Qᵀsᵢ) has the residual rᵢ = β|sᵢ,last|.
The value is far better than the vector. For every j ≥ i, with μ above A on all but the first j Ritz vectors,

    0 ≤ λᵢ − θᵢ ≤ (r₁² + … + rⱼ²) / (θᵢ − μ),

clustered values included. μ is not known; θⱼ₊₁ + rⱼ₊₁ is taken for it, so that an estimate counts only once
the Ritz value below it has been resolved. To this comes the growth of θᵢ that its last two rounds let expect,
long where a cluster is still being separated. A member that the Krylov space has hardly met can break the
estimate, by about the width of the cluster. What it could have missed is said by a bound of its own, from
`certificate`.

Source: K. Wu, H. Simon, "Thick-restart Lanczos method for large symmetric eigenvalue problems", SIAM J.
Matrix Anal. Appl. 22 (2000); B. Parlett, "The Symmetric Eigenvalue Problem" (1998), chapters 10 and 11.
"""

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from optim_family.curvature import lanczos_bound
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
    bound: float  # λ₁ − θ₁ at most, whatever the spectrum, but for the risk of `certificate`
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
        k: how many eigenvalues, at most d; of exact multiples one space from one vector meets one copy.
        rtol: stop when every error is below rtol · |θ|.
        max_products: give up after so many products, with `converged=False`.
        basis_size: vectors kept before a restart; memory is about basis_size · d numbers.
        noise: norm of the isotropic random part of start, as a share of the whole; the bound rests on it.

    Raises:
        ValueError: k is not between 1 and d, or start is zero or not finite.
        FloatingPointError: a product is not finite.
    """
    if not 1 <= k <= operator.dim:
        raise ValueError(f"k must be between 1 and the dimension {operator.dim}; got {k}.")
    krylov = _Krylov(operator, start, min(max(basis_size, 3 * k + 4), operator.dim), noise)
    before = last = np.full(k, -np.inf)  # Ritz values of the last two rounds
    for products in range(1, max(max_products, k) + 1):
        krylov.expand()
        theta, vectors = krylov.ritz()
        residuals = krylov.beta * np.abs(vectors[-1])
        errors = value_errors(theta, residuals)[:k] + krylov.rounding
        if not krylov.complete:  # a space that still grows into a cluster has not met all of it
            errors += _expected_growth(theta[:k], last[: len(theta)], before[: len(theta)], krylov.rounding)
        converged = _converged(theta[:k], errors, rtol, krylov.rounding)
        enough = krylov.complete or products >= MIN_PRODUCTS + 2 * k
        finished = converged and enough and len(theta) >= k
        if finished or products >= max(max_products, k):
            break
        before, last = last, np.append(theta[:k], np.full(max(0, k - len(theta)), -np.inf))
        krylov.restart_if_full(k)
    return Eigenpairs(
        values=tuple(theta[:k].tolist()),
        vectors=krylov.to_full_space(vectors[:, :k]),
        residuals=tuple(residuals[:k].tolist()),
        errors=tuple(errors.tolist()),
        bound=max(0.0, krylov.upper_bound() - theta[0]) + krylov.rounding,
        products=products,
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


@final
class _Krylov:
    """Remembers the basis Q [m, d], the projection T = Q A Qᵀ [m, m] and the next direction."""

    def __init__(self, operator: SymmetricOperator, start: Tensor, size: int, noise: float) -> None:
        start = start.detach()
        norm = float(torch.linalg.vector_norm(start))
        if not 0 < norm < float("inf"):
            raise ValueError(f"the start vector has norm {norm}; it must be finite and above zero.")
        self.operator, self.size, self.filled = operator, size, 0
        self.component = lanczos_bound.least_component(operator.dim, noise)
        self.known_bound: float | None = None  # from when the projection was last tridiagonal
        self.basis = start.new_empty(size + 1, operator.dim)
        torch.div(start, norm, out=self.basis[0])
        self.projection = np.zeros((size, size))
        self.rest, self.beta = torch.empty_like(start), 0.0
        self.rounding = 0.0  # the error that rounding alone can make

    def expand(self) -> None:
        """One product: A q = Qᵀ t + β q₊, orthogonalised against what it meets most, then against all."""
        j = self.filled
        seen = self.basis[: j + 1]  #                                                   [j + 1, d]
        met = slice(max(j - 1, 0), j + 1)  # but for rounding and restarts, t has no other entries
        product = (self.operator @ self.basis[j]).detach()
        column = seen[met] @ product
        torch.addmv(product, seen[met].T, column, alpha=-1, out=self.rest)  # in place: a new [d] costs more
        again = seen @ self.rest
        self.rest.addmv_(seen.T, again, alpha=-1)
        again[met] += column
        numbers = torch.cat([again, torch.linalg.vector_norm(self.rest)[None]])
        *entries, self.beta = numbers.tolist()  # the one wait for the device
        self.projection[: j + 1, j] = self.projection[j, : j + 1] = entries
        if not np.isfinite(self.projection[: j + 1, j]).all() or not np.isfinite(self.beta):
            raise FloatingPointError("a product with the operator is not finite.")
        self.filled = j + 1
        scale = float(np.abs(self.projection[: self.filled, : self.filled]).max())
        self.rounding = 32 * torch.finfo(self.basis.dtype).eps * scale

    @property
    def complete(self) -> bool:
        """The space is invariant under A: its Ritz values are eigenvalues."""
        return self.filled == self.operator.dim or self.beta <= self.rounding

    def upper_bound(self) -> float:
        """What λ₁ does not exceed; the best is known where the projection ceases to be tridiagonal."""
        if self.known_bound is None:
            t = self.projection[: self.filled, : self.filled]
            if self.complete:
                return float(np.linalg.eigvalsh(t)[-1])
            off_diagonal = np.append(np.diag(t, -1), self.beta)
            return lanczos_bound.upper_bound(np.diag(t), off_diagonal, self.component)
        return self.known_bound

    def ritz(self) -> tuple[Array, Array]:
        """Ritz values, largest first [m], and their coordinates in the basis [m, m]."""
        theta, vectors = np.linalg.eigh(self.projection[: self.filled, : self.filled])
        return theta[::-1].copy(), vectors[:, ::-1].copy()

    def to_full_space(self, coordinates: Array) -> Tensor:
        """Vectors of ℝᵈ from coordinates in the basis, [m, k] → [k, d]."""
        weights = torch.from_numpy(coordinates.T.copy()).to(self.basis)
        return weights @ self.basis[: self.filled]

    def restart_if_full(self, k: int) -> None:
        """Make room if the basis is full, and put the next direction into it."""
        if self.complete and self.filled < self.operator.dim:
            self._escape_invariant_subspace()
        if self.filled == self.size:
            self._restart(min(k + self.size // 4, self.size - 1))
        torch.div(self.rest, self.beta, out=self.basis[self.filled])

    def _escape_invariant_subspace(self) -> None:
        """Out of an invariant space: a direction orthogonal to it, uncoupled to it."""
        self.known_bound = self.upper_bound()
        seen = self.basis[: self.filled]
        fresh = torch.zeros_like(self.rest)
        fresh[int(torch.linalg.vector_norm(seen, dim=0).argmin())] = 1.0  # the axis least seen
        for _ in range(2):
            fresh = torch.addmv(fresh, seen.T, seen @ fresh, alpha=-1)
        self.rest, self.beta = fresh, float(torch.linalg.vector_norm(fresh))

    def _restart(self, keep: int) -> None:
        """Keep the best Ritz vectors and the next direction."""
        self.known_bound = self.upper_bound()
        theta, vectors = self.ritz()
        self.basis[:keep] = self.to_full_space(vectors[:, :keep])
        self.projection[:] = 0.0
        self.projection[:keep, :keep] = np.diag(theta[:keep])
        self.filled = keep
