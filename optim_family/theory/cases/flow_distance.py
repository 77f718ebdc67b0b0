"""GD with weight decay follows the sharpness-reduction flow, the closer the smaller ηλ.

    dζ/dτ = −2 ∇_Γ log λ₁ / (4 + q),   τ = ηλt,   q = ‖∇_Γ log λ₁‖²

From the edge of stability at a minimiser, for τ in [0, 2], the direction θ_t stays within O(√(ηλ)) of ζ(τ):
that is the oscillation, of amplitude √(2ηλ/(4 + q)). Its midpoints (w_{t−1} + 2w_t + w_{t+1})/4 stay within
O(ηλ).

On linear regression with BN and in a curved valley on S², for ηλ = 3.2, 1.6, 0.8 and 0.4 · 10⁻³; the
exponents are fitted over these four.

Source: K. Lyu, Z. Li, S. Arora, "Understanding the generalization benefit of normalization layers:
sharpness reduction", NeurIPS 2022, for the flow and the first bound, up to logarithms; the second is our
own observation.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, final

import torch
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter
from torch import Tensor

from optim_family.theory import flow
from optim_family.theory.drawing import EXPECTED, dots, line
from optim_family.theory.toys import Regression, Toy, Valley, unit
from optim_family.theory.trajectory import at_the_edge, descend, midpoints
from optim_family.theory.verify import Case, Finding

LR, TAU, TIMES = 0.1, 2.0, 125
SHRINKS = (3.2e-3, 1.6e-3, 8e-4, 4e-4)  # ηλ
ORDERS = {"weights": 0.5, "midpoints": 1.0}
TOLERANCE = 0.1  # of an exponent


@final
@dataclass(frozen=True)
class Distances:
    """The largest ‖θ − ζ‖ for each of SHRINKS, [4]: of the weights, and of their midpoints."""

    weights: Tensor
    midpoints: Tensor

    def order(self, which: str) -> float:
        """The exponent p of distance ∝ (ηλ)^p, by least squares."""
        x = torch.tensor(SHRINKS, dtype=torch.float64).log()
        y = getattr(self, which).log()
        return float((x - x.mean()) @ y / (x - x.mean()).square().sum())


def observe() -> dict[str, Distances]:
    """Both toys."""
    toys: dict[str, Toy] = {"linear regression": Regression.make(), "valley on S²": Valley()}
    return {name: distances(toy) for name, toy in toys.items()}


def distances(toy: Toy) -> Distances:
    """Gradient descent beside the flow, compared at TIMES times."""
    tau = torch.linspace(0, TAU, TIMES + 1, dtype=torch.float64)
    zeta = flow.integrate(toy.loss, toy.start(), tau, flow.GRADIENT_DESCENT).points[1:]
    pairs = torch.tensor([_distances(toy, zeta, shrink) for shrink in SHRINKS], dtype=torch.float64)
    return Distances(*pairs.T)


def _distances(toy: Toy, zeta: Tensor, shrink: float) -> tuple[float, float]:
    """For one ηλ."""
    decay, steps = shrink / LR, round(TAU / shrink) + 1
    start = at_the_edge(toy.loss, toy.start(), lr=LR, weight_decay=decay)
    path = descend(toy.loss, start, steps, lr=LR, weight_decay=decay)
    at = torch.arange(1, TIMES + 1) * round(TAU / shrink) // TIMES
    apart = (path.directions[at] - zeta).norm(dim=1).max()
    smooth = (unit(midpoints(path.weights))[at - 1] - zeta).norm(dim=1).max()
    return float(apart), float(smooth)


def findings(found: dict[str, Distances]) -> Iterator[Finding]:
    """The exponents of each toy."""
    for name, toy in found.items():
        for which, order in ORDERS.items():
            quantity = f"{name}: p in max ‖θ − ζ‖ ∝ (ηλ)^p, {which}"
            yield Finding.equal(quantity, order, toy.order(which), within=TOLERANCE)


def draw(ax: Axes, found: dict[str, Distances]) -> None:
    """Distances against ηλ, with both slopes."""
    x = torch.tensor(SHRINKS, dtype=torch.float64)
    for index, (name, toy) in enumerate(found.items()):
        for offset, which in enumerate(ORDERS):
            style = line(index) | dots(2 * index + offset) | {"color": line(index)["color"]}
            ax.plot(x, getattr(toy, which), label=f"{name}, {which}", **style | {"linestyle": "-"})
    for which, order in ORDERS.items():
        top = max(float(getattr(toy, which)[0]) for toy in found.values())
        ax.plot(x, 1.25 * top * (x / x[0]) ** order, label=f"slope {order:g}", **EXPECTED)
    ax.set(xscale="log", yscale="log", xlabel="ηλ", ylabel="largest distance from the flow, τ ≤ 2")
    ax.set_xticks(SHRINKS, [f"{shrink:g}" for shrink in SHRINKS], minor=False)
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_ylim(bottom=ax.get_ylim()[0] / 5)  # room for the legend


CASE: Final = Case("V9", observe, findings, draw)
