"""The spectral density as a Gauss quadrature: nodes and weights, means, and the density on a grid.

    φ(t) = 1/d Σⱼ δ(t − λⱼ) ≈ 1/n Σₛ Σᵢ ωₛᵢ N(t; θₛᵢ, σ²)

For a unit vector vₛ, Σᵢ ωₛᵢ f(θₛᵢ) = vₛᵀ f(A) vₛ for every polynomial f of degree up to 2m − 1, where m is
the number of nodes; its mean over random vₛ is tr f(A) / d. This module does not import torch, so that a
stored density can be read and plotted without it.

Source: G. Golub, J. Welsch, "Calculation of Gauss quadrature rules", Math. Comp. 23 (1969).
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, final

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

Array = NDArray[np.float64]


@final
@dataclass(frozen=True, eq=False)
class SpectralDensity:
    """The spectrum of a symmetric operator on ℝᵈ, estimated from n random directions.

    Attributes:
        nodes: θ [n, m], in the unit of the eigenvalues; each row increases.
        weights: ω [n, m], not negative; each row sums to 1.
        dim: d, the number of eigenvalues.
        products: products with the operator.
        seconds: wall time.
    """

    nodes: Array
    weights: Array
    dim: int
    products: int
    seconds: float

    def mean(self, f: Callable[[Array], Array]) -> tuple[Array, Array]:
        """tr f(A) / d and its standard error over the n directions (NaN if n = 1).

        Args:
            f: an elementwise function of an eigenvalue; it maps nodes [n, m] to [..., n, m].

        Returns:
            Two arrays [...].
        """
        each = (self.weights * f(self.nodes)).sum(-1)  #                          [..., n, m] → [..., n]
        n = each.shape[-1]
        error = each.std(-1, ddof=1) / np.sqrt(n) if n > 1 else np.full(each.shape[:-1], np.nan)
        return each.mean(-1), error

    def at(self, grid: Array, width: float | None = None) -> tuple[Array, Array]:
        """φ and its standard error at the points of a grid; in 1 / unit of the eigenvalues, with integral 1.

        Args:
            grid: t, [points].
            width: σ of the Gaussian around each node; None for `self.width`.
        """
        sigma = width or self.width

        def normal(nodes: Array) -> Array:
            z = (grid[:, None, None] - nodes) / sigma  #                                   [points, n, m]
            bell: Array = np.exp(-0.5 * z**2) / (sigma * np.sqrt(2 * np.pi))
            return bell

        return self.mean(normal)

    @property
    def width(self) -> float:
        """1 % of the range of the nodes; at least 10⁻⁵ of the largest |θ|."""
        smallest = 1e-3 * float(np.abs(self.nodes).max())
        return max(float(np.ptp(self.nodes)), smallest) / 100 or 1.0

    def as_record(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self) | {"nodes": self.nodes.tolist(), "weights": self.weights.tolist()}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "SpectralDensity":
        """The inverse of `as_record`."""
        arrays = {name: np.array(record[name], dtype=float) for name in ("nodes", "weights")}
        return cls(**{**record, **arrays})


def gauss_rule(alpha: Array, beta: Array) -> tuple[Array, Array]:
    """Nodes and weights [m] of a Jacobi matrix: eigenvalues, and squared first entries of eigenvectors.

    Args:
        alpha: its diagonal, [m].
        beta: its off-diagonal, [m]; the last entry is not used. The matrix ends at the first zero; the last
            node is then repeated with the weight 0.
    """
    end = int(np.append(beta[:-1], 0.0).argmin()) + 1
    nodes, vectors = scipy.linalg.eigh_tridiagonal(alpha[:end], beta[: end - 1])
    rest = (0, len(alpha) - end)
    return np.pad(nodes, rest, mode="edge"), np.pad(vectors[0] ** 2, rest)
