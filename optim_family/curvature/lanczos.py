"""The largest eigenvalues of a symmetric operator: thick-restart Lanczos that stops on the value's error.

In an orthonormal basis Q with A Qᵀ = Qᵀ T + β q eᵀ, a Ritz pair (θᵢ, Qᵀsᵢ) has the residual rᵢ = β|sᵢ,last|.
The value is far better than the vector. For every j ≥ i, with μ above A on all but the first j Ritz vectors,

    0 ≤ λᵢ − θᵢ ≤ (r₁² + … + rⱼ²) / (θᵢ − μ),

clustered values included. μ is not known; θⱼ₊₁ + rⱼ₊₁ is taken for it, so that an estimate counts only once
the Ritz value below it has been resolved. To this comes the growth of θᵢ that its last two rounds let expect,
long where a cluster is still being separated. A member that the Krylov space has hardly met can break the
estimate, by about the width of the cluster. What it could have missed is said by a bound of its own, from
`lanczos_bound`.

If A is symmetric, and the same in every product, A q_j has components along q_{j−1}, q_j and q_{j+1} only.
The others and the difference of the two values of T_{j−1,j}, are computed anyway: they show one that is not.

Source: K. Wu, H. Simon, "Thick-restart Lanczos method for large symmetric eigenvalue problems", SIAM J.
Matrix Anal. Appl. 22 (2000); B. Parlett, "The Symmetric Eigenvalue Problem" (1998), chapters 10 and 11.
"""

import math
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from optim_family.curvature import lanczos_bound
from optim_family.operators import SymmetricOperator
from optim_family.space import inner, norm

# With fewer products than this and two more for each further value, an eigenvalue may not have shown at all.
MIN_PRODUCTS = 7

# Asymmetry of the products, as a share of the largest one, that is refused; a smaller one enters the error.
# Good products show some 1e-7 in float32, 1e-3 in a metric that stretches their rounding, wrong ones 0.02.
ASYMMETRY = 0.01
# So many times the rounding of products, seen where they should be linear, explains an asymmetry: it is large
# in a metric that stretches it, or where batch normalisation divides by nearly nothing.
EXPLAINED = 10.0

# The bound, as a share of the value, at which a search may stop: residuals are small long before a start with
# next to nothing of the first eigenvector meets it. Restarts keep the bound from falling: then so many.
LOOSE_BOUND, LOOKED_AROUND = 0.05, 30

Array = NDArray[np.float64]


@final
class NotSymmetric(ValueError):
    """The products contradict each other: they are not those of one symmetric operator."""


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
    krylov = _Krylov(operator, start, min(max(basis_size, 3 * k + 4), operator.dim), noise)
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


@final
class _Krylov:
    """Remembers the basis Q [m, d], the projection T = Q A Qᵀ [m, m] and the next direction."""

    def __init__(self, operator: SymmetricOperator, start: Tensor, size: int, noise: float) -> None:
        start = start.detach()
        length = float(norm(start))
        if not 0 < length < float("inf"):
            raise ValueError(f"the start vector has norm {length}; it must be finite and above zero.")
        self.operator, self.size, self.filled = operator, size, 0
        self.component = lanczos_bound.least_component(operator.dim, noise)
        self.known_bound: float | None = None  # from when the projection was last tridiagonal
        self.basis = start.new_empty(size + 1, operator.dim)
        torch.div(start, length, out=self.basis[0])
        self.projection = np.zeros((size, size))
        self.rest, self.beta = torch.empty_like(start), 0.0
        self.rounding = 0.0  # the error that rounding alone can make
        self.asymmetry = 0.0  # the largest component that should have vanished
        self.explained = 0.0  # asymmetry up to which rounding is known to make it
        self.chained = False  # the next direction is the remainder of the last product alone
        self.eps = max(torch.finfo(self.basis.dtype).eps, operator.unit_roundoff)
        self.gain, self.wasted = 1.0, 0  # A is multiplied by gain; products that only served to find it

    def expand(self) -> None:
        """One product: A q = Qᵀ t + β q₊, orthogonalised against what it meets most, then against all."""
        j = self.filled
        seen = self.basis[: j + 1]  #                                                   [j + 1, d]
        met = slice(max(j - 1, 0), j + 1)  # but for rounding and restarts, t has no other entries
        product = self._product(self.basis[j])
        column = inner(seen[met], product)
        # In place: a new [d] costs more.
        torch.addmv(product, seen[met].T, column.to(product.dtype), alpha=-1, out=self.rest)
        again = inner(seen, self.rest)
        self.rest.addmv_(seen.T, again.to(product.dtype), alpha=-1)
        numbers = torch.cat([again, column, norm(self.rest)[None]])
        values = np.array(numbers.tolist())  # the one wait for the device
        entries, before, beta = values[: j + 1], self.beta, float(values[-1])
        vanishing = np.abs(entries[: met.start])
        entries[met] += values[j + 1 : -1]
        self.projection[: j + 1, j] = self.projection[j, : j + 1] = entries
        if not np.isfinite(values).all():
            raise FloatingPointError("a product with the operator is not finite.")
        self.filled, self.beta = j + 1, beta
        scale = float(np.abs(self.projection[: self.filled, : self.filled]).max())
        self.rounding = 32 * self.eps * scale
        if self.chained:
            twice = abs(entries[j - 1] - before)  # T_{j−1,j}, computed from either side
            self._judge_symmetry(max(twice, vanishing.max(initial=0.0)), max(scale, beta))
        self.chained = True

    def _product(self, v: Tensor) -> Tensor:
        """gain · A v; the first one chooses the gain, so that sums stay within the format's range."""
        product = (self.operator @ (v if self.gain == 1.0 else v * self.gain)).detach()
        if self.filled or product.isnan().any():
            return product
        limits, size = torch.finfo(product.dtype), float(norm(product))
        if limits.tiny / limits.eps**1.5 < size < limits.max * limits.eps**1.5:
            return product
        # A power of two, which changes no digit; for a product that vanished or overflowed a guess.
        exponent = -math.log2(size) if 0 < size < math.inf else 60.0 if size == 0 else -60.0
        self.gain, self.wasted = 2.0 ** round(min(max(exponent, -100.0), 100.0)), 1
        scaled = (self.operator @ (v * self.gain)).detach()
        if size == 0.0 and not scaled.any():
            self.gain = 1.0
        return scaled

    def _judge_symmetry(self, asymmetry: float, scale: float) -> None:
        """Take the asymmetry into the error, or refuse it where rounding does not explain it."""
        if asymmetry > 32 * self.eps * scale:
            self.asymmetry = max(self.asymmetry, asymmetry)
        if asymmetry > max(ASYMMETRY * scale, 2 * self.explained):
            self.explained = EXPLAINED * self._nonlinearity()
            if asymmetry > self.explained:
                raise NotSymmetric(
                    f"the products contradict each other by {asymmetry / scale:.1g} of their size: they are "
                    "not those of one symmetric operator"
                )

    def _nonlinearity(self) -> float:
        """‖A(u + v) − Au − Av‖ for the last two directions, zero but for rounding: three products."""
        u, v = self.basis[self.filled - 2], self.basis[self.filled - 1]
        self.wasted += 3
        apart = self._product(u) + self._product(v)
        return float(norm(self._product(u + v) - apart))

    @property
    def complete(self) -> bool:
        """The space is invariant under A: its Ritz values are eigenvalues."""
        return self.filled == self.operator.dim or self.beta <= self.rounding

    def has_looked_around(self, theta: float, products: int) -> bool:
        """λ₁ exceeds θ by a few per cent at most, whatever the spectrum; or many products have been taken."""
        if self.complete or products >= LOOKED_AROUND:
            return True
        return bool(self.upper_bound() - theta <= LOOSE_BOUND * abs(theta))

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
        self.rest, self.beta, self.chained = fresh, float(norm(fresh)), False

    def _restart(self, keep: int) -> None:
        """Keep the best Ritz vectors and the next direction."""
        self.known_bound = self.upper_bound()
        theta, vectors = self.ritz()
        self.basis[:keep] = self.to_full_space(vectors[:, :keep])
        self.projection[:] = 0.0
        self.projection[:keep, :keep] = np.diag(theta[:keep])
        self.filled, self.chained = keep, False
