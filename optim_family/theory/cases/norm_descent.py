"""A normalised step ends in an orbit at S_N / N*(g) = (2 − ηλ)/η, whatever the curvature.

N is the norm of the steps, N* its dual, S_N = max dᵀHd over N(d) = 1. In an orbit of period 2 every entry of
a diagonal quadratic, and every singular value of a matrix on ½ h ‖W‖², has the amplitude η/(2 − ηλ). The
mean of N*(g)/S_N over the orbit is then η/(2 − ηλ), that is the harmonic mean of S_N/N*(g) is (2 − ηλ)/η.

signgd (N the largest entry, S_N the trace of H) with h from 0.5 to 7, and muon without momentum and with
exact polar factors (N the spectral norm, S_N = h · 3 for 4 × 3 matrices times r² = 4/3), η = 0.01, with ηλ =
0 and ηλ = 0.02.

Source: R. Islamov, M. Crawshaw, J. Cohen, R. Gower, arXiv:2603.05002 (2026); with decay our own calculation.
"""

from collections.abc import Iterator
from typing import Any

import torch
from matplotlib.axes import Axes
from torch import Tensor

from optim_family import registry
from optim_family.theory.page import EXPECTED, line
from optim_family.theory.toys import gaussian
from optim_family.theory.trajectory import run_optimizer
from optim_family.theory.verify import NumericCheck

LR, STEPS, WINDOW, TOLERANCE = 0.01, 2000, 20, 1e-10
ETA_LAMBDAS = (0.0, 0.02)
CURVATURES = torch.linspace(0.5, 7, 12, dtype=torch.float64)
EXACT: dict[str, Any] = {"momentum": 0.0, "polar": "svd"}


def observe() -> dict[str, tuple[float, Tensor]]:
    """The predicted harmonic mean times η, and η S_N/N*(g) at every step, [t + 1]."""
    evidence = {}
    for eta_lambda in ETA_LAMBDAS:
        mark = f", ηλ = {eta_lambda:g}"
        diagonal = CURVATURES.clone(), float(CURVATURES.sum()), gaussian(1)(12)
        evidence["signs" + mark] = 2 - eta_lambda, _ratios("signgd", *diagonal, eta_lambda)
        matrix = torch.tensor(3.0, dtype=torch.float64), 3.0 * 3 * 4 / 3, gaussian(2)(4, 3)
        evidence["polar factors" + mark] = 2 - eta_lambda, _ratios("muon", *matrix, eta_lambda)
    return evidence


def _ratios(name: str, h: Tensor, sharpness: float, start: Tensor, eta_lambda: float) -> Tensor:
    """η S_N / N*(g) along the path on ½ Σ h w², with S_N in closed form and N* declared by the optimizer."""
    w = start.clone().mul_(3 * LR).requires_grad_()
    options = EXACT if name == "muon" else {}
    optimizer = registry.load(name)([w], lr=LR, weight_decay=eta_lambda / LR, **options)
    norm = optimizer.geometry().norm
    assert norm is not None
    steps = run_optimizer(lambda w: 0.5 * (h * w * w).sum(), w, optimizer, STEPS)
    ratios = [LR * sharpness / norm.dual((h * w.detach()).flatten()) for _ in steps]
    return torch.tensor(ratios, dtype=torch.float64)


def checks(evidence: dict[str, tuple[float, Tensor]]) -> Iterator[NumericCheck]:
    """The harmonic mean over whole periods, late."""
    for name, (expected, ratios) in evidence.items():
        mean = float(1 / (1 / ratios[-WINDOW:]).mean())
        yield NumericCheck.equal(f"{name}: η S_N / N*(g)", expected, mean, within=TOLERANCE)


def draw(ax: Axes, evidence: dict[str, tuple[float, Tensor]]) -> None:
    """The harmonic means over two steps settle at 2 − ηλ."""
    for index, (name, (expected, ratios)) in enumerate(evidence.items()):
        means = 2 / (1 / ratios[1:] + 1 / ratios[:-1])
        ax.plot(means / expected, label=name, **line(index))
    ax.axhline(1, label="(2 − ηλ)/η", **EXPECTED)
    ax.set(xlabel="step", ylabel="harmonic mean of S_N / N*(g), over (2 − ηλ)/η", xlim=(0, 200))
