"""An oscillation neither grows nor dies when the curvature is at the optimizer's threshold.

On ½ h x², with the metric P held still and relative to a weight without gradient, the threshold for h/P is

    GD                           2 (1 − ηλ) / η
    Polyak's momentum            (2 + 2β) / η
    Nesterov's momentum          (2 + 2β) / ((1 + 2β) η)
    averaged momentum (AdamW)    (2 + 2β) / ((1 − β) η)
    NAdam                        (2 + 2β) / ((1 − β)(1 + 2β) η)

here with β = 0.9, without decay and for GD with ηλ = 0.1 too. P is held still by weights so small that √v
is nothing beside ε = 1. NAdam is torch's, without the schedule of its momentum.

Source: J. Cohen et al., "Gradient descent on neural networks typically occurs at the edge of stability"
(2021), and "Adaptive gradient methods at the edge of stability" (2022); with decay our own calculation.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from matplotlib.axes import Axes
from torch import Tensor

from optim_family import registry
from optim_family.theory.drawing import draw_edge, line
from optim_family.theory.verify import Case, Finding
from optim_family.theory.walk import Walk

LR, BETA, TOLERANCE = 0.1, 0.9, 1e-3
TINY = 1e-40  # a weight whose gradient is nothing beside ε
SETTLE, STEPS = 300, 200  # until the momentum has settled, and over which growth is taken
FACTORS = torch.linspace(0.996, 1.004, 41, dtype=torch.float64)  # of the threshold


@final
@dataclass(frozen=True)
class Row:
    """One optimizer: its threshold times η, and how to make it."""

    expected: float
    make: Callable[[], type[torch.optim.Optimizer]]
    hyper: dict[str, Any]


def _family(name: str) -> Callable[[], type[torch.optim.Optimizer]]:
    return lambda: registry.load(name)


_TWO, _PLAIN, _STILL = 2 + 2 * BETA, {"weight_decay": 0.0}, {"weight_decay": 0.0, "eps": 1.0}
ROWS: Final = {
    "GD": Row(2.0, _family("gd"), _PLAIN),
    "GD, ηλ = 0.1": Row(2 * 0.9, _family("gd"), {"weight_decay": 0.1 / LR}),
    "Polyak": Row(_TWO, _family("sgd"), _PLAIN | {"momentum": BETA}),
    "Nesterov": Row(_TWO / (1 + 2 * BETA), _family("sgd"), _PLAIN | {"momentum": BETA, "nesterov": True}),
    "AdamW": Row(_TWO / (1 - BETA), _family("adamw"), _STILL | {"beta1": BETA}),
    "NAdam": Row(
        _TWO / (1 - BETA) / (1 + 2 * BETA),
        lambda: torch.optim.NAdam,
        _STILL | {"betas": (BETA, 0.999), "momentum_decay": 1e6},
    ),
}


@final
@dataclass(frozen=True)
class Growth:
    """How an oscillation grows.

    Attributes:
        rates: the logarithm of its growth in a step, at FACTORS times the expected threshold, [m].
        declared: the optimizer's own threshold times η, where it declares one.
    """

    rates: Tensor
    declared: float | None


def observe() -> dict[str, Growth]:
    """Every optimizer, on all curvatures at once: each weight has its own."""
    return {name: grow(row) for name, row in ROWS.items()}


def grow(row: Row) -> Growth:
    """The rates of a row; the last weight has no gradient, and the rates are relative to it."""
    curvature = torch.cat([FACTORS, torch.zeros(1)]) * (row.expected / LR)
    start = torch.full_like(curvature, TINY)
    walk = Walk(lambda w: 0.5 * (curvature * w * w).sum(), start, row.make(), lr=LR, **row.hyper)
    sizes = []
    for steps in (SETTLE, STEPS):
        for _ in range(steps):
            walk.step()
        sizes.append(walk.weights.abs())
    rates = (sizes[1] / sizes[0]).log() / STEPS
    declared = LR * walk.geometry.threshold if hasattr(walk.optimizer, "geometry") else None
    return Growth(rates[:-1] - rates[-1], declared)


def crossing(rates: Tensor) -> float:
    """The factor at which a rate is 0, by linear interpolation; NaN if it never is."""
    above = (rates > 0).nonzero()
    if not len(above) or not (i := int(above[0])):
        return torch.nan
    share = rates[i - 1] / (rates[i - 1] - rates[i])
    return float(FACTORS[i - 1] + share * (FACTORS[i] - FACTORS[i - 1]))


def findings(grown: dict[str, Growth]) -> Iterator[Finding]:
    """Where each oscillation stands still, and what the optimizer declares."""
    for name, growth in grown.items():
        expected = ROWS[name].expected
        stands = expected * crossing(growth.rates)
        yield Finding.equal(f"{name}: η h where it stands still", expected, stands, within=TOLERANCE)
        if growth.declared is not None:
            yield Finding.equal(f"{name}: η · declared threshold", expected, growth.declared, within=1e-9)


def draw(ax: Axes, grown: dict[str, Growth]) -> None:
    """All rates cross zero at their threshold."""
    for index, (name, growth) in enumerate(grown.items()):
        ax.plot(FACTORS, growth.rates.exp(), label=f"{name}: {ROWS[name].expected:.5g}/η", **line(index))
    draw_edge(ax)
    ax.set(xlabel="curvature / threshold", ylabel="growth of the oscillation in a step")


CASE: Final = Case("V7", observe, findings, draw)
