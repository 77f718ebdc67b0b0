"""GD with weight decay is projected gradient descent on the sphere.

For a scale-invariant loss, one step w' = (1 − ηλ) w − η ∇L(w) moves the direction θ = w/ρ as

    θ' = (θ − ℓ ∇L(θ)) / ‖θ − ℓ ∇L(θ)‖,   ℓ = η / ((1 − ηλ) ρ²).

Three losses, fifty steps each from random weights, each step checked separately.

Source: K. Lyu, Z. Li, S. Arora, "Understanding the generalization benefit of normalization layers:
sharpness reduction", NeurIPS 2022.
"""

from optim_family.theory.page import Errors, error_case
from optim_family.theory.small_networks import gradients, scale_invariant
from optim_family.theory.toys import unit
from optim_family.theory.trajectory import record_trajectory

LR, WEIGHT_DECAY, STEPS, TOLERANCE = 0.3, 0.05, 50, 1e-12


def observe() -> Errors:
    """‖θ' − (θ − ℓ ∇L(θ)) / ‖·‖‖ at every step, for each loss."""
    errors = {}
    for name, (loss, start) in scale_invariant().items():
        path = record_trajectory(loss, start, STEPS, lr=LR, weight_decay=WEIGHT_DECAY)
        theta, rho = path.directions, path.weights.norm(dim=1)
        ell = LR / ((1 - LR * WEIGHT_DECAY) * rho**2)
        expected = unit(theta - ell[:, None] * gradients(loss, theta))  #         [t + 1, d]
        errors[f"{name} with BN: largest ‖θ' − projected step‖"] = (theta[1:] - expected[:-1]).norm(dim=1)
    return errors


checks, draw = error_case(TOLERANCE, "‖θ' − projected step‖")
