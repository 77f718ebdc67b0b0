"""Rescaling weights, learning rate and decay together does not change the path of the direction.

On a scale-invariant loss, θ = w/‖w‖ takes the same path under

    GD, and RMSprop of ĝ = ρ g with any ε:   (w, η, λ) → (cw, c²η, λ/c²)
    raw RMSprop, ε = 0:                      (w, η, λ) → (cw, cη, λ/c)

because g(cw) = g(w)/c and ĝ does not change. 300 steps with c = 3; as a control raw RMSprop with the
exponents of the other two, which must take another path.

Source: our own calculation.
"""

from typing import Any, Final

from torch import Tensor

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
    return {
        quantity: (directions(1.0, *variant) - directions(C, *variant)).norm(dim=1)
        for quantity, variant in VARIANTS.items()
    }


def directions(c: float, optimizer: str, powers: tuple[float, float], options: dict[str, Any]) -> Tensor:
    """θ_t from weights c times as large, with η and λ times these powers of c, [t + 1, d]."""
    loss, start = scale_invariant()["regression"]
    lr, decay = LR * c ** powers[0], WEIGHT_DECAY * c ** powers[1]
    path = record_trajectory(loss, c * start, STEPS, optimizer, lr=lr, weight_decay=decay, **options)
    return path.directions


checks, draw = error_case(TOLERANCE, "distance of the two directions", control=1e-3)
