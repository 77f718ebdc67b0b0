"""Linear regression with BN: the sharpness falls to that of the minimum-norm interpolator, and how fast.

    f(x) = σ_y ⟨x − μ, w⟩ / √(wᵀΣw) + μ_y,   L = ½ mean (f − y)²

With w̃ = σ_y w / √(wᵀΣw), interpolators have S = ‖w̃‖² λ₁(Σ − Σw̃w̃ᵀΣ/(w̃ᵀΣw̃)), whose second factor is the
same for all of them: S = S_min (1 + tan² φ) at the angle φ to the one of least norm. Along the
sharpness-reduction flow tan φ(τ) = tan φ₀ e^{−τ}, so that gradient descent with weight decay, started at
its edge, has

    S(t) = S_min (1 + tan² φ₀ e^{−2ηλt}).

n = 6 examples in d = 12 dimensions, η = 0.1, λ = 0.002, tan φ₀ = 2.57, ηλt in [0, 4]. S is read at the
midpoints (w_{t−1} + 2w_t + w_{t+1})/4, which take the oscillation out: the weights themselves read high and
low in turn.

Source: K. Lyu, Z. Li, S. Arora, "Understanding the generalization benefit of normalization layers:
sharpness reduction", NeurIPS 2022, for the setting and the flow; the closed form is our own calculation.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, final

import torch
from matplotlib.axes import Axes
from torch import Tensor

from optim_family.figures.curves import log_axis
from optim_family.theory.drawing import EXPECTED, dots, largest, line
from optim_family.theory.toys import Regression
from optim_family.theory.trajectory import at_the_edge, descend, midpoints, sharpness_along
from optim_family.theory.verify import Case, Finding

LR, WEIGHT_DECAY, TAU, TAN, TOLERANCE = 0.1, 0.002, 4.0, 2.57, 0.01
EVERY = 250  # steps between two readings


@final
@dataclass(frozen=True)
class Fall:
    """Sharpness along gradient descent.

    Attributes:
        tau: ηλt of the readings, [m].
        midpoint: S at the midpoints, [m].
        even: S at the weights, after an even number of steps, [m].
        odd: S at the weights one step later, [m].
        expected: the closed form, [m].
    """

    tau: Tensor
    midpoint: Tensor
    even: Tensor
    odd: Tensor
    expected: Tensor


def observe() -> Fall:
    """The whole descent."""
    toy = Regression.make(n=6, d=12, tan_angle=TAN)
    start = at_the_edge(toy.loss, toy.start(), lr=LR, weight_decay=WEIGHT_DECAY)
    steps = round(TAU / (LR * WEIGHT_DECAY))
    path = descend(toy.loss, start, steps + 1, "gd", lr=LR, weight_decay=WEIGHT_DECAY)
    at = torch.arange(EVERY, steps + 1, EVERY)
    tau, least = path.tau[at], toy.sharpness(toy.minimiser(0.0))
    return Fall(
        tau,
        sharpness_along(toy.loss, midpoints(path.weights)[at - 1]),
        sharpness_along(toy.loss, path.weights[at]),
        sharpness_along(toy.loss, path.weights[at + 1]),
        least * (1 + TAN**2 * torch.exp(-2 * tau)),
    )


def findings(fall: Fall) -> Iterator[Finding]:
    """At some times, and at all of them."""
    for tau in (1.0, 2.0, 4.0):
        at = int((fall.tau - tau).abs().argmin())
        yield Finding.equal(
            f"S at τ = {tau:g}", float(fall.expected[at]), float(fall.midpoint[at]), within=TOLERANCE
        )
    error = largest(fall.midpoint / fall.expected - 1)
    yield Finding.vanishes(f"S: largest relative error at {len(fall.tau)} times", error, within=TOLERANCE)


def draw(ax: Axes, fall: Fall) -> None:
    """The closed form, and the two readings."""
    ax.plot(fall.tau, fall.expected, label="S_min (1 + tan² φ₀ exp(−2τ))", **EXPECTED)
    ax.plot(fall.tau, fall.midpoint, label="gradient descent, at midpoints", **dots(0))
    ax.plot(fall.tau, fall.even, label="at the weights, even steps", **line(1))
    ax.plot(fall.tau, fall.odd, label="at the weights, odd steps", **line(2))
    ax.set(xlabel="τ = ηλt", ylabel="spherical sharpness S")
    log_axis(ax, [fall.expected.tolist()])


CASE: Final = Case("V5", observe, findings, draw)
