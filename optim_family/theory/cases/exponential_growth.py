"""An exponentially growing learning rate moves the direction exactly as weight decay does.

On a scale-invariant loss, θ = w/‖w‖ takes the same path under

    η, λ                                     weight decay
    η_t = (1 − ηλ)^{−2t − 1} η,  λ = 0       and the weights are (1 − ηλ)^{−t} times as large

for GD, and for RMSprop of ĝ = ρ g. 300 steps of both; as a control a constant rate without decay.

Source: Z. Li, S. Arora, "An exponential learning rate schedule for deep learning" (2020); for RMSprop, and
for decoupled decay, our own calculation.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, final

import torch
from matplotlib.axes import Axes
from torch import Tensor

from optim_family.theory.page import draw_errors
from optim_family.theory.small_networks import scale_invariant
from optim_family.theory.trajectory import record_trajectory
from optim_family.theory.verify import Case, NumericCheck

STEPS, TOLERANCE = 300, 1e-10
LR, DECAY = 0.01, 0.05
NAMES: Final = {"gd": "GD", "rmsprop": "RMSprop"}


@final
@dataclass(frozen=True)
class PathDistance:
    """Distance from the path with weight decay.

    Attributes:
        growth: ‖θ_t − θ'_t‖ with a growing rate, [t + 1].
        norms: ‖w'_t‖ (1 − ηλ)^t / ‖w_t‖ − 1 with a growing rate, [t + 1].
        control: ‖θ_t − θ'_t‖ with a constant rate, [t + 1].
    """

    growth: Tensor
    norms: Tensor
    control: Tensor


def observe() -> dict[str, PathDistance]:
    """By the name of the optimizer."""
    return {title: distance(name) for name, title in NAMES.items()}


def distance(optimizer: str) -> PathDistance:
    """Run the three variants on linear regression with BN."""
    loss, start = scale_invariant()["regression"]
    decayed = record_trajectory(loss, start, STEPS, optimizer, lr=LR, weight_decay=DECAY)
    grown, plain = (
        record_trajectory(loss, start, STEPS, optimizer, schedule=schedule, lr=LR, weight_decay=0.0)
        for schedule in (f"growth:decay={DECAY}", None)
    )
    norm_ratio = grown.weights.norm(dim=1) / decayed.weights.norm(dim=1)
    decay = (1 - LR * DECAY) ** torch.arange(STEPS + 1, dtype=norm_ratio.dtype)
    return PathDistance(
        (decayed.directions - grown.directions).norm(dim=1),
        norm_ratio * decay - 1,
        (decayed.directions - plain.directions).norm(dim=1),
    )


def checks(by_name: dict[str, PathDistance]) -> Iterator[NumericCheck]:
    """Equal paths, and the control."""
    for name, each in by_name.items():
        yield NumericCheck.vanishes(f"{name}: largest ‖θ − θ'‖", each.growth, within=TOLERANCE)
        yield NumericCheck.vanishes(f"{name}: ‖w'‖ (1 − ηλ)^t / ‖w‖ − 1", each.norms, within=TOLERANCE)
        control = f"{name} with neither: largest ‖θ − θ'‖, another path"
        yield NumericCheck(control, float(each.control.max()), 1e-6, torch.inf)


def draw(ax: Axes, by_name: dict[str, PathDistance]) -> None:
    """With growth the distance is rounding noise, in the control it is not."""
    errors: dict[str, Tensor] = {}
    for name, each in by_name.items():
        errors |= {f"{name}: growth": each.growth, f"{name}: neither": each.control}
    draw_errors(ax, torch.arange(STEPS + 1), errors, TOLERANCE, "distance from the direction with decay")


CASE: Final = Case("V13", observe, checks, draw)
