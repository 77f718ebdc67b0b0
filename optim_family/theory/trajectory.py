"""The path of an optimizer on a toy, and the oscillation along it.

At the edge of stability θ_t = φ_t ± a v₁ with a slow φ. The midpoint (θ_{t−1} + 2θ_t + θ_{t+1})/4 removes the
oscillation, and (θ_{t−1} − 2θ_t + θ_{t+1})/4 = ∓a v₁ is the oscillation alone.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from optim_family import registry
from optim_family.analysis.predictions import oscillation_variance
from optim_family.curvature.hessian import Hessian
from optim_family.sharpness.midpoint import midpoint
from optim_family.sharpness.probe import Probe
from optim_family.theory.flow import Loss, MinimizerManifold
from optim_family.theory.toys import unit
from optim_family.training.lr_scheduler import Scheduler


@final
@dataclass(frozen=True)
class Trajectory:
    """The path of an optimizer, recorded at m of its steps.

    Attributes:
        steps: t, [m].
        weights: w before step t, [m, d].
        losses: L(w), [m].
        ratios: λ₁(P^{-1/2} H P^{-1/2}) over its threshold, [m]; empty unless measured.
        eta_lambda: ηλ.
        lr: η.
    """

    steps: Tensor
    weights: Tensor
    losses: Tensor
    ratios: Tensor
    eta_lambda: float
    lr: float

    @property
    def tau(self) -> Tensor:
        """ηλt, [m]."""
        return self.eta_lambda * self.steps.double()

    @property
    def directions(self) -> Tensor:
        """θ = w / ‖w‖, [m, d]."""
        return unit(self.weights)

    @property
    def effective_lr(self) -> Tensor:
        """ℓ = η / ((1 − ηλ) ρ²), [m]."""
        return self.lr / ((1 - self.eta_lambda) * self.weights.square().sum(1))


def run_optimizer(
    loss: Loss, w: Tensor, optimizer: torch.optim.Optimizer, steps: int, scheduler: Scheduler | None = None
) -> Iterator[Tensor]:
    """Move w [d] by `steps` steps; yield L(w) before each step and after the last, with ∇L(w) in `w.grad`."""
    for step in range(steps + 1):
        value = loss(w)
        (w.grad,) = torch.autograd.grad(value, w)
        yield value.detach()
        if step < steps:
            if scheduler:
                scheduler(step)
            optimizer.step()


def record_trajectory(
    loss: Loss,
    start: Tensor,
    steps: int,
    optimizer: str = "gd",
    *,
    every: int = 1,
    measure_ratio: bool = False,
    schedule: str | None = None,
    **hyper: Any,
) -> Trajectory:
    """Record the path of a registered optimizer from the weights w [d], in their precision.

    Args:
        loss: L, [d] → scalar.
        start: the weights before the first step, [d].
        steps: how many steps the optimizer takes.
        optimizer: its registered name.
        every: record every so many steps.
        measure_ratio: measure the preconditioned sharpness over its threshold at every record.
        schedule: learning-rate schedule, as for `run`.
        **hyper: hyper-parameters of the optimizer.

    Raises:
        UsageError: there is no such optimizer.
        FloatingPointError: the loss is not finite at a record.
    """
    w = start.detach().clone().requires_grad_()
    stepper = registry.load(optimizer)([w], **hyper)
    scheduler = Scheduler(schedule, stepper, steps) if schedule else None
    probe = Probe("preconditioned")
    weights, losses, ratios = [], [], []
    for step, value in enumerate(run_optimizer(loss, w, stepper, steps, scheduler)):
        if step % every == 0:
            weights.append(w.detach().clone())
            losses.append(value)
            if measure_ratio:
                reading = probe(hessian_at(loss, w), weights[-1], stepper.geometry())
                ratios.append(math.nan if reading.ratio is None else reading.ratio)
    if not torch.isfinite(torch.stack(losses)).all():
        raise FloatingPointError(f"{optimizer} diverged on this loss; start nearer to the edge of stability.")
    lr = stepper.values["lr"]
    return Trajectory(
        steps=torch.arange(0, steps + 1, every),
        weights=torch.stack(weights),
        losses=torch.stack(losses),
        ratios=torch.tensor(ratios, dtype=torch.float64),
        eta_lambda=lr * stepper.values["weight_decay"],
        lr=lr,
    )


def start_at_edge(
    loss: Loss, minimiser: Tensor, *, lr: float, weight_decay: float, amplitude: float = 1.0
) -> Tensor:
    """Weights of gradient descent with ℓS = 2, next to a minimiser θ on the unit sphere, [d].

    Args:
        loss: scale-invariant.
        minimiser: θ, [d].
        lr: η.
        weight_decay: λ.
        amplitude: of the oscillation, in units of the predicted one.
    """
    point = MinimizerManifold.through(loss, minimiser).at(minimiser)
    eta_lambda = lr * weight_decay
    a = amplitude * math.sqrt(oscillation_variance(eta_lambda, point.q))
    rho = math.sqrt(lr * point.sharpness / (2 * (1 - eta_lambda)))
    return rho * unit(minimiser + a * point.top)


def midpoints(points: Tensor) -> Tensor:
    """The path without its oscillation: (θ_{t−1} + 2θ_t + θ_{t+1})/4, [t, d] → [t − 2, d]."""
    return midpoint(points[:-2], points[1:-1], points[2:])


def oscillation(points: Tensor) -> Tensor:
    """The oscillation a v₁, up to its sign: (θ_{t−1} − 2θ_t + θ_{t+1})/4, [t, d] → [t − 2, d]."""
    return (points[:-2] - 2 * points[1:-1] + points[2:]) / 4


def hessian_at(loss: Loss, point: Tensor) -> Hessian:
    """H at a point [d]."""
    w = point.detach().clone().requires_grad_()
    return Hessian([lambda: loss(w)], [w], "retained")


def sharpness_along(loss: Loss, points: Tensor) -> Tensor:
    """ρ² λ₁(∇²L(w)) at each of some points, to a relative error of 10⁻⁶: [m, d] → [m]."""
    probe = Probe("spherical", rtol=1e-6)
    return torch.tensor([probe(hessian_at(loss, p), p).value for p in points], dtype=points.dtype)
