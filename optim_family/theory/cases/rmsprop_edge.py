"""RMSprop trains a network with BN at its own edge: λ₁(P^{-1/2} H P^{-1/2}) settles at 2/η.

A tanh network 10-20-1 with BN, 40 examples, ½ mean (f − y)², full batch, all weights trained; raw RMSprop
without decay, η = 0.001, β₂ = 0.99 and 0.999. Checked: the median of the ratio over the
second half of 4000 steps.

Source: J. Cohen et al., "Adaptive gradient methods at the edge of stability" (2022).
"""

from collections.abc import Iterator
from typing import Any, Final

from matplotlib.axes import Axes

from optim_family.theory.page import draw_ratios
from optim_family.theory.small_networks import Network
from optim_family.theory.trajectory import Trajectory, record_trajectory
from optim_family.theory.verify import Case, NumericCheck

LR, BETAS, STEPS, EVERY = 1e-3, (0.99, 0.999), 4000, 80
LOW, HIGH = 0.9, 1.15


def observe() -> dict[float, Trajectory]:
    """Run RMSprop with both β₂."""
    network = Network.make(trained=True)
    hyper: dict[str, Any] = {"lr": LR, "weight_decay": 0.0, "preconditioning": "raw"}
    hyper |= {"every": EVERY, "measure_ratio": True}
    return {
        beta: record_trajectory(network.loss, network.start(), STEPS, "rmsprop", beta2=beta, **hyper)
        for beta in BETAS
    }


def checks(paths: dict[float, Trajectory]) -> Iterator[NumericCheck]:
    """The late median of the ratio for each β₂."""
    for beta, path in paths.items():
        yield NumericCheck(f"β₂ = {beta:g}: median of the ratio", path.late_ratio, LOW, HIGH)


def draw(ax: Axes, paths: dict[float, Trajectory]) -> None:
    """The ratio against steps."""
    draw_ratios(ax, {f"β₂ = {beta:g}": path for beta, path in paths.items()}, LOW, HIGH)


CASE: Final = Case("V10", observe, checks, draw)
