"""GD with weight decay follows the sharpness-reduction flow, more closely the smaller ηλ is.

    dζ/dτ = −2 ∇_Γ log λ₁ / (4 + q),   τ = ηλt,   q = ‖∇_Γ log λ₁‖²

From the edge of stability at a minimiser, for τ in [0, 2], the direction θ_t stays within O(√(ηλ)) of ζ(τ):
that is the oscillation, of amplitude √(2ηλ/(4 + q)). Its midpoints (θ_{t−1} + 2θ_t + θ_{t+1})/4 stay within
O(ηλ).

On linear regression with BN and in a curved valley on S², for ηλ = 3.2, 1.6, 0.8 and 0.4 · 10⁻³; the
exponents are fitted over these four.

Source: K. Lyu, Z. Li, S. Arora, "Understanding the generalization benefit of normalization layers:
sharpness reduction", NeurIPS 2022, for the flow and the first bound, up to logarithms; the second is our
own observation.
"""

from collections.abc import Iterator
from dataclasses import replace

from matplotlib.axes import Axes
from torch import Tensor

from optim_family.theory.flow_comparison import ORDERS, SETTINGS, distances, exponent
from optim_family.theory.flow_figures import draw_convergence
from optim_family.theory.verify import NumericCheck

TAU, TIMES = 2.0, 125
ETA_LAMBDAS = (3.2e-3, 1.6e-3, 8e-4, 4e-4)
TOYS = {"linear regression": "regression", "valley on S²": "valley"}
TOLERANCE = 0.1  # of an exponent


def observe() -> dict[str, Tensor]:
    """The largest ‖θ − ζ‖ of iterates and midpoints for each ηλ, [s, 2], by toy."""
    return {
        name: distances(replace(SETTINGS[toy], end=TAU), ETA_LAMBDAS, TIMES, begin=TAU / TIMES)
        for name, toy in TOYS.items()
    }


def checks(lengths: dict[str, Tensor]) -> Iterator[NumericCheck]:
    """The exponents of each toy."""
    for name, pairs in lengths.items():
        for (points, order), column in zip(ORDERS.items(), pairs.T, strict=True):
            quantity = f"{name}: p in max ‖θ − ζ‖ ∝ (ηλ)^p, {points}"
            yield NumericCheck.equal(quantity, order, exponent(ETA_LAMBDAS, column), within=TOLERANCE)


def draw(ax: Axes, lengths: dict[str, Tensor]) -> None:
    """Distances against √(ηλ), with their exponents."""
    draw_convergence(ax, ETA_LAMBDAS, lengths)
