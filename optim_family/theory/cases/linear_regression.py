"""Linear regression with BN: the sharpness falls to that of the minimum-norm interpolator, in closed form.

    f(x) = σ_y ⟨x − μ, w⟩ / √(wᵀΣw) + μ_y,   L = ½ mean (f − y)²

With w̃ = σ_y w / √(wᵀΣw), interpolators have S = ‖w̃‖² λ₁(Σ − Σw̃w̃ᵀΣ/(w̃ᵀΣw̃)), whose second factor is the
same for all of them: S = S_min (1 + tan² φ) at the angle φ to the one of least norm. Along the
sharpness-reduction flow tan φ(τ) = tan φ₀ e^{−τ}, so that gradient descent with weight decay, started at
its edge, has

    S(t) = S_min (1 + tan² φ₀ e^{−2ηλt}).

n = 6 examples in d = 12 dimensions, η = 0.1, λ = 0.002, tan φ₀ = 2.57, ηλt in [0, 4]. S is measured at
the midpoints (w_{t−1} + 2w_t + w_{t+1})/4, which remove the oscillation: at the weights themselves it is too
high and too low in turn.

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
from optim_family.theory.page import EXPECTED, dots, line
from optim_family.theory.toys import Regression
from optim_family.theory.trajectory import midpoints, record_trajectory, sharpness_along, start_at_edge
from optim_family.theory.verify import Case, NumericCheck

LR, WEIGHT_DECAY, TAU, TAN, TOLERANCE = 0.1, 0.002, 4.0, 2.57, 0.01
EVERY = 250  # steps between two measurements


@final
@dataclass(frozen=True)
class SharpnessDecay:
    """Sharpness along gradient descent.

    Attributes:
        tau: ηλt of the measurements, [m].
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


def observe() -> SharpnessDecay:
    """Run gradient descent from its edge."""
    toy = Regression.make(n=6, d=12, tan_angle=TAN)
    start = start_at_edge(toy.loss, toy.start(), lr=LR, weight_decay=WEIGHT_DECAY)
    steps = round(TAU / (LR * WEIGHT_DECAY))
    path = record_trajectory(toy.loss, start, steps + 1, lr=LR, weight_decay=WEIGHT_DECAY)
    at = torch.arange(EVERY, steps + 1, EVERY)
    return SharpnessDecay(
        path.tau[at],
        sharpness_along(toy.loss, midpoints(path.weights)[at - 1]),
        sharpness_along(toy.loss, path.weights[at]),
        sharpness_along(toy.loss, path.weights[at + 1]),
        toy.sharpness_at(path.tau[at]),
    )


def checks(decay: SharpnessDecay) -> Iterator[NumericCheck]:
    """S at three times, and the largest error over all times."""
    for tau in (1.0, 2.0, 4.0):
        at = int((decay.tau - tau).abs().argmin())
        expected, measured = float(decay.expected[at]), float(decay.midpoint[at])
        yield NumericCheck.equal(f"S at τ = {tau:g}", expected, measured, within=TOLERANCE)
    errors, quantity = decay.midpoint / decay.expected - 1, "S: largest relative error"
    yield NumericCheck.vanishes(f"{quantity} at {len(decay.tau)} times", errors, within=TOLERANCE)


def draw(ax: Axes, decay: SharpnessDecay) -> None:
    """The closed form, and S at midpoints and at weights."""
    ax.plot(decay.tau, decay.expected, label="S_min (1 + tan² φ₀ exp(−2τ))", **EXPECTED)
    ax.plot(decay.tau, decay.midpoint, label="gradient descent, at midpoints", **dots(0))
    ax.plot(decay.tau, decay.even, label="at the weights, even steps", **line(1))
    ax.plot(decay.tau, decay.odd, label="at the weights, odd steps", **line(2))
    ax.set(xlabel="τ = ηλt", ylabel="spherical sharpness S")
    log_axis(ax, [decay.expected.tolist()])


CASE: Final = Case("V5", observe, checks, draw)
