"""Scalar RMSprop follows its own sharpness-reduction flow, without weight decay.

    dζ/dτ = −∇_Γ log λ₁ / (4 + 2q/C),   τ = η²t,   C = (1 − β)/(βη²),   q = ‖∇_Γ log λ₁‖²

On L = ½ (1 + u²) x² the minimisers are x = 0, λ₁ = 1 + u², and the flow has the closed form

    F(u(τ)) = F(u₀) − τ,   F(u) = 2 log u + u² + (2/C) log(1 + u²).

Raw RMSprop with one second moment for all weights, v updated before the step, η = 0.02, β = 0.9992, from
the edge at (x, u) = (η/2, 1.5).

Source: K. Lyu, Z. Li, S. Arora, "Understanding the generalization benefit of normalization layers:
sharpness reduction", NeurIPS 2022, for the flow of quasi-RMSprop schedules; constants and closed form are
our own calculation.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from matplotlib.axes import Axes
from scipy.optimize import brentq
from torch import Tensor

from optim_family.theory import flow
from optim_family.theory.page import EXPECTED, dots
from optim_family.theory.toys import Parabolas
from optim_family.theory.trajectory import Trajectory, record_trajectory
from optim_family.theory.verify import NumericCheck

LR, BETA, START, TIMES, TOLERANCE = 0.02, 0.9992, 1.5, (1, 2, 3, 4), 0.01
EVERY = 50  # steps between two records


def observe() -> tuple[Trajectory, Tensor]:
    """Run RMSprop, and integrate the flow on the loss.

    Returns:
        The path of RMSprop, whose weights are (x, u).
        u of the flow at τ = 0 and at TIMES.
    """
    toy, start = Parabolas(START), torch.tensor([LR / 2, START], dtype=torch.float64)
    hyper: dict[str, Any] = {"lr": LR, "beta2": BETA, "weight_decay": 0.0, "eps": 0.0}
    hyper |= {"moment": "scalar", "preconditioning": "raw"}
    steps = round(TIMES[-1] / LR**2)
    path = record_trajectory(toy.loss, start, steps, "rmsprop", every=EVERY, measure_ratio=True, **hyper)
    tau = torch.tensor([0, *TIMES], dtype=torch.float64)
    integrated = flow.integrate(toy.loss, toy.start(), tau, flow.scalar_rmsprop(LR, BETA))
    return path, integrated.points[:, 1]


def coupling() -> float:
    """C."""
    return (1 - BETA) / (BETA * LR**2)


def closed_form(tau: float) -> float:
    """u(τ)."""
    return float(brentq(lambda u: _f(u) - _f(START) + tau, 1e-3, START))


def _f(u: float) -> float:
    return 2 * math.log(u) + u**2 + 2 / coupling() * math.log(1 + u**2)


def checks(evidence: tuple[Trajectory, Tensor]) -> Iterator[NumericCheck]:
    """u of RMSprop and of the integrated flow, and the ratio, which is 1 throughout."""
    path, integrated = evidence
    for tau in TIMES:
        u = path.weights[int((LR**2 * path.steps - tau).abs().argmin()), 1]
        yield NumericCheck.equal(f"u of RMSprop at τ = {tau}", closed_form(tau), float(u), within=TOLERANCE)
    quantity = f"u of the integrated flow at τ = {TIMES[-1]}"
    yield NumericCheck.equal(quantity, closed_form(TIMES[-1]), float(integrated[-1]), within=1e-6)
    yield NumericCheck.equal("λ₁/√v over 2/η, the mean", 1.0, float(path.ratios.mean()), within=TOLERANCE)
    yield NumericCheck.vanishes("λ₁/√v over 2/η, farthest from 1", path.ratios - 1, within=TOLERANCE)


def draw(ax: Axes, evidence: tuple[Trajectory, Tensor]) -> None:
    """u against τ = η²t."""
    path, integrated = evidence
    tau = torch.linspace(0, TIMES[-1], 100)
    ax.plot(tau, [closed_form(float(t)) for t in tau], label="closed form of the flow", **EXPECTED)
    ax.plot(LR**2 * path.steps[::5], path.weights[::5, 1], label="scalar RMSprop", **dots(0))
    ring = dots(1) | {"markersize": 9, "mfc": "none"}
    ax.plot((0, *TIMES), integrated, label="integrated flow", **ring)
    ax.set(xlabel="τ = η²t", ylabel="u, with λ₁ = 1 + u²")
