"""Predictions of the theory of the edge of stability for a scale-invariant loss.

Gradient descent with weight decay, close to minimisers, where θ_t = φ_t ± a v₁ with a slow φ: S is the
spherical sharpness, q = ‖∇_Γ log λ₁‖², τ = ηλt.

    a²        = 2ηλ / (4 + q)        variance of the oscillation
    mean L    = S ηλ / (4 + q)       above the minimum, the mean over time; at most S ηλ / 4
    d log S   = −2q / (4 + q) dτ     so that log S falls by at most 2ηλ in a step
    period    = π / √(2ηλ)           steps, of the slow modulation of ℓS around 2, where it is small

Source: K. Lyu, Z. Li, S. Arora, "Understanding the generalization benefit of normalization layers: sharpness
reduction", NeurIPS 2022.
"""

import math


def oscillation_variance(eta_lambda: float, q: float = 0.0) -> float:
    """a² = 2ηλ / (4 + q), on the unit sphere; `eta_lambda` is ηλ, and q = 0 gives the largest a²."""
    return 2 * eta_lambda / (4 + q)


def mean_excess_loss(sharpness: float, eta_lambda: float, q: float = 0.0) -> float:
    """S ηλ / (4 + q), in units of the loss; `eta_lambda` is ηλ, and q = 0 gives the largest value."""
    return sharpness * eta_lambda / (4 + q)


def log_sharpness_slope(q: float) -> float:
    """d log S / dτ = −2q / (4 + q), between 0 and −2."""
    return -2 * q / (4 + q)


def steepest_drift(sharpness: float, tau: float) -> float:
    """The lowest S that a drift over a time τ can reach: S e^{−2τ}, in units of the loss."""
    return sharpness * math.exp(-2 * tau)


def modulation_period(eta_lambda: float) -> float:
    """π / √(2ηλ), in steps.

    Raises:
        ValueError: there is no weight decay.
    """
    if not eta_lambda > 0:
        raise ValueError(f"without weight decay there is no modulation; got ηλ = {eta_lambda}.")
    return math.pi / math.sqrt(2 * eta_lambda)
