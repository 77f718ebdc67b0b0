"""The theory in one scene: gradient descent on a sphere, into a winding valley and along it to its flat end.

The sphere is seen from far away, without perspective: hidden is what has a depth below 0.
"""

import math
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from optim_family.theory.flow import Minimisers, Path, integrate
from optim_family.theory.toys import Valley, unit
from optim_family.theory.trajectory import Trajectory, descend, midpoints, sharpness_along

Array = NDArray[np.float64]

# Large steps, so that the eye can follow each: 1/ηλ of them to a unit of τ.
LR, WEIGHT_DECAY, STEPS = 0.5, 0.06, 175
# The first weights: so far uphill of a longitude in the valley, in radians, with ℓS = FIRST down there.
UPHILL, LONGITUDE, FIRST = 0.7, 0.8, 4.9
# Where the oscillation has settled, the flow begins.
SETTLED = 30


@final
@dataclass(frozen=True)
class Scene:
    """What there is to see.

    Attributes:
        toy: the valley.
        trajectory: of gradient descent.
        flow: from the middle of the settled oscillation to the end, in the trajectory's τ.
        sharpness: spherical, at the midpoints of the trajectory, [t − 1].
    """

    toy: Valley
    trajectory: Trajectory
    flow: Path
    sharpness: Tensor

    @classmethod
    def make(cls) -> "Scene":
        """Let gradient descent go, and the flow beside it."""
        toy = Valley(start_angle=0.7)
        trajectory = descend(toy.loss, _first_weights(toy), STEPS, lr=LR, weight_decay=WEIGHT_DECAY)
        middle = midpoints(trajectory.directions)
        gamma = Minimisers.through(toy.loss, toy.start())
        start = gamma.near(unit(middle[SETTLED - 1])).point
        flow = integrate(toy.loss, start, trajectory.tau[SETTLED:])
        return cls(toy, trajectory, flow, sharpness_along(toy.loss, middle))


def _first_weights(toy: Valley) -> Tensor:
    shrink = LR * WEIGHT_DECAY
    foot = toy.minimiser(LONGITUDE)
    x, y, _ = foot.tolist()
    slope = torch.tensor([-toy.bend * y, -toy.bend * x, 1.0], dtype=torch.float64)
    uphill = unit(slope - (slope @ foot) * foot)
    rho = math.sqrt(LR * toy.sharpness(toy.start()) / (FIRST * (1 - shrink)))
    return rho * (math.cos(UPHILL) * foot + math.sin(UPHILL) * uphill)


@final
@dataclass(frozen=True)
class Camera:
    """Looks at the centre of the unit sphere from far away; angles in radians."""

    longitude: float = 1.85
    elevation: float = 0.35

    @property
    def axes(self) -> Array:
        """Right, up and towards the viewer, rows of [3, 3]."""
        a, e = self.longitude, self.elevation
        right = np.array([-math.sin(a), math.cos(a), 0.0])
        toward = np.array([math.cos(e) * math.cos(a), math.cos(e) * math.sin(a), math.sin(e)])
        return np.stack([right, np.cross(toward, right), toward])

    def visible(self, points: Tensor) -> Array:
        """A line on the sphere as it is seen, [m, 3] → [m, 2]; NaN where the sphere hides it."""
        seen = points.numpy() @ self.axes.T
        return np.where(seen[:, 2:] > 0, seen[:, :2], np.nan)

    def disc(self, pixels: int) -> tuple[Array, Array]:
        """What a square of pixels shows: points [n, n, 3] and depth [n, n], NaN beside the sphere."""
        across = np.linspace(-1, 1, pixels)
        x, y = np.meshgrid(across, across)
        square = 1 - x**2 - y**2
        depth = np.sqrt(np.where(square > 0, square, np.nan))
        return np.stack([x, y, depth], axis=-1) @ self.axes, depth
