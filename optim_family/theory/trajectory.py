"""What an optimizer of the registry does on a toy: its whole path, and the oscillation on it.

At the edge of stability θ_t = φ_t ± a v₁ with a slow φ. The midpoint (θ_{t−1} + 2θ_t + θ_{t+1})/4 takes the
oscillation out, and (θ_{t−1} − 2θ_t + θ_{t+1})/4 = ∓a v₁ is the oscillation alone.
"""

import math
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from optim_family import registry
from optim_family.curvature.hessian import Hessian
from optim_family.sharpness.probe import Probe
from optim_family.theory.flow import Loss, Minimisers
from optim_family.theory.toys import unit
from optim_family.training.lr_scheduler import Scheduler


@final
@dataclass(frozen=True)
class Trajectory:
    """The path of an optimizer over t steps.

    Attributes:
        weights: w before every step and after the last, [t + 1, d].
        losses: L there, [t + 1].
        shrink: ηλ.
        lr: η.
    """

    weights: Tensor
    losses: Tensor
    shrink: float
    lr: float

    @property
    def tau(self) -> Tensor:
        """ηλt, [t + 1]."""
        return self.shrink * torch.arange(len(self.weights), dtype=torch.float64)

    @property
    def directions(self) -> Tensor:
        """θ = w / ‖w‖, [t + 1, d]."""
        return unit(self.weights)

    @property
    def effective_lr(self) -> Tensor:
        """ℓ = η / ((1 − ηλ) ρ²), [t + 1]."""
        return self.lr / ((1 - self.shrink) * self.weights.square().sum(1))


def descend(
    loss: Loss,
    start: Tensor,
    steps: int,
    optimizer: str = "gd",
    *,
    schedule: str | None = None,
    **hyper: Any,
) -> Trajectory:
    """Let a registered optimizer take so many steps from the weights w [d], in their precision.

    Args:
        loss: L, [d] → scalar.
        start: the weights before the first step, [d].
        steps: t.
        optimizer: its registered name.
        schedule: of the learning rate, as for `run`.
        **hyper: its hyper-parameters.

    Raises:
        UsageError: there is no such optimizer.
        FloatingPointError: the loss stops being finite.
    """
    w = start.detach().clone().requires_grad_()
    mover = registry.load(optimizer)([w], **hyper)
    scheduler = Scheduler(schedule, mover, steps) if schedule else None
    weights, losses = torch.empty(steps + 1, len(w), dtype=w.dtype), torch.empty(steps + 1, dtype=w.dtype)
    for step in range(steps + 1):
        value = loss(w)
        weights[step], losses[step] = w.detach(), value.detach()
        if step < steps:
            if scheduler:
                scheduler(step)
            (w.grad,) = torch.autograd.grad(value, w)
            mover.step()
    if not torch.isfinite(losses).all():
        raise FloatingPointError(f"{optimizer} diverged on this loss; start nearer to the edge of stability.")
    lr = mover.values["lr"]
    return Trajectory(weights, losses, lr * mover.values["weight_decay"], lr)


def at_the_edge(
    loss: Loss, minimiser: Tensor, *, lr: float, weight_decay: float, swing: float = 1.0
) -> Tensor:
    """Weights of gradient descent where ℓS = 2, beside a minimiser θ on the unit sphere, [d].

    Args:
        loss: scale-invariant.
        minimiser: θ, [d].
        lr: η.
        weight_decay: λ.
        swing: the oscillation, in units of the one that the theory expects, a² = 2ηλ/(4 + q).
    """
    place = Minimisers.through(loss, minimiser).look(minimiser)
    shrink = lr * weight_decay
    amplitude = swing * math.sqrt(2 * shrink / (4 + place.q))
    rho = math.sqrt(lr * place.sharpness / (2 * (1 - shrink)))
    return rho * unit(minimiser + amplitude * place.top)


def midpoints(points: Tensor) -> Tensor:
    """The path without its oscillation: (θ_{t−1} + 2θ_t + θ_{t+1})/4, [t, d] → [t − 2, d]."""
    return (points[:-2] + 2 * points[1:-1] + points[2:]) / 4


def swings(points: Tensor) -> Tensor:
    """The oscillation a v₁, up to its sign: (θ_{t−1} − 2θ_t + θ_{t+1})/4, [t, d] → [t − 2, d]."""
    return (points[:-2] - 2 * points[1:-1] + points[2:]) / 4


def sharpness_along(loss: Loss, points: Tensor, *, rtol: float = 1e-6) -> Tensor:
    """ρ² λ₁(∇²L(w)) at each of some points, [m, d] → [m]."""
    probe = Probe("spherical", rtol=rtol)

    def reading(point: Tensor) -> float:
        w = point.detach().clone().requires_grad_()
        return probe(Hessian([lambda: loss(w)], [w], "retained"), point).value

    return torch.tensor([reading(point) for point in points], dtype=points.dtype)
