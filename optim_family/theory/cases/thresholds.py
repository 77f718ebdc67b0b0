"""An oscillation neither grows nor dies when the curvature is at the optimizer's threshold.

On ½ h x², for a constant metric P and relative to a weight without gradient, the threshold for h/P is

    GD                           2 (1 − ηλ) / η
    Polyak's momentum            (2 + 2β) / η
    Nesterov's momentum          (2 + 2β) / ((1 + 2β) η)
    averaged momentum (AdamW)    (2 + 2β) / ((1 − β) η)
    NAdam                        (2 + 2β) / ((1 − β)(1 + 2β) η)

here with β = 0.9, without decay, and for GD also with ηλ = 0.1. P is constant because the weights are so
small that √v vanishes next to ε = 1. NAdam is torch's, without its momentum schedule.

Source: J. Cohen et al., "Gradient descent on neural networks typically occurs at the edge of stability"
(2021), and "Adaptive gradient methods at the edge of stability" (2022); with decay our own calculation.
"""

from collections.abc import Iterator
from typing import Any, Final

import torch
from matplotlib.axes import Axes
from torch import Tensor

from optim_family import registry
from optim_family.theory.page import EXPECTED, line
from optim_family.theory.trajectory import run_optimizer
from optim_family.theory.verify import NumericCheck

Growth = tuple[Tensor, float | None]
Kind = str | type[torch.optim.Optimizer]

LR, BETA, TOLERANCE = 0.1, 0.9, 1e-3
TINY = 1e-40  # a weight whose gradient vanishes next to ε
SETTLE, STEPS = 300, 200  # until the momentum has settled, and to measure growth over
FACTORS = torch.linspace(0.996, 1.004, 41, dtype=torch.float64)  # of the threshold


_TWO, _PLAIN, _FROZEN = 2 + 2 * BETA, {"weight_decay": 0.0}, {"weight_decay": 0.0, "eps": 1.0}
_NADAM = _FROZEN | {"betas": (BETA, 0.999), "momentum_decay": 1e6}
# The threshold times η, the registered name of the optimizer or its class, and its hyper-parameters.
OPTIMIZERS: Final[dict[str, tuple[float, Kind, dict[str, Any]]]] = {
    "GD": (2.0, "gd", _PLAIN),
    "GD, ηλ = 0.1": (2 * 0.9, "gd", {"weight_decay": 0.1 / LR}),
    "Polyak": (_TWO, "sgd", _PLAIN | {"momentum": BETA}),
    "Nesterov": (_TWO / (1 + 2 * BETA), "sgd", _PLAIN | {"momentum": BETA, "nesterov": True}),
    "AdamW": (_TWO / (1 - BETA), "adamw", _FROZEN | {"beta1": BETA}),
    "NAdam": (_TWO / (1 - BETA) / (1 + 2 * BETA), torch.optim.NAdam, _NADAM),
}


def observe() -> dict[str, Growth]:
    """Run every optimizer on all curvatures at once: each weight has its own."""
    return {name: measure_growth(*row) for name, row in OPTIMIZERS.items()}


def measure_growth(expected: float, kind: Kind, hyper: dict[str, Any]) -> Growth:
    """Run one optimizer on all curvatures, and on a last weight without gradient as the reference.

    Returns:
        The logarithm of the growth of the oscillation per step, at FACTORS times the expected threshold, [m].
        The threshold that the optimizer declares, times η; None if it declares none.
    """
    curvature = torch.cat([FACTORS, torch.zeros(1)]) * (expected / LR)
    w = torch.full_like(curvature, TINY).requires_grad_()
    make: Any = registry.load(kind) if isinstance(kind, str) else kind
    optimizer = make([w], lr=LR, **hyper)
    steps = run_optimizer(lambda w: 0.5 * (curvature * w * w).sum(), w, optimizer, SETTLE + STEPS)
    sizes = [w.detach().abs() for _ in steps]
    rates = (sizes[-1] / sizes[SETTLE]).log() / STEPS
    declared = LR * optimizer.geometry().threshold if hasattr(optimizer, "geometry") else None
    return rates[:-1] - rates[-1], declared


def crossing(rates: Tensor) -> float:
    """The factor at which the rate is 0, by linear interpolation; NaN if there is none."""
    above = (rates > 0).nonzero()
    if not len(above) or not (i := int(above[0])):
        return torch.nan
    share = rates[i - 1] / (rates[i - 1] - rates[i])
    return float(FACTORS[i - 1] + share * (FACTORS[i] - FACTORS[i - 1]))


def checks(growths: dict[str, Growth]) -> Iterator[NumericCheck]:
    """The curvature at which each oscillation keeps its size, and the declared threshold."""
    for name, (rates, declared) in growths.items():
        expected = OPTIMIZERS[name][0]
        measured = expected * crossing(rates)
        yield NumericCheck.equal(f"{name}: η h where it stands still", expected, measured, within=TOLERANCE)
        if declared is not None:
            yield NumericCheck.equal(f"{name}: η · declared threshold", expected, declared, within=1e-9)


def draw(ax: Axes, growths: dict[str, Growth]) -> None:
    """All rates cross zero at their threshold."""
    for index, (name, (rates, _)) in enumerate(growths.items()):
        ax.plot(FACTORS, rates.exp(), label=f"{name}: {OPTIMIZERS[name][0]:.5g}/η", **line(index))
    ax.axhline(1, label="edge of stability", **EXPECTED)
    ax.set(xlabel="curvature / threshold", ylabel="growth of the oscillation per step")
