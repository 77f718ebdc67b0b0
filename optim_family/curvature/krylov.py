"""The Krylov space of an operator: an orthonormal basis, the projection, and a test of symmetry.

If A is symmetric and deterministic, A q_j has components along q_{j−1}, q_j and q_{j+1} only. The expansion
computes the other components and both values of T_{j−1,j} anyway: they measure the asymmetry of A.

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
from optim_family.operators import SymmetricOperator, require_finite_products
from optim_family.space import inner, norm, upload

# The largest relative asymmetry of products; the error of the values includes a smaller one. Correct products
# have about 1e-7 in float32, and 1e-3 in a metric that amplifies rounding; wrong ones have 0.02.
ASYMMETRY = 0.01
# An asymmetry up to this multiple of the measured nonlinearity is rounding. Rounding is large in a metric
# that amplifies it, or where batch normalisation divides by a variance near zero.
ROUNDING_FACTOR = 10.0

# The search continues until the bound is within this share of the value: residuals are small long before a
# start nearly orthogonal to the first eigenvector meets it. A restart freezes the bound: hence the limit.
BOUND_RTOL, MAX_PRODUCTS_FOR_BOUND = 0.05, 30

Array = NDArray[np.float64]


@final
class NotSymmetric(ValueError):
    """The products contradict each other: no symmetric operator has them."""


@final
class KrylovSpace:
    """Remembers the basis Q [m, d], the projection T = Q A Qᵀ [m, m] and the next direction."""

    def __init__(self, operator: SymmetricOperator, start: Tensor, size: int, noise: float) -> None:
        start = start.detach()
        self.operator, self.size, self.filled = operator, size, 0
        self.start_norm = norm(start)  # read with the first product
        self.component = lanczos_bound.least_component(operator.dim, noise)
        self.known_bound: float | None = None  # of the last projection that was tridiagonal
        self.basis = start.new_empty(size + 1, operator.dim)
        torch.div(start, self.start_norm, out=self.basis[0])
        self.projection = np.zeros((size, size))
        self.rest, self.beta = torch.empty_like(start), 0.0
        self.rounding = 0.0  # bound of the error that rounding causes in a Ritz value
        self.asymmetry = 0.0  # the largest component that is zero for a symmetric operator
        self.rounding_asymmetry = 0.0  # bound of the asymmetry that rounding causes, as measured
        self.is_tridiagonal_step = False  # the next direction is the remainder of the last product
        self.eps = max(torch.finfo(self.basis.dtype).eps, operator.machine_epsilon)
        self.scale, self.extra_products = (
            1.0,
            0,
        )  # the operator is scale · A; products that add no basis vector

    def expand(self) -> None:
        """One product, A q = Qᵀ t + β q₊: orthogonalise it against the last two vectors, then against all."""
        j = self.filled
        basis = self.basis[: j + 1]  #                                                  [j + 1, d]
        last_two = slice(max(j - 1, 0), j + 1)  # except for rounding and restarts, t has no other entries
        product = self._product(self.basis[j])
        column = inner(basis[last_two], product)
        # In place: a new [d] costs more.
        torch.addmv(product, basis[last_two].T, column.to(product.dtype), alpha=-1, out=self.rest)
        correction = inner(basis, self.rest)
        self.rest.addmv_(basis.T, correction.to(product.dtype), alpha=-1)
        sizes = [norm(self.rest)] if j else [self.start_norm, norm(product), norm(self.rest)]
        numbers = torch.cat([correction, column, torch.stack(sizes)])
        values = np.array(numbers.tolist())  # the only synchronisation with the device
        if j == 0:
            self._require_start(values[2])
            if self._changes_scale(values[3]):
                return self.expand()
            values = np.delete(values, [2, 3])
        entries, previous_beta, beta = values[: j + 1], self.beta, float(values[-1])
        vanishing = np.abs(entries[: last_two.start])
        entries[last_two] += values[j + 1 : -1]
        self.projection[: j + 1, j] = self.projection[j, : j + 1] = entries
        require_finite_products(values)
        self.filled, self.beta = j + 1, beta
        magnitude = float(np.abs(self.projection[: self.filled, : self.filled]).max())
        self.rounding = 32 * self.eps * magnitude
        if self.is_tridiagonal_step:
            difference = abs(entries[j - 1] - previous_beta)  # T_{j−1,j} − T_{j,j−1}
            self._check_symmetry(max(difference, vanishing.max(initial=0.0)), max(magnitude, beta))
        self.is_tridiagonal_step = True

    def _product(self, v: Tensor) -> Tensor:
        """scale · A v."""
        return (self.operator @ (v if self.scale == 1.0 else v * self.scale)).detach()

    def _require_start(self, length: float) -> None:
        if not 0 < length < math.inf:
            raise ValueError(f"the start vector has norm {length}; it must be finite and above zero.")

    def _changes_scale(self, size: float) -> bool:
        """Choose, by the norm of the first product, the scale that keeps sums within the format's range.

        Returns whether it is another one, so that the product has to be repeated.
        """
        limits = torch.finfo(self.basis.dtype)
        in_range = limits.tiny / limits.eps**1.5 < size < limits.max * limits.eps**1.5
        if in_range or math.isnan(size) or self.extra_products:
            return False
        # A power of two changes no digit. For a product of zero or infinity it is a guess.
        exponent = -math.log2(size) if 0 < size < math.inf else 60.0 if size == 0 else -60.0
        self.scale, self.extra_products = 2.0 ** round(min(max(exponent, -100.0), 100.0)), 1
        if size == 0.0 and not self._product(self.basis[0]).any():
            self.scale = 1.0
            return False
        self.extra_products += size == 0.0
        return True

    def _check_symmetry(self, asymmetry: float, magnitude: float) -> None:
        """Add the asymmetry to the error; raise NotSymmetric if it is large and rounding is not the cause."""
        if asymmetry > 32 * self.eps * magnitude:
            self.asymmetry = max(self.asymmetry, asymmetry)
        if asymmetry > max(ASYMMETRY * magnitude, 2 * self.rounding_asymmetry):
            self.rounding_asymmetry = ROUNDING_FACTOR * self._nonlinearity()
            if asymmetry > self.rounding_asymmetry:
                raise NotSymmetric(
                    f"the products contradict each other by {asymmetry / magnitude:.1g} of their size: they "
                    "are not those of one symmetric operator"
                )

    def _nonlinearity(self) -> float:
        """‖A(u + v) − Au − Av‖ for the last two directions, which only rounding makes nonzero: 3 products."""
        u, v = self.basis[self.filled - 2], self.basis[self.filled - 1]
        self.extra_products += 3
        separate = self._product(u) + self._product(v)
        return float(norm(self._product(u + v) - separate))

    @property
    def complete(self) -> bool:
        """The space is invariant under A: its Ritz values are eigenvalues."""
        return self.filled == self.operator.dim or self.beta <= self.rounding

    def bound_is_tight(self, theta: float, products: int) -> bool:
        """λ₁ − θ ≤ BOUND_RTOL |θ| for any spectrum; always true after MAX_PRODUCTS_FOR_BOUND products."""
        if self.complete or products >= MAX_PRODUCTS_FOR_BOUND:
            return True
        return bool(self.upper_bound() - theta <= BOUND_RTOL * abs(theta))

    def upper_bound(self) -> float:
        """A bound of λ₁; after a restart, the one of the last tridiagonal projection."""
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
        weights = torch.from_numpy(coordinates.T.copy()).to(self.basis.dtype)
        return upload(weights, self.basis.device) @ self.basis[: self.filled]

    def restart_if_full(self, k: int) -> None:
        """Append the next direction to the basis; restart first if the basis is full."""
        if self.complete and self.filled < self.operator.dim:
            self._escape_invariant_subspace()
        if self.filled == self.size:
            self._restart(min(k + self.size // 4, self.size - 1))
        torch.div(self.rest, self.beta, out=self.basis[self.filled])

    def _escape_invariant_subspace(self) -> None:
        """Continue with a direction orthogonal to the invariant space."""
        self.known_bound = self.upper_bound()
        basis = self.basis[: self.filled]
        direction = torch.zeros_like(self.rest)
        direction[int(torch.linalg.vector_norm(basis, dim=0).argmin())] = (
            1.0  # the axis farthest from the space
        )
        for _ in range(2):
            direction = torch.addmv(direction, basis.T, basis @ direction, alpha=-1)
        self.rest, self.beta, self.is_tridiagonal_step = direction, float(norm(direction)), False

    def _restart(self, keep: int) -> None:
        """Keep the best Ritz vectors and the next direction."""
        self.known_bound = self.upper_bound()
        theta, vectors = self.ritz()
        self.basis[:keep] = self.to_full_space(vectors[:, :keep])
        self.projection[:] = 0.0
        self.projection[:keep, :keep] = np.diag(theta[:keep])
        self.filled, self.is_tridiagonal_step = keep, False
