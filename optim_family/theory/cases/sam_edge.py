"""SAM ends in an orbit whose curvature depends on the gradient.

SAM with radius r steps by the gradient at w + r g/‖g‖. On ½ h x² with decay s = ηλ the orbit x, −x, … has (2
− s) |x| = η h (|x| + r). With the gradient |g| = h |x| in this orbit,

    h = |g|/(2r) · (√(1 + 4 (2 − s) r/(η |g|)) − 1)

for every curvature h below (2 − s)/η: 1.9025, 5.4031, 12.3607 for |g| = 0.01, 0.1, 1 at η = 0.1, r = 0.05
and s = 0. The curvatures here are these three, and the real steps are those of `sam` around gd, with s = 0
and 0.1.

Source: P. Long, P. Bartlett, "Sharpness-aware minimization and the edge of stability" (2024), without decay.
"""

from collections.abc import Iterator

import torch
from matplotlib.axes import Axes
from torch import Tensor

from optim_family import registry
from optim_family.theory.page import EXPECTED, line
from optim_family.theory.verify import NumericCheck

LR, RADIUS, STEPS, TOLERANCE = 0.1, 0.05, 1000, 1e-12
GRADIENTS = (0.01, 0.1, 1.0)
EDGES = (1.9025, 5.4031, 12.3607)
DECAYS = (0.0, 0.1)
Evidence = dict[tuple[float, float], tuple[float, Tensor]]


def observe() -> Evidence:
    """By s and ‖g‖: the curvature, and the declared edge over it at every step, [t]."""
    return {(s, g): _path(_curvature(s, g), s) for s in DECAYS for g in GRADIENTS}


def _curvature(s: float, g: float) -> float:
    """The edge for a gradient: the larger root of r h² + g h − (2 − s) g/η."""
    return float((-g + (g * g + 4 * RADIUS * (2 - s) * g / LR) ** 0.5) / (2 * RADIUS))


def _path(h: float, s: float) -> tuple[float, Tensor]:
    w = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    optimizer = registry.load("sam")([w], lr=LR, weight_decay=s / LR, radius=RADIUS)

    def closure() -> float:
        w.grad = h * w.detach()
        return 0.5 * h * float(w.detach()) ** 2

    edges = []
    for _ in range(STEPS):
        optimizer.step(closure)
        closure()
        edges.append(optimizer.geometry().threshold / h)
    assert w.grad is not None
    return float(w.grad.abs()), torch.tensor(edges, dtype=torch.float64)


def checks(evidence: Evidence) -> Iterator[NumericCheck]:
    """The gradient of each orbit, the declared edge, and the numbers of the closed form."""
    for (s, g), (measured, edges) in evidence.items():
        name = f"s = {s:g}, |g| = {g:g}"
        yield NumericCheck.equal(f"{name}: |g| in the orbit", g, measured, within=TOLERANCE)
        yield NumericCheck.equal(f"{name}: declared edge / h", 1.0, float(edges[-1]), within=TOLERANCE)
    for g, edge in zip(GRADIENTS, EDGES, strict=True):
        yield NumericCheck.equal(f"edge at |g| = {g:g}", edge, _curvature(0.0, g), within=5e-5)


def draw(ax: Axes, evidence: Evidence) -> None:
    """The declared edge settles at the curvature."""
    for index, ((s, g), (_, edges)) in enumerate(evidence.items()):
        ax.plot(edges[:60], label=f"s = {s:g}, |g| = {g:g}", **line(index))
    ax.axhline(1, label="edge of SAM", **EXPECTED)
    ax.set(xlabel="step", ylabel="declared edge / curvature", ylim=(0, 3))
