"""A probabilistic upper bound of λ₁ from a Lanczos run, for any spectrum, clusters included.

The tridiagonal matrix of a Lanczos run from a unit vector v defines polynomials p₀, …, p_m. They are
orthonormal in the measure Σᵢ cᵢ² δ(λᵢ), where cᵢ is the component of v along the i-th eigenvector. Their
squares bound each mass,

    c₁² ≤ 1 / K(λ₁),    K(x) = p₀(x)² + … + p_m(x)²,

and K grows fast above the Ritz values. For a random v, c₁² ≥ ε except with a small probability; then λ₁ is
below the x at which K(x) = 1/ε. Residuals and gaps bound the errors of the Ritz values; this bound covers
eigenvalues that the Krylov space does not show yet.

Source: J. van Dorsselaer, M. Hochstenbach, H. van der Vorst, "Computing probabilistic bounds for extreme
eigenvalues of symmetric matrices with the Lanczos method", SIAM J. Matrix Anal. Appl. 22 (2000), with p_m²
alone; N. Akhiezer, "The Classical Moment Problem" (1965), chapter 2, for K.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import betaincinv

RISK: Final = 1e-3


def least_component(dim: int, share: float = 1.0) -> float:
    """The RISK quantile ε of the squared component of a random unit vector of ℝᵈ along an axis.

    Args:
        dim: d.
        share: norm of the random part of the vector; the other part is fixed and arbitrary.
    """
    return share**2 * float(betaincinv(0.5, (dim - 1) / 2, RISK)) if dim > 1 else share**2


def upper_bound(diagonal: NDArray[np.float64], off_diagonal: NDArray[np.float64], component: float) -> float:
    """The largest λ₁ for which the squared component of the start along its eigenvector can be ε.

    Args:
        diagonal: of the tridiagonal matrix, α [m].
        off_diagonal: β [m], all above zero; the last one couples to the next vector.
        component: ε, below 1.
    """
    top = float(np.linalg.eigvalsh(np.diag(diagonal) + np.diag(off_diagonal[:-1], 1), UPLO="U")[-1])

    def excess(x: float) -> float:  # K(x) − 1/ε, cut off at 1/ε: only its sign matters
        before, now, kernel = 0.0, 1.0, 1.0
        for j, (alpha, beta) in enumerate(zip(diagonal, off_diagonal, strict=True)):
            back = off_diagonal[j - 1] * before if j else 0.0
            before, now = now, ((x - alpha) * now - back) / beta
            kernel += now**2
            if kernel > 2 / component:
                break
        return min(kernel, 2 / component) - 1 / component

    if excess(top) >= 0:
        return top
    step = float(np.abs(off_diagonal).max()) + abs(top)
    reach = step * np.finfo(np.float64).eps
    while excess(top + reach) < 0:
        reach *= 2
    return float(brentq(excess, top, top + reach, xtol=step * 1e-12, rtol=1e-12))
