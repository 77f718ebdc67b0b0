"""The density of a spectrum as Gauss quadrature: nodes, weights, and what follows from them.

    φ(t) = 1/d Σⱼ δ(t − λⱼ) ≈ 1/n Σₛ Σᵢ ωₛᵢ N(t; θₛᵢ, σ²)

For a unit vector vₛ, Σᵢ ωₛᵢ f(θₛᵢ) = vₛᵀ f(A) vₛ for every polynomial f of degree up to 2m − 1, where m is
the number of nodes; over random vₛ its mean is tr f(A) / d. Arithmetic of small arrays only, so that a
stored density can be read and drawn where there is no torch.

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
    """The spectrum of a symmetric operator on ℝᵈ, seen from n random directions.

    Attributes:
        nodes: θ [n, m], in the unit of the eigenvalues; each row increases.
        weights: ω [n, m], none negative; each row has the sum 1.
        dim: d, the number of eigenvalues.
        products: products with the operator that it took.
        seconds: wall time that it took.
    """

    nodes: Array
    weights: Array
    dim: int
    products: int
    seconds: float

    def mean(self, f: Callable[[Array], Array]) -> tuple[Array, Array]:
        """tr f(A) / d and its standard error over the n directions (NaN if n = 1).

        Args:
            f: a function of an eigenvalue, elementwise; of nodes [n, m] it may make [..., n, m].

        Returns:
            Two arrays [...].
        """
        each = (self.weights * f(self.nodes)).sum(-1)  #                          [..., n, m] → [..., n]
        n = each.shape[-1]
        error = each.std(-1, ddof=1) / np.sqrt(n) if n > 1 else np.full(each.shape[:-1], np.nan)
        return each.mean(-1), error

    def at(self, grid: Array, width: float | None = None) -> tuple[Array, Array]:
        """φ and its standard error at the points of a grid; unit 1 / that of the eigenvalues, integral 1.

        Args:
            grid: t, [points].
            width: σ of the Gaussian around every node; `self.width` if not given.
        """
        sigma = width or self.width

        def normal(nodes: Array) -> Array:
            z = (grid[:, None, None] - nodes) / sigma  #                                   [points, n, m]
            bell: Array = np.exp(-0.5 * z**2) / (sigma * np.sqrt(2 * np.pi))
            return bell

        return self.mean(normal)

    @property
    def width(self) -> float:
        """A hundredth of the range of the nodes, where there is one."""
        smallest = 1e-3 * float(np.abs(self.nodes).max())
        return max(float(np.ptp(self.nodes)), smallest) / 100 or 1.0

    def as_record(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self) | {"nodes": self.nodes.tolist(), "weights": self.weights.tolist()}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "SpectralDensity":
        """What `as_record` wrote."""
        arrays = {name: np.array(record[name], dtype=float) for name in ("nodes", "weights")}
        return cls(**{**record, **arrays})


def gauss_rule(alpha: Array, beta: Array) -> tuple[Array, Array]:
    """Nodes and weights [m] of a Jacobi matrix: its eigenvalues, and the squared heads of its eigenvectors.

    Args:
        alpha: its diagonal, [m].
        beta: what stands beside the diagonal, [m]; the last is not used. At a zero the matrix ends, and the
            last node is repeated with the weight 0.
    """
    end = int(np.append(beta[:-1], 0.0).argmin()) + 1
    nodes, vectors = scipy.linalg.eigh_tridiagonal(alpha[:end], beta[: end - 1])
    rest = (0, len(alpha) - end)
    return np.pad(nodes, rest, mode="edge"), np.pad(vectors[0] ** 2, rest)
