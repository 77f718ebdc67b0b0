"""GD with weight decay follows the sharpness-reduction flow, more closely the smaller ηλ is.

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
from optim_family.theory.flow_comparison import Setting
from optim_family.theory.page import EXPECTED, dots, line
from optim_family.theory.toys import Regression, Toy, Valley, unit
from optim_family.theory.trajectory import midpoints
from optim_family.theory.verify import Case, NumericCheck

LR, TAU, TIMES = 0.1, 2.0, 125
ETA_LAMBDAS = (3.2e-3, 1.6e-3, 8e-4, 4e-4)  # ηλ
ORDERS = {"weights": 0.5, "midpoints": 1.0}
TOLERANCE = 0.1  # of an exponent


@final
@dataclass(frozen=True)
class Distances:
    """The largest ‖θ − ζ‖ for each of ETA_LAMBDAS, [4]: of the weights, and of their midpoints."""

    weights: Tensor
    midpoints: Tensor

    def order(self, which: str) -> float:
        """The exponent p of distance ∝ (ηλ)^p, by least squares."""
        x = torch.tensor(ETA_LAMBDAS, dtype=torch.float64).log()
        y = getattr(self, which).log()
        return float((x - x.mean()) @ y / (x - x.mean()).square().sum())


def observe() -> dict[str, Distances]:
    """Run both toys."""
    toys: dict[str, Toy] = {"linear regression": Regression.make(), "valley on S²": Valley()}
    return {name: distances(toy) for name, toy in toys.items()}


def distances(toy: Toy) -> Distances:
    """Compare gradient descent with the flow at TIMES times."""
    tau = torch.linspace(0, TAU, TIMES + 1, dtype=torch.float64)
    zeta = flow.integrate(toy.loss, toy.start(), tau, flow.GRADIENT_DESCENT).points[1:]
    pairs = torch.tensor(
        [_distances(toy, zeta, eta_lambda) for eta_lambda in ETA_LAMBDAS], dtype=torch.float64
    )
    return Distances(*pairs.T)


def _distances(toy: Toy, zeta: Tensor, eta_lambda: float) -> tuple[float, float]:
    """The largest distances of weights and midpoints for one ηλ."""
    steps = round(TAU / eta_lambda)
    path = Setting(toy, LR, eta_lambda, TAU).descend(steps + 1)
    at = torch.arange(1, TIMES + 1) * steps // TIMES
    pair = path.directions[at], unit(midpoints(path.weights))[at - 1]
    of_weights, of_midpoints = (float((points - zeta).norm(dim=1).max()) for points in pair)
    return of_weights, of_midpoints


def checks(by_toy: dict[str, Distances]) -> Iterator[NumericCheck]:
    """The exponents of each toy."""
    for name, toy in by_toy.items():
        for which, order in ORDERS.items():
            quantity = f"{name}: p in max ‖θ − ζ‖ ∝ (ηλ)^p, {which}"
            yield NumericCheck.equal(quantity, order, toy.order(which), within=TOLERANCE)


def draw(ax: Axes, by_toy: dict[str, Distances]) -> None:
    """Distances against ηλ, with both predicted slopes."""
    x = torch.tensor(ETA_LAMBDAS, dtype=torch.float64)
    for index, (name, toy) in enumerate(by_toy.items()):
        for offset, which in enumerate(ORDERS):
            style = line(index) | dots(2 * index + offset) | {"color": line(index)["color"]}
            ax.plot(x, getattr(toy, which), label=f"{name}, {which}", **style | {"linestyle": "-"})
    for which, order in ORDERS.items():
        top = max(float(getattr(toy, which)[0]) for toy in by_toy.values())
        ax.plot(x, 1.25 * top * (x / x[0]) ** order, label=f"slope {order:g}", **EXPECTED)
    ax.set(xscale="log", yscale="log", xlabel="ηλ", ylabel="largest distance from the flow, τ ≤ 2")
    ax.set_xticks(ETA_LAMBDAS, [f"{eta_lambda:g}" for eta_lambda in ETA_LAMBDAS], minor=False)
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_ylim(bottom=ax.get_ylim()[0] / 5)  # room for the legend


CASE: Final = Case("V9", observe, checks, draw)
