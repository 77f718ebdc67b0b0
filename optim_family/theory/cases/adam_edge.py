"""Adam trains the same network at its own edge: λ₁(P^{-1/2} H P^{-1/2}) stands at about 38/η.

(2 + 2β₁)/((1 − β₁) η) with β₁ = 0.9 is the threshold with P held still. As P follows the gradient, Adam may
cycle somewhat below it. The network of V10, η = 0.01, β₂ = 0.999, no decay. The median of the ratio over
the second half of 4000 steps.

Source: J. Cohen et al., "Adaptive gradient methods at the edge of stability" (2022).
"""

from collections.abc import Iterator
from typing import Final

from matplotlib.axes import Axes

from optim_family.theory.drawing import draw_edge, line
from optim_family.theory.small_networks import Network
from optim_family.theory.verify import Case, Finding
from optim_family.theory.walk import Course, watch

LR, STEPS, EVERY = 1e-2, 4000, 80
LOW, HIGH = 0.8, 1.1


def observe() -> Course:
    """Adam, which is AdamW without decay."""
    network = Network.make(trained=True)
    return watch(network.loss, network.start(), STEPS, EVERY, "adamw", lr=LR, weight_decay=0.0)


def findings(course: Course) -> Iterator[Finding]:
    """The late median."""
    yield Finding("median of the ratio", course.late_ratio, LOW, HIGH)


def draw(ax: Axes, course: Course) -> None:
    """Up to the edge, and along it."""
    ax.plot(course.steps, course.ratios, label="Adam", **line(0))
    ax.axhspan(LOW, HIGH, xmin=0.5, color="#e8e8e8", zorder=0, label="where the late median must lie")
    draw_edge(ax)
    ax.set(xlabel="step", ylabel="preconditioned sharpness / threshold", ylim=(0, None))


CASE: Final = Case("V11", observe, findings, draw)
