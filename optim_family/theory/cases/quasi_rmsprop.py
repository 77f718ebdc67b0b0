"""The effective learning rate of GD with weight decay is a quasi-RMSprop schedule.

With β = (1 − ηλ)⁴, b² = ((1 − ηλ)⁻⁴ − 1)/2 and v = b²/ℓ², that is ℓ = b/√v,

    v' = β v + (1 − β) ‖∇L(θ)‖² (1 + ½ ℓ² ‖∇L(θ)‖²).

Checked along 300 steps on three losses.

Source: K. Lyu, Z. Li, S. Arora, "Understanding the generalization benefit of normalization layers:
sharpness reduction", NeurIPS 2022, up to the last factor, which makes it exact.
"""

from optim_family.theory.page import Errors, error_case
from optim_family.theory.small_networks import gradients, scale_invariant
from optim_family.theory.trajectory import record_trajectory

LR, WEIGHT_DECAY, STEPS, TOLERANCE = 0.3, 0.05, 300, 1e-10


def observe() -> Errors:
    """The relative error of v' at every step, for each loss."""
    beta = (1 - LR * WEIGHT_DECAY) ** 4
    b_squared = (1 / beta - 1) / 2
    errors = {}
    for name, (loss, start) in scale_invariant().items():
        path = record_trajectory(loss, start, STEPS, lr=LR, weight_decay=WEIGHT_DECAY)
        ell = path.effective_lr
        v = b_squared / ell**2
        square = gradients(loss, path.directions).square().sum(1)  #  ‖∇L(θ)‖², [t + 1]
        expected = beta * v + (1 - beta) * square * (1 + ell**2 * square / 2)
        errors[f"{name} with BN: largest relative error of v'"] = v[1:] / expected[:-1] - 1
    return errors


checks, draw = error_case(TOLERANCE, "relative error of v'")
