"""Rescaling weights, learning rate and decay together does not change the path of the direction.

On a scale-invariant loss, θ = w/‖w‖ takes the same path under

    GD, and RMSprop of ĝ = ρ g with any ε:   (w, η, λ) → (cw, c²η, λ/c²)
    raw RMSprop, ε = 0:                      (w, η, λ) → (cw, cη, λ/c)

because g(cw) = g(w)/c and ĝ does not change. 300 steps with c = 3; as a control raw RMSprop with the
exponents of the other two, which must take another path.

Source: our own calculation.
"""

from collections.abc import Iterator
from typing import Any, Final

import torch
from matplotlib.axes import Axes
from torch import Tensor

from optim_family.theory.page import draw_errors
from optim_family.theory.small_networks import scale_invariant
from optim_family.theory.trajectory import record_trajectory
from optim_family.theory.verify import Case, NumericCheck

C, STEPS, TOLERANCE = 3.0, 300, 1e-10
SQUARED, PLAIN = (2.0, -2.0), (1.0, -1.0)  # powers of c for η and λ
RAW: Final[dict[str, Any]] = {"preconditioning": "raw", "eps": 0.0}
SAME: Final[dict[str, tuple[str, tuple[float, float], dict[str, Any]]]] = {
    "GD": ("gd", SQUARED, {}),
    "RMSprop, ε = 10⁻³": ("rmsprop", SQUARED, {"eps": 1e-3}),
    "scalar RMSprop, ε = 10⁻³": ("rmsprop", SQUARED, {"eps": 1e-3, "moment": "scalar"}),
    "raw RMSprop, ε = 0": ("rmsprop", PLAIN, RAW),
}
CONTROL = "raw RMSprop with c², c⁻²"

Distances = dict[str, Tensor]


def observe() -> Distances:
    """The distance of the two directions at every step, [t + 1], by the name of the optimizer."""
    table = SAME | {CONTROL: ("rmsprop", SQUARED, RAW)}
    return {name: distances(*row) for name, row in table.items()}


def distances(optimizer: str, powers: tuple[float, float], options: dict[str, Any]) -> Tensor:
    """‖θ_t − θ'_t‖ on linear regression with BN."""
    loss, start = scale_invariant()["regression"]
    lr, weight_decay = 0.01, 0.05
    first = record_trajectory(loss, start, STEPS, optimizer, lr=lr, weight_decay=weight_decay, **options)
    scaled = {"lr": lr * C ** powers[0], "weight_decay": weight_decay * C ** powers[1]}
    second = record_trajectory(loss, C * start, STEPS, optimizer, **scaled, **options)
    distance: Tensor = (first.directions - second.directions).norm(dim=1)
    return distance


def checks(by_name: Distances) -> Iterator[NumericCheck]:
    """Equal paths, and the control."""
    for name in SAME:
        yield NumericCheck.vanishes(f"{name}: largest ‖θ − θ'‖", by_name[name], within=TOLERANCE)
    yield NumericCheck(
        f"{CONTROL}: largest ‖θ − θ'‖, another path", float(by_name[CONTROL].max()), 1e-3, torch.inf
    )


def draw(ax: Axes, by_name: Distances) -> None:
    """Four distances are rounding noise, that of the control is not."""
    draw_errors(ax, torch.arange(STEPS + 1), by_name, TOLERANCE, "distance of the two directions")


CASE: Final = Case("V4", observe, checks, draw)
