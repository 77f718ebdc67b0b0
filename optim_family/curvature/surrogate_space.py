"""A surrogate of an expensive operator, exact where products are known, within the span of a few vectors.

A is the operator, B a cheap one that resembles it. Q spans the vectors whose products Y = A Q are known, and
𝒫 projects onto Q. Of all symmetric maps that agree with A on Q, the one nearest to αB is

    Ã = 𝒫A + A𝒫 − 𝒫A𝒫 + α (I − 𝒫) B (I − 𝒫).

Where the quadratic form of A − B off Q is at most s, A is below Ã + s (I − 𝒫) at α = 1. Both are projected on
the span of Z, which contains Q; this takes no further product, since B Z is stored.

Source: M. Powell, "A new algorithm for unconstrained optimization" (1970), for the least-change symmetric
secant update; R. Morgan, D. Scott, "Generalizations of Davidson's method for computing eigenvalues of sparse
symmetric matrices", SIAM J. Sci. Stat. Comput. 7 (1986).
"""

from typing import Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from optim_family.operators import SymmetricOperator, require_finite_products
from optim_family.space import inner, norm

# A sample inflates the largest eigenvalues; α, the fit of A by αB on Q, is kept within these limits.
SMALLEST_FACTOR: Final = 0.2
# A vector of which less than this share lies outside the span is rounding.
NEGLIGIBLE: Final = 1e-5

Array = NDArray[np.float64]


@final
class SurrogateSpace:
    """Remembers Z [p, d], B Z, Q and Y [k, d] in the coordinates of Z, and the projection of B.

    Args:
        cheap: B.
        size: the most vectors of Z.
        known: the most vectors of Q.
        like: a vector [d] of the dtype and on the device of the others.
    """

    def __init__(self, cheap: SymmetricOperator, size: int, known: int, like: Tensor) -> None:
        self.cheap, self.size, self.filled, self.known = cheap, size, 0, 0
        self.basis, self.images = like.new_empty(2, size, like.numel())  #                       Z, B Z
        self.projection = np.zeros((size, size))  #                                              Z B Zᵀ
        self.products = like.new_empty(known, like.numel())  #                                   Y
        self.coordinates = np.zeros((size, known))  #                                            Z Qᵀ
        self.couplings = np.zeros((size, known))  #                                              Z Yᵀ
        self.factor = 1.0  # α

    @property
    def asymmetry(self) -> float:
        """Of Q A Qᵀ as computed: the largest difference to the transpose, over the largest entry."""
        exact = self._exact_projection()
        return float(np.abs(exact - exact.T).max() / (np.abs(exact).max() or 1.0))

    def _exact_projection(self) -> Array:
        """Q A Qᵀ, [k, k]."""
        known = self.coordinates[: self.filled, : self.known]
        return known.T @ self.couplings[: self.filled, : self.known]

    def expand(self, v: Tensor) -> float:
        """Add the direction of v off the span, [d], with one product of B; returns its norm off the span."""
        length = float(norm(v))
        rest = v / length
        for _ in range(2):
            basis = self.basis[: self.filled]
            rest = torch.addmv(rest, basis.T, inner(basis, rest).to(rest.dtype), alpha=-1)
        left = float(norm(rest))
        if not left > NEGLIGIBLE:
            require_finite_products(left)
            return 0.0
        p = self.filled
        self.basis[p] = rest / left
        self.basis[p] -= self.basis[:p].T @ inner(self.basis[:p], self.basis[p]).to(rest.dtype)
        self.images[p] = (self.cheap @ self.basis[p]).detach()
        entries = inner(self.basis[: p + 1], self.images[p]).cpu().numpy()
        require_finite_products(entries)
        self.projection[: p + 1, p] = self.projection[p, : p + 1] = entries
        self.couplings[p, : self.known] = inner(self.products[: self.known], self.basis[p]).cpu().numpy()
        self.filled = p + 1
        return left * length

    def off_known(self, coordinates: Array) -> Array:
        """(I − 𝒫) of a vector of the span, in coordinates [p]."""
        known = self.coordinates[: self.filled, : self.known]
        return coordinates - known @ (known.T @ coordinates)

    def direction(self, coordinates: Array) -> Array:
        """The part of a vector of the span that is orthogonal to Q, of norm 1, in coordinates [p]."""
        rest = np.zeros(self.filled)
        rest[: len(coordinates)] = coordinates
        rest = self.off_known(self.off_known(rest))
        unit: Array = rest / np.linalg.norm(rest)
        return unit

    def learn(self, coordinates: Array, product: Tensor) -> float:
        """Add a vector to Q, given by `direction`, and its product with A [d]; fits α.

        Returns:
            ‖(I − 𝒫)(A − αB) q‖ for this vector q.
        """
        p, k = self.filled, self.known
        self.coordinates[:p, k], self.products[k] = coordinates, product
        self.couplings[:p, k] = inner(self.basis[:p], product).cpu().numpy()
        self.known = k + 1
        images = self._combine(self.images, self.coordinates[:p, : k + 1])  #                     B Q
        square = float(norm(images.flatten())) ** 2
        fit = float((images * self.products[: k + 1]).sum(dtype=torch.float64)) / (square or 1.0)
        self.factor = min(1.0, max(SMALLEST_FACTOR, fit))
        difference = product - self.factor * images[k]
        q = self.vectors(self.coordinates[:p, : k + 1])
        return float(norm(difference - inner(q, difference).to(q.dtype) @ q))

    def exact(self) -> tuple[Array, Array]:
        """Q A Qᵀ's eigenvalues, largest first [k], and its eigenvectors in the coordinates of Z [p, k]."""
        known = self.coordinates[: self.filled, : self.known]
        projection = self._exact_projection()
        values, vectors = np.linalg.eigh((projection + projection.T) / 2)
        return values[::-1].copy(), known @ vectors[:, ::-1]

    def ritz(self, factor: float, shift: float = 0.0) -> tuple[Array, Array]:
        """Eigenvalues of Ã + s (I − 𝒫) projected on the span, largest first [p], and coordinates [p, p]."""
        p, known = self.filled, self.coordinates[: self.filled, : self.known]
        off = np.eye(p) - known @ known.T
        coupling = off @ self.couplings[:p, : self.known] @ known.T
        projected = known @ self._exact_projection() @ known.T + coupling + coupling.T
        projected = projected + off @ (factor * self.projection[:p, :p]) @ off + shift * off
        values, vectors = np.linalg.eigh((projected + projected.T) / 2)
        return values[::-1].copy(), vectors[:, ::-1].copy()

    def residuals(self, values: Array, coordinates: Array, factor: float, shift: float = 0.0) -> Tensor:
        """(Ã + s (I − 𝒫)) x − θ x for pairs of `ritz`, from θ [m] and coordinates [p, m]; [m, d]."""
        p, known = self.filled, self.coordinates[: self.filled, : self.known]
        on = known.T @ coordinates  #                                                            [k, m]
        off = coordinates - known @ on
        image = factor * self._combine(self.images, off)
        q = self._combine(self.basis, known)
        image -= (image @ q.T) @ q
        image += torch.from_numpy(np.ascontiguousarray(on.T)).to(image) @ self.products[: self.known]
        in_span = known @ (self.couplings[:p, : self.known].T @ off) + shift * off - coordinates * values
        return image + self._combine(self.basis, in_span)

    def vectors(self, coordinates: Array) -> Tensor:
        """Vectors of ℝᵈ from coordinates [p, m]; [m, d]."""
        return self._combine(self.basis, coordinates)

    def residual_of_exact(self, value: float, coordinates: Array) -> float:
        """‖A x − θ x‖ for a pair of `exact`."""
        on = self.coordinates[: self.filled, : self.known].T @ coordinates
        image = torch.from_numpy(on).to(self.products) @ self.products[: self.known]
        return float(norm(image - value * self.vectors(coordinates[:, None])[0]))

    def _combine(self, rows: Tensor, weights: Array) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(weights.T)).to(rows) @ rows[: self.filled]
