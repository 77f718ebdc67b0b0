"""Adam trains the same network at its own edge: λ₁(P^{-1/2} H P^{-1/2}) settles at about 38/η.

(2 + 2β₁)/((1 − β₁) η) with β₁ = 0.9 is the threshold for a constant P. As P follows the gradient, Adam may
cycle somewhat below it. The network of V10, η = 0.01, β₂ = 0.999, no decay. Checked: the median of the
ratio over the second half of 4000 steps.

Source: J. Cohen et al., "Adaptive gradient methods at the edge of stability" (2022).
"""

from collections.abc import Iterator
from typing import Any, Final

from matplotlib.axes import Axes

from optim_family.theory.page import draw_ratios
from optim_family.theory.small_networks import Network
from optim_family.theory.trajectory import Trajectory, record_trajectory
from optim_family.theory.verify import Case, NumericCheck

LR, STEPS, EVERY = 1e-2, 4000, 80
LOW, HIGH = 0.8, 1.1


def observe() -> Trajectory:
    """Run Adam, that is AdamW without decay."""
    network = Network.make(trained=True)
    hyper: dict[str, Any] = {"every": EVERY, "measure_ratio": True, "lr": LR, "weight_decay": 0.0}
    return record_trajectory(network.loss, network.start(), STEPS, "adamw", **hyper)


def checks(path: Trajectory) -> Iterator[NumericCheck]:
    """The late median of the ratio."""
    yield NumericCheck("median of the ratio", path.late_ratio, LOW, HIGH)


def draw(ax: Axes, path: Trajectory) -> None:
    """The ratio against steps."""
    draw_ratios(ax, {"Adam": path}, LOW, HIGH)


CASE: Final = Case("V11", observe, checks, draw)
