"""Raw RMSprop ends in an orbit of period 2 and amplitude η/2, whatever the curvature.

On ½ h x² without decay and with ε → 0, the orbit x, −x, x, … has g² = h²x², which is v once v has settled;
then 2|x| = η|g|/√v = η, and the ratio stands at the threshold: h/√v = 2/η.

h in {0.5, 1, 7, 100}, η = 0.01, β₂ = 0.99.

Source: our own calculation.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, final

import torch
from matplotlib.axes import Axes
from torch import Tensor

from optim_family import registry
from optim_family.theory.drawing import EXPECTED, line
from optim_family.theory.verify import Case, Finding
from optim_family.theory.walk import Walk

LR, BETA2, STEPS, TOLERANCE = 0.01, 0.99, 2500, 1e-3
CURVATURES = torch.tensor([0.5, 1.0, 7.0, 100.0], dtype=torch.float64)


@final
@dataclass(frozen=True)
class Orbits:
    """Four quadratics at once: each weight has its own curvature.

    Attributes:
        x: all weights before every step and after the last, [t + 1, 4].
        ratios: h/P over 2/η at the end, [4].
    """

    x: Tensor
    ratios: Tensor


def observe() -> Orbits:
    """RMSprop from x = 0.8 η."""
    walk = Walk(
        lambda w: 0.5 * (CURVATURES * w * w).sum(),
        torch.full_like(CURVATURES, 0.8 * LR),
        registry.load("rmsprop"),
        **{"lr": LR, "beta2": BETA2, "weight_decay": 0.0, "eps": 1e-300, "preconditioning": "raw"},
    )
    x = [walk.weights]
    for _ in range(STEPS):
        walk.step()
        x.append(walk.weights)
    geometry = walk.geometry
    return Orbits(torch.stack(x), geometry.metric.power(-1) @ CURVATURES / geometry.threshold)


def findings(orbits: Orbits) -> Iterator[Finding]:
    """Amplitude, period and ratio, of the curvature for which they are worst."""
    last, before = orbits.x[-1], orbits.x[-2]
    yield Finding.equal("2|x| / η", 1.0, worst(2 * last.abs() / LR), within=TOLERANCE)
    yield Finding.equal("−x_{t+1} / x_t", 1.0, worst(-last / before), within=TOLERANCE)
    yield Finding.equal("η h / √v", 2.0, 2 * worst(orbits.ratios), within=TOLERANCE)


def worst(ratios: Tensor) -> float:
    """The one farthest from 1."""
    return float(ratios[(ratios - 1).abs().argmax()])


def draw(ax: Axes, orbits: Orbits) -> None:
    """The amplitudes settle at η/2."""
    for i, h in enumerate(CURVATURES.tolist()):
        ax.plot(orbits.x[:, i].abs() / LR, label=f"h = {h:g}", **line(i))
    ax.axhline(0.5, label="η/2", **EXPECTED)
    ax.set(xlabel="step", ylabel="|x| / η", ylim=(0, None))


CASE: Final = Case("V8", observe, findings, draw)
