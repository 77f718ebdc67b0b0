"""The density of all eigenvalues of a symmetric operator, by stochastic Lanczos quadrature.

From a random unit vector v, m steps of the Lanczos recurrence with full orthogonalisation,

    A qⱼ = βⱼ₋₁ qⱼ₋₁ + αⱼ qⱼ + βⱼ qⱼ₊₁,    q₁ = v,

give the Jacobi matrix of the spectral measure of v, and its Gauss quadrature. Without orthogonalisation
copies of eigenvalues would appear. The device is synchronised once, at the end.

Source: S. Ubaru, J. Chen, Y. Saad, "Fast estimation of tr(f(A)) via stochastic Lanczos quadrature", SIAM J.
Matrix Anal. Appl. 38 (2017); G. Golub, G. Meurant, "Matrices, Moments and Quadrature" (2010).
"""

import time

import numpy as np
import torch
from torch import Tensor

from optim_family.curvature.gauss_quadrature import Array, SpectralDensity, gauss_rule
from optim_family.operators import SymmetricOperator, require_finite_products

# If β is below ROUNDING · eps times the largest entry so far, the space is invariant.
ROUNDING = 32


def spectral_density(
    operator: SymmetricOperator, reference: Tensor, *, steps: int = 64, samples: int = 4, seed: int = 0
) -> SpectralDensity:
    """The spectral density of A in any view: φ(t) = 1/d Σⱼ δ(t − λⱼ).

    Args:
        operator: the symmetric map A on ℝᵈ.
        reference: a tensor of the dtype and on the device of the products, such as the weights.
        steps: nodes m for each direction, at most d. Memory is about m · d numbers.
        samples: number n of random directions. A simple eigenvalue has the weight 1/d, with the relative
            standard error √(2/n).
        seed: of the directions, which are uniform on the sphere.

    Raises:
        ValueError: steps or samples is below 1.
        FloatingPointError: a product is not finite.

    Example: a third of the eigenvalues of diag(1, 1, 4) lie above 2.

    >>> from optim_family.operators import Diagonal
    >>> density = spectral_density(Diagonal(torch.tensor([1.0, 1.0, 4.0])), torch.empty(0), samples=400)
    >>> share, error = density.mean(lambda eigenvalue: eigenvalue > 2)
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
    require_finite_products(rows)
    rules = [gauss_rule(alpha, beta) for alpha, beta in rows]
    return SpectralDensity(
        nodes=np.stack([nodes for nodes, _ in rules]),
        weights=np.stack([weights for _, weights in rules]),
        dim=operator.dim,
        products=samples * steps,
        seconds=time.perf_counter() - begin,
    )


def spectral_measure(operator: SymmetricOperator, vector: Tensor, *, steps: int = 64) -> tuple[Array, Array]:
    """The spectral measure of one vector: vᵀ f(A) v ≈ Σᵢ ωᵢ f(θᵢ), where Σᵢ ωᵢ = ‖v‖².

    Args:
        operator: the symmetric map A on ℝᵈ.
        vector: v, [d], not zero.
        steps: number m of nodes, at most d.

    Returns:
        θ [m], increasing, and ω [m].

    Raises:
        FloatingPointError: a product is not finite.
    """
    steps = min(steps, operator.dim)
    jacobi = vector.new_empty(2, steps)
    _tridiagonalise(operator, vector, vector.new_empty(steps, operator.dim), jacobi)
    rows = jacobi.double().cpu().numpy()
    require_finite_products(rows)
    nodes, weights = gauss_rule(*rows)
    return nodes, float(vector @ vector) * weights


def _tridiagonalise(operator: SymmetricOperator, start: Tensor, basis: Tensor, out: Tensor) -> None:
    """Lanczos recurrence from a start [d] in a preallocated basis [m, d]; writes α and β to out [2, m].

    Once the space is invariant, β and every later vector are 0; this needs no synchronisation.
    """
    alpha, beta = out
    rounding = ROUNDING * torch.finfo(start.dtype).eps
    scale = start.new_zeros(())
    q = start / torch.linalg.vector_norm(start)
    for j in range(len(basis)):
        basis[j] = q
        filled = basis[: j + 1]  #                                                              [j + 1, d]
        rest = operator @ q
        column = filled @ rest
        rest = torch.addmv(rest, filled.T, column, alpha=-1)
        correction = filled @ rest
        rest = torch.addmv(rest, filled.T, correction, alpha=-1)
        alpha[j] = column[j] + correction[j]
        norm = torch.linalg.vector_norm(rest)
        scale = torch.maximum(scale, torch.maximum(alpha[j].abs(), norm))
        beta[j] = torch.where(norm > rounding * scale, norm, 0.0)
        q = torch.where(beta[j] > 0, rest / norm, 0.0)
