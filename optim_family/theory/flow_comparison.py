"""Gradient descent on a toy beside the flow: what the theory predicts, and what there is.

Measured are the sharpness at the midpoints, where the oscillation is taken out, its variance and the loss as
means over two modulation periods, the modulation itself in a second run that begins with too large a swing,
and how far the path is from the flow.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, final

import numpy as np
import torch
from torch import Tensor

from optim_family.analysis.predictions import mean_excess_loss, modulation_period, oscillation_variance
from optim_family.theory.flow import Path, integrate
from optim_family.theory.toys import Completion, Regression, Toy, Valley, unit
from optim_family.theory.trajectory import (
    Trajectory,
    at_the_edge,
    descend,
    midpoints,
    sharpness_along,
    swings,
)

PLACES: Final = 80  # at which the path is compared with the flow
WIDE_SWING, PERIODS = 1.2, 6  # the run that shows the modulation


@final
@dataclass(frozen=True)
class Setting:
    """Gradient descent on a toy, from its start at the edge of stability.

    Attributes:
        toy: scale-invariant.
        lr: η.
        shrink: ηλ.
        end: τ at the end.
    """

    toy: Toy
    lr: float
    shrink: float
    end: float

    def descend(self, steps: int, swing: float = 1.0) -> Trajectory:
        """So many steps, from an oscillation of `swing` times the expected one."""
        toy, decay = self.toy, self.shrink / self.lr
        start = at_the_edge(toy.loss, toy.start(), lr=self.lr, weight_decay=decay, swing=swing)
        return descend(toy.loss, start, steps, lr=self.lr, weight_decay=decay)


SETTINGS: Final = {
    "regression": Setting(Regression.make(), lr=0.1, shrink=2e-4, end=4.0),
    "completion": Setting(Completion.make(), lr=0.1, shrink=5e-4, end=4.0),
    "valley": Setting(Valley(), lr=0.1, shrink=1e-3, end=6.0),
}


@final
@dataclass(frozen=True)
class Comparison:
    """A path and the flow at m places.

    Attributes:
        setting: on what, and how.
        flow: at the places, [m].
        sharpness: S at the midpoints, [m].
        variance: a², [m].
        loss: its mean, [m].
        distance: ‖θ − ζ‖ of the iterates, [m].
        middle_distance: of the midpoints, [m].
        modulation: log a² of a wide swing beside its prediction, one a step, [t].
    """

    setting: Setting
    flow: Path
    sharpness: Tensor
    variance: Tensor
    loss: Tensor
    distance: Tensor
    middle_distance: Tensor
    modulation: Tensor

    @property
    def expected_variance(self) -> Tensor:
        """2ηλ / (4 + q), [m]."""
        return _each(lambda q: oscillation_variance(self.setting.shrink, q), self.flow.q)

    @property
    def expected_loss(self) -> Tensor:
        """S ηλ / (4 + q), [m]."""
        shrink = self.setting.shrink
        return _each(lambda s, q: mean_excess_loss(s, shrink, q), self.flow.sharpness, self.flow.q)

    @property
    def period(self) -> float:
        """Of the modulation, in steps: the mean distance of its rises through 0; NaN if there are not two."""
        before, after = self.modulation[:-1], self.modulation[1:]
        rises = ((before < 0) & (after >= 0)).nonzero()[:, 0].tolist()
        times = [t + float(before[t] / (before[t] - after[t])) for t in rises]
        return (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else math.nan


def compare(setting: Setting, places: int = PLACES) -> Comparison:
    """Let gradient descent go, the flow beside it, and a second run with a wide swing."""
    steps, window = round(setting.end / setting.shrink), round(modulation_period(setting.shrink))
    path = setting.descend(steps)
    at = torch.linspace(window + 1, steps - window - 1, places, dtype=torch.float64).round().long()
    flow = _flow(setting, path.tau[at])
    middle = unit(midpoints(path.directions))[at - 1]
    return Comparison(
        setting,
        flow,
        sharpness_along(setting.toy.loss, middle),
        _means(swings(path.directions).square().sum(1), at - 1, window),
        _means(path.losses, at, window),
        _lengths(path.directions[at] - flow.points),
        _lengths(middle - flow.points),
        _modulation(setting),
    )


def distances(setting: Setting, shrinks: Sequence[float], places: int = PLACES) -> Tensor:
    """The largest distance to the flow, of the iterates and of the midpoints, for several ηλ: [s, 2]."""
    rows = []
    for shrink in shrinks:
        one = replace(setting, shrink=shrink)
        path = one.descend(round(one.end / shrink) + 1)
        at = torch.linspace(1, len(path.tau) - 2, places, dtype=torch.float64).round().long()
        flow = _flow(one, path.tau[at])
        middle = unit(midpoints(path.directions))[at - 1]
        rows.append([float(_lengths(p - flow.points).max()) for p in (path.directions[at], middle)])
    return torch.tensor(rows, dtype=torch.float64)


def exponent(shrinks: Sequence[float], lengths: Tensor) -> float:
    """The power of ηλ that fits lengths [s] best, by least squares of the logarithms."""
    slope, _ = np.polyfit(np.log(shrinks), np.log(lengths.numpy()), 1)
    return float(slope)


def _flow(setting: Setting, tau: Tensor) -> Path:
    """The flow from the start, at later times [m]."""
    whole = integrate(
        setting.toy.loss, setting.toy.start(), torch.cat([torch.zeros(1, dtype=tau.dtype), tau])
    )
    return Path(tau, whole.points[1:], whole.sharpness[1:], whole.q[1:])


def _modulation(setting: Setting) -> Tensor:
    """log a² beside its prediction over some periods from a wide swing, one a step, [t]."""
    steps = round(PERIODS * modulation_period(setting.shrink)) + 2
    path = setting.descend(steps, WIDE_SWING)
    flow = _flow(setting, path.tau[1:-1:10])
    q = torch.from_numpy(np.interp(path.tau[1:-1], flow.tau, flow.q))
    expected = _each(lambda q: oscillation_variance(setting.shrink, q), q)
    return (swings(path.directions).square().sum(1) / expected).log()


def _means(series: Tensor, at: Tensor, window: int) -> Tensor:
    """The mean of a series [t] from `window` before to `window` after each place, [m]."""
    return torch.stack([series[max(0, i - window) : i + window + 1].mean() for i in at.tolist()])


def _lengths(vectors: Tensor) -> Tensor:
    return vectors.square().sum(1).sqrt()


def _each(formula: Callable[..., float], *series: Tensor) -> Tensor:
    """A formula of numbers, entry by entry."""
    return torch.tensor(
        [formula(*row) for row in zip(*(s.tolist() for s in series), strict=True)], dtype=torch.float64
    )
