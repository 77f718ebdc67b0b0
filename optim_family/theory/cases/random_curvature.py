"""With random curvature the threshold of momentum depends on the batch, by a factor of 19 at β = 0.9.

Every step has the curvature h with probability p, else 0. Heavy ball is linear in (w, m); it is stable in
mean square while the map of the second moments E[(w², wm, m²)] has a spectral radius below 1. The threshold
of h, times η, is

    2 (1 + β) = 3.8     for p = 1, one curvature in every step, as with large batches
    0.38                for p = 1/2
    0.2019              for p = 0.01, close to 2 (1 − β) = 0.2, as with small batches

at β = 0.9, and 2 for every p at β = 0. The linear map is that of real steps of gd.

Source: arXiv:2604.14108 (2026), for both plateaus; this model: our own calculation.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.optimize import brentq

from optim_family import registry
from optim_family.theory.page import EXPECTED, line
from optim_family.theory.verify import NumericCheck

LR, BETA, TOLERANCE = 0.1, 0.9, 1e-3
EXPECTED_THRESHOLDS: Final = {(BETA, 1.0): 3.8, (BETA, 0.5): 0.38, (BETA, 0.01): 0.2019}
PLAIN: Final = {(0.0, 1.0): 2.0, (0.0, 0.5): 2.0, (0.0, 0.01): 2.0}
DRAWN = np.geomspace(0.002, 1, 40)
Matrix = NDArray[np.float64]
Evidence = tuple[dict[tuple[float, float], float], Matrix]


def observe() -> Evidence:
    """η times the threshold by (β, p), and for the figure at β = 0.9 over p."""
    measured = {(beta, p): threshold(beta, p) for beta, p in EXPECTED_THRESHOLDS | PLAIN}
    return measured, np.array([threshold(BETA, p) for p in DRAWN])


def threshold(beta: float, p: float) -> float:
    """η h at which the spectral radius of the map of second moments is 1, from below."""
    idle = _moments(step_matrix(beta, 0.0))

    def excess(scaled: float) -> float:
        mean = p * _moments(step_matrix(beta, scaled / LR)) + (1 - p) * idle
        return float(np.abs(np.linalg.eigvals(mean)).max()) - 1

    return float(brentq(excess, 1e-2, 8.0, xtol=1e-10))


def step_matrix(beta: float, h: float) -> Matrix:
    """The linear map (w, m) → (w⁺, m⁺) of one real step on ½ h w², column by column."""
    columns = []
    for w_start, m_start in ((1.0, 0.0), (0.0, 1.0)):
        w = torch.tensor([w_start], dtype=torch.float64, requires_grad=True)
        optimizer = registry.load("gd")([w], lr=LR, weight_decay=0.0, momentum=beta)
        optimizer.state[w]["m"] = torch.tensor([m_start], dtype=torch.float64)
        w.grad = h * w.detach()
        optimizer.step()
        m = optimizer.state[w]["m"] if beta else w.grad
        columns.append([float(w.detach()), float(m)])
    return np.array(columns).T


def _moments(a: Matrix) -> Matrix:
    """The map of E[x xᵀ], [4, 4]; momentum adds a fixed direction only through w."""
    return np.asarray(np.kron(a, a), dtype=np.float64)


def checks(evidence: Evidence) -> Iterator[NumericCheck]:
    """The thresholds of the statement."""
    for (beta, p), expected in (EXPECTED_THRESHOLDS | PLAIN).items():
        measured = evidence[0][beta, p]
        yield NumericCheck.equal(f"β = {beta:g}, p = {p:g}: η h", expected, measured, within=TOLERANCE)


def draw(ax: Axes, evidence: Evidence) -> None:
    """From one plateau to the other."""
    ax.plot(DRAWN, evidence[1], label=f"threshold at β = {BETA:g}", **line(0))
    for value, name in ((2 * (1 - BETA), "2 (1 − β)"), (2 * (1 + BETA), "2 (1 + β)")):
        ax.axhline(value, label=name, **EXPECTED)
    ax.set(xlabel="p", ylabel="η h", xscale="log", yscale="log")
