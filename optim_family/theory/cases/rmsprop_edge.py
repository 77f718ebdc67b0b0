"""RMSprop trains a network with BN at its own edge: λ₁(P^{-1/2} H P^{-1/2}) stands at 2/η.

A tanh network 10-20-1 with BN, 40 examples, ½ mean (f − y)², full batch, all weights trained; raw RMSprop
without decay, η = 0.001, β₂ = 0.99 and 0.999. The median of the ratio over the second half of 4000 steps.

Source: J. Cohen et al., "Adaptive gradient methods at the edge of stability" (2022).
"""

from collections.abc import Iterator
from typing import Final

from matplotlib.axes import Axes

from optim_family.theory.drawing import draw_edge, line
from optim_family.theory.small_networks import Network
from optim_family.theory.verify import Case, Finding
from optim_family.theory.walk import Course, watch

LR, BETAS, STEPS, EVERY = 1e-3, (0.99, 0.999), 4000, 80
LOW, HIGH = 0.9, 1.15


def observe() -> dict[float, Course]:
    """Both β₂."""
    network = Network.make(trained=True)
    settings = {"lr": LR, "weight_decay": 0.0, "preconditioning": "raw"}
    return {
        beta: watch(network.loss, network.start(), STEPS, EVERY, "rmsprop", beta2=beta, **settings)
        for beta in BETAS
    }


def findings(courses: dict[float, Course]) -> Iterator[Finding]:
    """The late medians."""
    for beta, course in courses.items():
        yield Finding(f"β₂ = {beta:g}: median of the ratio", course.late_ratio, LOW, HIGH)


def draw(ax: Axes, courses: dict[float, Course]) -> None:
    """Up to the edge, and along it."""
    for index, (beta, course) in enumerate(courses.items()):
        ax.plot(course.steps, course.ratios, label=f"β₂ = {beta:g}", **line(index))
    ax.axhspan(LOW, HIGH, xmin=0.5, color="#e8e8e8", zorder=0, label="where the late median must lie")
    draw_edge(ax)
    ax.set(xlabel="step", ylabel="preconditioned sharpness / threshold", ylim=(0, None))


CASE: Final = Case("V10", observe, findings, draw)
