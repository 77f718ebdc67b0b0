"""How fast the sharpness of a real network falls, beside what the flow says.

    d log S/dτ = −2q / (4 + q)      predicted from q = ‖∇_Γ log λ₁‖²
    mean L     = S ηλ / (4 + q)     or, by the slope s = d log S/dτ instead of q, S ηλ (2 + s) / 8

`replay` measures; q is an upper estimate there.
"""

from dataclasses import dataclass
from typing import Final, final

import numpy as np
from torch import Tensor

from optim_family.analysis.predictions import log_sharpness_slope, mean_excess_loss, modulation_period

# Modulation periods before and after a checkpoint that its slope is fitted over.
PERIODS: Final = 2
# Shares of λ₁ below which a direction may count as one along the minimisers.
CUTS: Final = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)


@final
@dataclass(frozen=True)
class Checkpoint:
    """The flow's view of one midpoint.

    Attributes:
        step: t.
        sharpness: S.
        second: λ₂/λ₁.
        last: λ_k/λ₁, the least curvature that was removed.
        q: ‖∇ log λ₁‖² of what is left, for 1, …, k removed eigenvectors, [k].
        below: the part of ‖∇ log λ₁‖² where |curvature| is below each of CUTS, shares of λ₁, [c].
    """

    step: int
    sharpness: float
    second: float
    last: float
    q: tuple[float, ...]
    below: tuple[float, ...]


@final
@dataclass(frozen=True)
class Drift:
    """A run past its edge of stability.

    Attributes:
        shrink: ηλ.
        steps: where S was read, [m].
        sharpness: S at the midpoints, [m].
        threshold: 2/ℓ there, [m].
        loss: L before every step, [t].
        checkpoints: where the flow was asked.
    """

    shrink: float
    steps: Tensor
    sharpness: Tensor
    threshold: Tensor
    loss: Tensor
    checkpoints: tuple[Checkpoint, ...]

    def slope(self, step: int) -> tuple[float, float]:
        """d log S/dτ around a step by least squares, and its standard error."""
        near = (self.steps - step).abs() <= window(self.shrink)
        tau, log = self.shrink * self.steps[near].double(), self.sharpness[near].log()
        (slope, _), covariance = np.polyfit(tau.numpy(), log.numpy(), 1, cov=True)
        return float(slope), float(np.sqrt(covariance[0, 0]))

    def mean_loss(self, step: int) -> float:
        """The mean loss around a step."""
        return float(self.loss[step - window(self.shrink) : step + window(self.shrink) + 1].mean())

    def rows(self) -> list[dict[str, float]]:
        """Everything predicted and measured at the checkpoints, as JSON."""
        return [self._row(at) for at in self.checkpoints]

    def _row(self, at: Checkpoint) -> dict[str, float]:
        slope, error = self.slope(at.step)
        return {
            "step": at.step,
            "tau": self.shrink * at.step,
            "sharpness": at.sharpness,
            "second_over_first": at.second,
            "last_over_first": at.last,
            "q": at.q[-1],
            "q_smallest_cut": at.below[-1],
            "slope_predicted": log_sharpness_slope(at.q[-1]),
            "slope_smallest_cut": log_sharpness_slope(at.below[-1]),
            "slope_measured": slope,
            "slope_error": error,
            "loss_predicted": mean_excess_loss(at.sharpness, self.shrink, at.q[-1]),
            "loss_from_slope": at.sharpness * self.shrink * (2 + slope) / 8,
            "loss_measured": self.mean_loss(at.step),
        }


def window(shrink: float) -> int:
    """Steps before and after a checkpoint that count for it."""
    return round(PERIODS * modulation_period(shrink))
