"""Rescaling weights, learning rate and decay together does not change the path of the direction.

On a scale-invariant loss, θ = w/‖w‖ takes the same path under

    GD, and RMSprop of ĝ = ρ g with any ε:   (w, η, λ) → (cw, c²η, λ/c²)
    raw RMSprop, ε = 0:                      (w, η, λ) → (cw, cη, λ/c)

because g(cw) = g(w)/c and ĝ does not change. 300 steps with c = 3; as a control raw RMSprop with the
exponents of the other two, which must take another path.

Source: our own calculation.
"""

from typing import Any, Final

from optim_family.theory.page import CONTROL, Errors, error_case
from optim_family.theory.small_networks import scale_invariant
from optim_family.theory.trajectory import record_trajectory

C, STEPS, TOLERANCE = 3.0, 300, 1e-10
LR, WEIGHT_DECAY = 0.01, 0.05
SQUARED, PLAIN = (2.0, -2.0), (1.0, -1.0)  # powers of c for η and λ
RAW: Final[dict[str, Any]] = {"preconditioning": "raw", "eps": 0.0}
VARIANTS: Final[dict[str, tuple[str, tuple[float, float], dict[str, Any]]]] = {
    "GD: largest ‖θ − θ'‖": ("gd", SQUARED, {}),
    "RMSprop, ε = 10⁻³: largest ‖θ − θ'‖": ("rmsprop", SQUARED, {"eps": 1e-3}),
    "scalar RMSprop, ε = 10⁻³: largest ‖θ − θ'‖": ("rmsprop", SQUARED, {"eps": 1e-3, "moment": "scalar"}),
    "raw RMSprop, ε = 0: largest ‖θ − θ'‖": ("rmsprop", PLAIN, RAW),
    f"raw RMSprop with c², c⁻²: largest ‖θ − θ'‖{CONTROL}": ("rmsprop", SQUARED, RAW),
}


def observe() -> Errors:
    """‖θ_t − θ'_t‖ on linear regression with BN, [t + 1], for each optimizer."""
    loss, start = scale_invariant()["regression"]
    errors = {}
    for quantity, (name, (power_lr, power_decay), options) in VARIANTS.items():
        first, second = (
            record_trajectory(
                loss,
                c * start,
                STEPS,
                name,
                lr=LR * c**power_lr,
                weight_decay=WEIGHT_DECAY * c**power_decay,
                **options,
            )
            for c in (1.0, C)
        )
        errors[quantity] = (first.directions - second.directions).norm(dim=1)
    return errors


CASE: Final = error_case("V4", observe, TOLERANCE, "distance of the two directions", control=1e-3)
