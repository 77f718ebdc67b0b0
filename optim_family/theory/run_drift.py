"""How fast the sharpness of a real network falls, compared with the flow.

    d log S/dτ = −2q / (4 + q)      predicted from q = ‖∇_Γ log λ₁‖²
    mean L     = S ηλ / (4 + q)     or, with the slope s = d log S/dτ instead of q, S ηλ (2 + s) / 8

`run_replay` measures q, as an upper estimate.
"""

from dataclasses import dataclass
from typing import Final, final

import numpy as np
from torch import Tensor

from optim_family.analysis.predictions import log_sharpness_slope, mean_excess_loss, modulation_period

# Slopes are fitted over this many modulation periods before and after a checkpoint.
PERIODS: Final = 2
# Fractions of λ₁ below which a direction may count as one along the minimisers.
CUTS: Final = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)


@final
@dataclass(frozen=True)
class Checkpoint:
    """Sharpness and its gradient at one midpoint.

    Attributes:
        step: t.
        sharpness: S.
        second: λ₂/λ₁.
        last: λ_k/λ₁, the smallest eigenvalue removed.
        q: ‖∇ log λ₁‖² after the removal of 1, …, k eigenvectors, [k].
        below: the part of ‖∇ log λ₁‖² where |curvature| is below each of CUTS, fractions of λ₁, [c].
    """

    step: int
    sharpness: float
    second: float
    last: float
    q: tuple[float, ...]
    below: tuple[float, ...]


@final
@dataclass(frozen=True)
class RunDrift:
    """A run past its edge of stability.

    Attributes:
        eta_lambda: ηλ.
        steps: t of the measurements of S, [m].
        sharpness: S at the midpoints, [m].
        threshold: 2/ℓ there, [m].
        loss: L before every step, [t].
        checkpoints: midpoints with ∇ log λ₁.
    """

    eta_lambda: float
    steps: Tensor
    sharpness: Tensor
    threshold: Tensor
    loss: Tensor
    checkpoints: tuple[Checkpoint, ...]

    def slope(self, step: int) -> tuple[float, float]:
        """d log S/dτ around a step by least squares, and its standard error."""
        near = (self.steps - step).abs() <= window(self.eta_lambda)
        tau, log = self.eta_lambda * self.steps[near].double(), self.sharpness[near].log()
        (slope, _), covariance = np.polyfit(tau.numpy(), log.numpy(), 1, cov=True)
        return float(slope), float(np.sqrt(covariance[0, 0]))

    def mean_loss(self, step: int) -> float:
        """The mean loss around a step."""
        return float(self.loss[step - window(self.eta_lambda) : step + window(self.eta_lambda) + 1].mean())

    def rows(self) -> list[dict[str, float]]:
        """All predictions and measurements at the checkpoints, as JSON."""
        return [self._row(at) for at in self.checkpoints]

    def _row(self, at: Checkpoint) -> dict[str, float]:
        slope, error = self.slope(at.step)
        return {
            "step": at.step,
            "tau": self.eta_lambda * at.step,
            "sharpness": at.sharpness,
            "second_over_first": at.second,
            "last_over_first": at.last,
            "q": at.q[-1],
            "q_smallest_cut": at.below[-1],
            "slope_predicted": log_sharpness_slope(at.q[-1]),
            "slope_smallest_cut": log_sharpness_slope(at.below[-1]),
            "slope_measured": slope,
            "slope_error": error,
            "loss_predicted": mean_excess_loss(at.sharpness, self.eta_lambda, at.q[-1]),
            "loss_from_slope": at.sharpness * self.eta_lambda * (2 + slope) / 8,
            "loss_measured": self.mean_loss(at.step),
        }


def window(eta_lambda: float) -> int:
    """Half the length of the fit around a checkpoint, in steps."""
    return round(PERIODS * modulation_period(eta_lambda))
