"""The Krylov space of an operator: an orthonormal basis, the projection, and what both tell of the operator.

If A is symmetric, and the same in every product, A q_j has components along q_{j−1}, q_j and q_{j+1} only.
The others and the difference of the two values of T_{j−1,j}, are computed anyway: they show one that is not.

Source: K. Wu, H. Simon, "Thick-restart Lanczos method for large symmetric eigenvalue problems", SIAM J.
Matrix Anal. Appl. 22 (2000).
"""

import math
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from optim_family.curvature import lanczos_bound
from optim_family.operators import SymmetricOperator
from optim_family.space import inner, norm

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
class KrylovSpace:
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
