"""Weights, learning rate and decay rescaled together leave the path of the direction as it was.

On a scale-invariant loss, θ = w/‖w‖ takes the same path under

    GD, and RMSprop of ĝ = ρ g with any ε:   (w, η, λ) → (cw, c²η, λ/c²)
    raw RMSprop, ε = 0:                      (w, η, λ) → (cw, cη, λ/c)

because g(cw) = g(w)/c and ĝ does not change at all. 300 steps with c = 3, and for contrast raw RMSprop with
the exponents of the other two, which takes another path.

Source: our own calculation.
"""

from collections.abc import Iterator
from typing import Any, Final

import torch
from matplotlib.axes import Axes
from torch import Tensor

from optim_family.theory.drawing import draw_errors, draw_tolerance, largest
from optim_family.theory.small_networks import scale_invariant
from optim_family.theory.trajectory import descend
from optim_family.theory.verify import Case, Finding

C, STEPS, TOLERANCE = 3.0, 300, 1e-10
SQUARED, PLAIN = (2.0, -2.0), (1.0, -1.0)  # powers of c for η and λ
RAW: Final[dict[str, Any]] = {"preconditioning": "raw", "eps": 0.0}
SAME: Final[dict[str, tuple[str, tuple[float, float], dict[str, Any]]]] = {
    "GD": ("gd", SQUARED, {}),
    "RMSprop, ε = 10⁻³": ("rmsprop", SQUARED, {"eps": 1e-3}),
    "scalar RMSprop, ε = 10⁻³": ("rmsprop", SQUARED, {"eps": 1e-3, "moment": "scalar"}),
    "raw RMSprop, ε = 0": ("rmsprop", PLAIN, RAW),
}
OTHER = "raw RMSprop with c², c⁻²"

Distances = dict[str, Tensor]


def observe() -> Distances:
    """How far the two directions are apart at every step, [t + 1], by the name of the optimizer."""
    table = SAME | {OTHER: ("rmsprop", SQUARED, RAW)}
    return {name: distances(*row) for name, row in table.items()}


def distances(optimizer: str, powers: tuple[float, float], options: dict[str, Any]) -> Tensor:
    """‖θ_t − θ'_t‖ on linear regression with BN."""
    loss, start = scale_invariant()["regression"]
    lr, weight_decay = 0.01, 0.05
    first = descend(loss, start, STEPS, optimizer, lr=lr, weight_decay=weight_decay, **options)
    scaled = {"lr": lr * C ** powers[0], "weight_decay": weight_decay * C ** powers[1]}
    second = descend(loss, C * start, STEPS, optimizer, **scaled, **options)
    apart: Tensor = (first.directions - second.directions).norm(dim=1)
    return apart


def findings(found: Distances) -> Iterator[Finding]:
    """The same paths, and the other one."""
    for name in SAME:
        yield Finding.vanishes(f"{name}: largest ‖θ − θ'‖", largest(found[name]), within=TOLERANCE)
    yield Finding(f"{OTHER}: largest ‖θ − θ'‖, another path", largest(found[OTHER]), 1e-3, torch.inf)


def draw(ax: Axes, found: Distances) -> None:
    """Four in rounding noise, one not."""
    for index, (name, apart) in enumerate(found.items()):
        draw_errors(ax, torch.arange(STEPS + 1), apart, name, index)
    draw_tolerance(ax, TOLERANCE)
    ax.set(xlabel="step", ylabel="distance of the two directions")


CASE: Final = Case("V4", observe, findings, draw)
