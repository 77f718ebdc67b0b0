"""Gradient descent on a toy compared with the flow: predictions and measurements.

Measured are the sharpness at the midpoints, which have no oscillation, the variance of the oscillation and
the loss as means over two modulation periods, the modulation itself in a second run that begins with too
large an oscillation, and the distance of the path from the flow.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, final

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from optim_family.analysis.predictions import mean_excess_loss, modulation_period, oscillation_variance
from optim_family.theory.flow import FlowPath, integrate
from optim_family.theory.toys import Completion, Regression, Toy, Valley, unit
from optim_family.theory.trajectory import (
    Trajectory,
    midpoints,
    oscillation,
    record_trajectory,
    sharpness_along,
    start_at_edge,
)

POINTS: Final = 80  # at which the path is compared with the flow
WIDE, PERIODS = 1.2, 6  # the run that shows the modulation
# Powers of ηλ, with which the distance to the flow shrinks.
ORDERS: Final = {"iterates": 0.5, "midpoints": 1.0}


@final
@dataclass(frozen=True)
class Setting:
    """Gradient descent on a toy, from its start at the edge of stability.

    Attributes:
        toy: scale-invariant.
        lr: η.
        eta_lambda: ηλ.
        end: τ at the end.
    """

    toy: Toy
    lr: float
    eta_lambda: float
    end: float

    def descend(self, steps: int, amplitude: float = 1.0) -> Trajectory:
        """Record `steps` steps from an oscillation of `amplitude` times the predicted one."""
        toy, decay = self.toy, self.eta_lambda / self.lr
        start = start_at_edge(toy.loss, toy.start(), lr=self.lr, weight_decay=decay, amplitude=amplitude)
        return record_trajectory(toy.loss, start, steps, lr=self.lr, weight_decay=decay)


SETTINGS: Final = {
    "regression": Setting(Regression.make(), lr=0.1, eta_lambda=2e-4, end=4.0),
    "completion": Setting(Completion.make(), lr=0.1, eta_lambda=5e-4, end=4.0),
    "valley": Setting(Valley(), lr=0.1, eta_lambda=1e-3, end=6.0),
}


@final
@dataclass(frozen=True)
class Comparison:
    """A path and the flow at m points.

    Attributes:
        setting: toy, step size and length.
        flow: at the points, [m].
        measured: by name `sharpness` S at the midpoints, `variance` a² and the mean `loss`, [m] each.
        predicted: the same numbers by the flow, 2ηλ / (4 + q) and S ηλ / (4 + q), [m] each.
        distances: ‖θ − ζ‖ of iterates and midpoints, [m, 2].
        modulation: log of a² over its prediction from a wide oscillation, at every step, [t].
    """

    setting: Setting
    flow: FlowPath
    measured: Mapping[str, Tensor]
    predicted: Mapping[str, Tensor]
    distances: Tensor
    modulation: Tensor

    @property
    def rises(self) -> list[int]:
        """The indices of the modulation after which it rises through 0."""
        before, after = self.modulation[:-1].numpy(), self.modulation[1:].numpy()
        return list(np.flatnonzero((before < 0) & (after >= 0)))

    @property
    def period(self) -> float:
        """Of the modulation, in steps: the mean distance of its rises; NaN for fewer than two."""
        before, after = self.modulation[:-1], self.modulation[1:]
        times = [t + float(before[t] / (before[t] - after[t])) for t in self.rises]
        return (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else math.nan


def compare(setting: Setting, points: int = POINTS) -> Comparison:
    """Run gradient descent, the flow, and gradient descent from a wide oscillation."""
    steps, window = round(setting.end / setting.eta_lambda), round(modulation_period(setting.eta_lambda))
    path = setting.descend(steps)
    at = _grid(window + 1, steps - window - 1, points)
    flow, middle, lengths = _against_flow(setting, path, at)
    measured = {
        "sharpness": sharpness_along(setting.toy.loss, middle),
        "variance": _means(oscillation(path.directions).square().sum(1), at - 1, window),
        "loss": _means(path.losses, at, window),
    }
    loss = torch.from_numpy(np.vectorize(mean_excess_loss)(flow.sharpness, setting.eta_lambda, flow.q))
    variance = _predicted_variance(setting, flow.q)
    predicted = {"sharpness": flow.sharpness, "variance": variance, "loss": loss}
    return Comparison(setting, flow, measured, predicted, lengths, _modulation(setting))


def distances(
    setting: Setting, eta_lambdas: Sequence[float], points: int = POINTS, *, begin: float = 0.0
) -> Tensor:
    """The largest distance to the flow from τ = `begin` on, of iterates and midpoints, by ηλ: [s, 2]."""
    rows = []
    for eta_lambda in eta_lambdas:
        one = replace(setting, eta_lambda=eta_lambda)
        steps = round(one.end / eta_lambda)
        at = _grid(max(1, round(begin / eta_lambda)), steps, points)
        _, _, lengths = _against_flow(one, one.descend(steps + 1), at)
        rows.append(lengths.amax(0))
    return torch.stack(rows)


def exponent(eta_lambdas: Sequence[float], lengths: Tensor) -> float:
    """The power of ηλ that fits lengths [s] best, by least squares of the logarithms."""
    slope, _ = np.polyfit(np.log(eta_lambdas), np.log(lengths.numpy()), 1)
    return float(slope)


def _against_flow(setting: Setting, path: Trajectory, at: Tensor) -> tuple[FlowPath, Tensor, Tensor]:
    """The flow at steps [m], the midpoints [m, d], and the distances of iterates and midpoints [m, 2]."""
    flow = _flow(setting, path.tau[at])
    middle = unit(midpoints(path.directions))[at - 1]
    pair = torch.stack([path.directions[at] - flow.points, middle - flow.points], dim=1)
    return flow, middle, torch.linalg.vector_norm(pair, dim=-1)


def _grid(first: int, last: int, points: int) -> Tensor:
    """Evenly spaced steps, [points]."""
    return torch.linspace(first, last, points, dtype=torch.float64).round().long()


def _flow(setting: Setting, tau: Tensor) -> FlowPath:
    """The flow from the start, at later times [m]."""
    toy = setting.toy
    whole = integrate(toy.loss, toy.start(), torch.cat([torch.zeros(1, dtype=tau.dtype), tau]))
    return FlowPath(tau, whole.points[1:], whole.sharpness[1:], whole.q[1:])


def _modulation(setting: Setting) -> Tensor:
    """log of a² over its prediction, for some periods from a wide oscillation, [t]."""
    steps = round(PERIODS * modulation_period(setting.eta_lambda)) + 2
    path = setting.descend(steps, WIDE)
    flow = _flow(setting, path.tau[1:-1:10])
    q = np.interp(path.tau[1:-1], flow.tau, flow.q)
    return (oscillation(path.directions).square().sum(1) / _predicted_variance(setting, q)).log()


def _predicted_variance(setting: Setting, q: ArrayLike) -> Tensor:
    """a² = 2ηλ / (4 + q), [m]."""
    return torch.from_numpy(np.vectorize(oscillation_variance)(setting.eta_lambda, q))


def _means(series: Tensor, at: Tensor, window: int) -> Tensor:
    """The mean of a series [t] from `window` before to `window` after each of m indices, [m]."""
    return torch.stack([series[max(0, i - window) : i + window + 1].mean() for i in at.tolist()])
