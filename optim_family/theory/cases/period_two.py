"""Raw RMSprop ends in an orbit of period 2 and amplitude η/2, whatever the curvature.

On ½ h x² without decay and with ε → 0, the orbit x, −x, x, … has g² = h²x², which is v once v has settled;
then 2|x| = η|g|/√v = η, and the ratio stands at the threshold: h/√v = 2/η.

h in {0.5, 1, 7, 100}, η = 0.01, β₂ = 0.99.

Source: our own calculation.
"""

from collections.abc import Iterator
from typing import Any

import torch
from matplotlib.axes import Axes
from torch import Tensor

from optim_family import registry
from optim_family.theory.page import EXPECTED, line
from optim_family.theory.trajectory import run_optimizer
from optim_family.theory.verify import NumericCheck

LR, BETA2, STEPS, TOLERANCE = 0.01, 0.99, 2500, 1e-3
CURVATURES = torch.tensor([0.5, 1.0, 7.0, 100.0], dtype=torch.float64)


def observe() -> tuple[Tensor, Tensor]:
    """Run RMSprop from x = 0.8 η on four quadratics at once: each weight has its own curvature.

    Returns:
        All weights x before every step and after the last, [t + 1, 4].
        The ratios of h/P to 2/η at the end, [4].
    """
    w = torch.full_like(CURVATURES, 0.8 * LR).requires_grad_()
    hyper: dict[str, Any] = {"weight_decay": 0.0, "eps": 1e-300, "preconditioning": "raw"}
    optimizer = registry.load("rmsprop")([w], lr=LR, beta2=BETA2, **hyper)
    steps = run_optimizer(lambda w: 0.5 * (CURVATURES * w * w).sum(), w, optimizer, STEPS)
    x = torch.stack([w.detach().clone() for _ in steps])
    geometry = optimizer.geometry()
    return x, geometry.metric.power(-1) @ CURVATURES / geometry.threshold


def checks(evidence: tuple[Tensor, Tensor]) -> Iterator[NumericCheck]:
    """Amplitude, period and ratio, each at the curvature with the largest error."""
    (*_, before, last), ratios = evidence
    yield NumericCheck.equal("2|x| / η", 1.0, worst(2 * last.abs() / LR), within=TOLERANCE)
    yield NumericCheck.equal("−x_{t+1} / x_t", 1.0, worst(-last / before), within=TOLERANCE)
    yield NumericCheck.equal("η h / √v", 2.0, 2 * worst(ratios), within=TOLERANCE)


def worst(ratios: Tensor) -> float:
    """The ratio farthest from 1."""
    return float(ratios[(ratios - 1).abs().argmax()])


def draw(ax: Axes, evidence: tuple[Tensor, Tensor]) -> None:
    """The amplitudes settle at η/2."""
    x, _ = evidence
    for i, h in enumerate(CURVATURES.tolist()):
        ax.plot(x[:, i].abs() / LR, label=f"h = {h:g}", **line(i))
    ax.axhline(0.5, label="η/2", **EXPECTED)
    ax.set(xlabel="step", ylabel="|x| / η", ylim=(0, None))
