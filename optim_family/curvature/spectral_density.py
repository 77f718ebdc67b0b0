"""The density of all eigenvalues of a symmetric operator, by stochastic Lanczos quadrature.

From a random unit vector v, m steps of Lanczos' recurrence, orthogonalised in full,

    A qⱼ = βⱼ₋₁ qⱼ₋₁ + αⱼ qⱼ + βⱼ qⱼ₊₁,    q₁ = v,

make the Jacobi matrix of the measure that v sees, and so its Gauss quadrature. Without orthogonalisation
eigenvalues would come back as copies of themselves. Nothing is read from the device before the end.

Source: S. Ubaru, J. Chen, Y. Saad, "Fast estimation of tr(f(A)) via stochastic Lanczos quadrature", SIAM J.
Matrix Anal. Appl. 38 (2017); G. Golub, G. Meurant, "Matrices, Moments and Quadrature" (2010).
"""

import time

import numpy as np
import torch
from torch import Tensor

from optim_family.curvature.gauss_quadrature import Array, SpectralDensity, gauss_rule
from optim_family.operators import SymmetricOperator

# A β below so many eps of the largest entry so far is rounding: the space is complete.
ROUNDING = 32


def spectral_density(
    operator: SymmetricOperator, reference: Tensor, *, steps: int = 64, samples: int = 4, seed: int = 0
) -> SpectralDensity:
    """The spectral density of A in any view: φ(t) = 1/d Σⱼ δ(t − λⱼ).

    Args:
        operator: the symmetric map A on ℝᵈ.
        reference: a tensor of the dtype and on the device of the products, such as the weights.
        steps: nodes for each direction, m; at most d. Memory is about m · d numbers.
        samples: random directions, n. One eigenvalue in d has the weight 1/d, with the relative standard
            error √(2/n).
        seed: of the directions, which are uniform on the sphere.

    Raises:
        ValueError: steps or samples is below 1.
        FloatingPointError: a product is not finite.

    Example: a third of the eigenvalues of diag(1, 1, 4) lie above 2.

    >>> from optim_family.operators import Diagonal
    >>> found = spectral_density(Diagonal(torch.tensor([1.0, 1.0, 4.0])), torch.empty(0), samples=400)
    >>> share, error = found.mean(lambda eigenvalue: eigenvalue > 2)
    >>> bool(abs(share - 1 / 3) < 3 * error)
    True
    """
    if min(steps, samples) < 1:
        raise ValueError(f"a density needs at least one step and one sample; got {steps} and {samples}.")
    begin = time.perf_counter()
    steps = min(steps, operator.dim)
    generator = torch.Generator(reference.device).manual_seed(seed)
    basis = reference.new_empty(steps, operator.dim)
    jacobi = reference.new_empty(samples, 2, steps)
    for row in jacobi:
        start = torch.randn(operator.dim, generator=generator, dtype=reference.dtype, device=reference.device)
        _tridiagonalise(operator, start, basis, row)
    rows = jacobi.double().cpu().numpy()  # the only transfer
    if not np.isfinite(rows).all():
        raise FloatingPointError("a product with the operator is not finite.")
    rules = [gauss_rule(alpha, beta) for alpha, beta in rows]
    return SpectralDensity(
        nodes=np.stack([nodes for nodes, _ in rules]),
        weights=np.stack([weights for _, weights in rules]),
        dim=operator.dim,
        products=samples * steps,
        seconds=time.perf_counter() - begin,
    )


def spectral_measure(operator: SymmetricOperator, vector: Tensor, *, steps: int = 64) -> tuple[Array, Array]:
    """The measure of A that one vector sees: vᵀ f(A) v ≈ Σᵢ ωᵢ f(θᵢ), the sum of all ωᵢ being ‖v‖².

    Args:
        operator: the symmetric map A on ℝᵈ.
        vector: v, [d], not 0.
        steps: nodes, m; at most d.

    Returns:
        θ [m], increasing, and ω [m].

    Raises:
        FloatingPointError: a product is not finite.
    """
    steps = min(steps, operator.dim)
    jacobi = vector.new_empty(2, steps)
    _tridiagonalise(operator, vector, vector.new_empty(steps, operator.dim), jacobi)
    rows = jacobi.double().cpu().numpy()
    if not np.isfinite(rows).all():
        raise FloatingPointError("a product with the operator is not finite.")
    nodes, weights = gauss_rule(*rows)
    return nodes, float(vector @ vector) * weights


def _tridiagonalise(operator: SymmetricOperator, start: Tensor, basis: Tensor, out: Tensor) -> None:
    """Lanczos' recurrence from a start [d] in the memory of a basis [m, d]; α and β into out [2, m].

    Where the space is complete β is 0 and so is every later vector, which no synchronisation has to learn.
    """
    alpha, beta = out
    rounding = ROUNDING * torch.finfo(start.dtype).eps
    scale = start.new_zeros(())
    q = start / torch.linalg.vector_norm(start)
    for j in range(len(basis)):
        basis[j] = q
        seen = basis[: j + 1]  #                                                                [j + 1, d]
        rest = operator @ q
        column = seen @ rest
        rest = torch.addmv(rest, seen.T, column, alpha=-1)
        again = seen @ rest
        rest = torch.addmv(rest, seen.T, again, alpha=-1)
        alpha[j] = column[j] + again[j]
        norm = torch.linalg.vector_norm(rest)
        scale = torch.maximum(scale, torch.maximum(alpha[j].abs(), norm))
        beta[j] = torch.where(norm > rounding * scale, norm, 0.0)
        q = torch.where(beta[j] > 0, rest / norm, 0.0)
