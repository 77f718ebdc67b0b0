"""Gradient descent that starts beyond its threshold on a product of layers is thrown to a flatter minimum.

f = u·v/√m with u, v in ℝᵐ, L = f²/2 and Λ = (‖u‖² + ‖v‖²)/m, the curvature of L where f = 0. A step is
exactly

    f⁺ = f (1 − ηΛ + η² f²/m),    Λ⁺ = Λ + (η f²/m)(ηΛ − 4),

and started at ηΛ = 2.5, between 2 and 4, it ends at ηΛ < 2. A hundred real steps of gd, m = 64, η = 0.5.

Source: A. Lewkowycz, Y. Bahri, E. Dyer, J. Sohl-Dickstein, G. Gur-Ari, "The large learning rate phase of
deep learning: the catapult mechanism" (2020).
"""

import math
from collections.abc import Iterator

from matplotlib.axes import Axes
from torch import Tensor

from optim_family.theory.page import EXPECTED, line
from optim_family.theory.toys import gaussian
from optim_family.theory.trajectory import record_trajectory
from optim_family.theory.verify import NumericCheck

WIDTH, LR, START, STEPS, TOLERANCE = 64, 0.5, 2.5, 100, 1e-12
Evidence = tuple[Tensor, Tensor]


def observe() -> Evidence:
    """f and ηΛ before every step and after the last, [t + 1] each."""
    start = gaussian(4)(2 * WIDTH)
    start *= math.sqrt(START / LR * WIDTH) / start.norm()

    def loss(w: Tensor) -> Tensor:
        return 0.5 * ((w[:WIDTH] @ w[WIDTH:]) / math.sqrt(WIDTH)) ** 2

    weights = record_trajectory(loss, start, STEPS, lr=LR, weight_decay=0.0).weights
    u, v = weights[:, :WIDTH], weights[:, WIDTH:]
    return (u * v).sum(1) / math.sqrt(WIDTH), LR * weights.square().sum(1) / WIDTH


def checks(evidence: Evidence) -> Iterator[NumericCheck]:
    """Both recursions at every step, and where the path ends."""
    f, scaled = evidence
    kick = LR * f**2 / WIDTH
    of_f = f[1:] - (f * (1 - scaled + LR * kick))[:-1]
    of_curvature = scaled[1:] - (scaled + LR * kick * (scaled - 4))[:-1]
    yield NumericCheck.vanishes("largest error of f⁺", of_f / f.abs().max(), within=TOLERANCE)
    yield NumericCheck.vanishes("largest error of ηΛ⁺", of_curvature, within=TOLERANCE)
    yield NumericCheck("ηΛ at the end", float(scaled[-1]), 0.0, 2.0)
    yield NumericCheck("largest |f| over the first", float(f.abs().max() / f[0].abs()), 1.5, math.inf)


def draw(ax: Axes, evidence: Evidence) -> None:
    """The curvature falls below 2/η while the loss rises and falls."""
    f, scaled = evidence
    ax.plot(scaled, label="ηΛ", **line(0))
    ax.plot(f.abs() / f.abs().max(), label="|f| over its largest value", **line(1))
    ax.axhline(2, label="edge of stability", **EXPECTED)
    ax.set(xlabel="step", ylabel="ηΛ")
