"""A learning rate that grows exponentially moves the direction as weight decay does.

On a scale-invariant loss, θ = w/‖w‖ takes the same path under

    η, λ                                     weight decay
    η_t = (1 − ηλ)^{−2t − 1} η,  λ = 0       and the weights are (1 − ηλ)^{−t} times as large

for GD, and for RMSprop of ĝ = ρ g. 300 steps of both, and for contrast a constant rate without decay.

Source: Z. Li, S. Arora, "An exponential learning rate schedule for deep learning" (2020); for RMSprop, and
for decay apart from the gradient step, our own calculation.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, final

import torch
from matplotlib.axes import Axes
from torch import Tensor

from optim_family.theory.drawing import draw_errors, draw_tolerance, largest
from optim_family.theory.small_networks import scale_invariant
from optim_family.theory.trajectory import descend
from optim_family.theory.verify import Case, Finding

STEPS, TOLERANCE = 300, 1e-10
LR, DECAY = 0.01, 0.05
NAMES: Final = {"gd": "GD", "rmsprop": "RMSprop"}


@final
@dataclass(frozen=True)
class Apart:
    """Growth, or nothing at all, beside weight decay.

    Attributes:
        growth: ‖θ_t − θ'_t‖, [t + 1].
        norms: ‖w'_t‖ (1 − ηλ)^t / ‖w_t‖ − 1, [t + 1].
        nothing: ‖θ_t − θ'_t‖ with neither, [t + 1].
    """

    growth: Tensor
    norms: Tensor
    nothing: Tensor


def observe() -> dict[str, Apart]:
    """By the name of the optimizer."""
    return {title: apart(name) for name, title in NAMES.items()}


def apart(optimizer: str) -> Apart:
    """On linear regression with BN."""
    loss, start = scale_invariant()["regression"]
    decayed = descend(loss, start, STEPS, optimizer, lr=LR, weight_decay=DECAY)
    grown, plain = (
        descend(loss, start, STEPS, optimizer, schedule=schedule, lr=LR, weight_decay=0.0)
        for schedule in (f"growth:decay={DECAY}", None)
    )
    larger = grown.weights.norm(dim=1) / decayed.weights.norm(dim=1)
    shrinking = (1 - LR * DECAY) ** torch.arange(STEPS + 1, dtype=larger.dtype)
    return Apart(
        (decayed.directions - grown.directions).norm(dim=1),
        larger * shrinking - 1,
        (decayed.directions - plain.directions).norm(dim=1),
    )


def findings(found: dict[str, Apart]) -> Iterator[Finding]:
    """The same paths, and the other one."""
    for name, each in found.items():
        yield Finding.vanishes(f"{name}: largest ‖θ − θ'‖", largest(each.growth), within=TOLERANCE)
        yield Finding.vanishes(f"{name}: ‖w'‖ (1 − ηλ)^t / ‖w‖ − 1", largest(each.norms), within=TOLERANCE)
        contrast = f"{name} with neither: largest ‖θ − θ'‖, another path"
        yield Finding(contrast, largest(each.nothing), 1e-6, torch.inf)


def draw(ax: Axes, found: dict[str, Apart]) -> None:
    """Growth in rounding noise, nothing not."""
    steps = torch.arange(STEPS + 1)
    for index, (name, each) in enumerate(found.items()):
        draw_errors(ax, steps, each.growth, f"{name}: growth", 2 * index)
        draw_errors(ax, steps, each.nothing, f"{name}: neither", 2 * index + 1)
    draw_tolerance(ax, TOLERANCE)
    ax.set(xlabel="step", ylabel="distance from the direction with decay")


CASE: Final = Case("V13", observe, findings, draw)
