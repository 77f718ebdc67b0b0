"""Gradient descent on a sphere, into a winding valley and along it to its flat end.

The projection is orthographic: points with a depth below 0 are hidden.
"""

import math
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from optim_family.figures.curves import Array
from optim_family.theory.flow import FlowPath, MinimizerManifold, integrate
from optim_family.theory.toys import Valley, unit
from optim_family.theory.trajectory import Trajectory, midpoints, record_trajectory, sharpness_along

# Steps large enough to see each of them: 1/ηλ steps to a unit of τ.
LR, WEIGHT_DECAY, STEPS = 0.5, 0.06, 175
# The first weights: UPHILL radians above the valley at LONGITUDE, with ℓS = FIRST in the valley.
UPHILL, LONGITUDE, FIRST = 0.7, 0.8, 4.9
# The flow begins at this step, when the oscillation has settled.
SETTLED = 30


@final
@dataclass(frozen=True)
class Scene:
    """The path of gradient descent and the flow.

    Attributes:
        toy: the valley.
        trajectory: of gradient descent.
        flow: from the midpoint of the settled oscillation to the end, in the trajectory's τ.
        sharpness: spherical, at the midpoints of the trajectory, [t − 1].
    """

    toy: Valley
    trajectory: Trajectory
    flow: FlowPath
    sharpness: Tensor

    @classmethod
    def make(cls) -> "Scene":
        """Run gradient descent and the flow."""
        toy = Valley(start_angle=0.7)
        trajectory = record_trajectory(toy.loss, _first_weights(toy), STEPS, lr=LR, weight_decay=WEIGHT_DECAY)
        middle = midpoints(trajectory.directions)
        gamma = MinimizerManifold.through(toy.loss, toy.start())
        start = gamma.project(unit(middle[SETTLED - 1])).point
        flow = integrate(toy.loss, start, trajectory.tau[SETTLED:])
        return cls(toy, trajectory, flow, sharpness_along(toy.loss, middle))


def _first_weights(toy: Valley) -> Tensor:
    foot = toy.minimiser(LONGITUDE)
    x, y, _ = foot.tolist()
    slope = torch.tensor([-toy.bend * y, -toy.bend * x, 1.0], dtype=torch.float64)
    uphill = unit(slope - (slope @ foot) * foot)
    rho = math.sqrt(LR * toy.sharpness(toy.start()) / (FIRST * (1 - LR * WEIGHT_DECAY)))
    return rho * (math.cos(UPHILL) * foot + math.sin(UPHILL) * uphill)


@final
@dataclass(frozen=True)
class Camera:
    """An orthographic view of the unit sphere; angles in radians."""

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
        """Project a line on the sphere, [m, 3] → [m, 2]; NaN where the sphere hides it."""
        rotated = points.numpy() @ self.axes.T
        return np.where(rotated[:, 2:] > 0, rotated[:, :2], np.nan)

    def disc(self, pixels: int) -> tuple[Array, Array]:
        """The points under a square of pixels, [n, n, 3], and their depth, [n, n]; NaN outside the sphere."""
        across = np.linspace(-1, 1, pixels)
        x, y = np.meshgrid(across, across)
        square = 1 - x**2 - y**2
        depth = np.sqrt(np.where(square > 0, square, np.nan))
        return np.stack([x, y, depth], axis=-1) @ self.axes, depth
