"""An optimizer on its way over a loss of one vector, and how near it is to its edge of stability."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from optim_family import registry
from optim_family.curvature.hessian import Hessian
from optim_family.geometry import Geometry
from optim_family.sharpness.probe import Probe

Loss = Callable[[Tensor], Tensor]


@final
class Walk:
    """An optimizer on a loss. Remembers the weights w [d], which it moves, and their gradient.

    Args:
        loss: L, [d] → scalar.
        start: where it begins, [d].
        optimizer: its class.
        **hyper: its hyper-parameters.
    """

    def __init__(
        self, loss: Loss, start: Tensor, optimizer: type[torch.optim.Optimizer], **hyper: Any
    ) -> None:
        self.loss, self.w = loss, start.clone().requires_grad_()
        self.optimizer: Any = optimizer([self.w], **hyper)
        self.value = torch.tensor(torch.nan)
        self._look()

    def step(self) -> None:
        """One step, and the gradient where it leads."""
        self.optimizer.step()
        self._look()

    @property
    def weights(self) -> Tensor:
        """A copy of w, [d]."""
        return self.w.detach().clone()

    @property
    def geometry(self) -> Geometry:
        """Of the next step."""
        geometry: Geometry = self.optimizer.geometry()
        return geometry

    def ratio(self, probe: Probe) -> float:
        """λ₁ over its threshold, in the view of the probe."""
        hessian = Hessian([lambda: self.loss(self.w)], [self.w], "retained")
        ratio = probe(hessian, self.weights, self.geometry).ratio
        return torch.nan if ratio is None else ratio

    def _look(self) -> None:
        value = self.loss(self.w)
        (self.w.grad,) = torch.autograd.grad(value, self.w)
        self.value = value.detach()


@final
@dataclass(frozen=True)
class Course:
    """A walk, looked at every so many steps.

    Attributes:
        steps: when, [m].
        weights: w, [m, d].
        losses: L, [m].
        ratios: λ₁(P^{-1/2} H P^{-1/2}) over its threshold, [m].
    """

    steps: Tensor
    weights: Tensor
    losses: Tensor
    ratios: Tensor

    @property
    def late_ratio(self) -> float:
        """The median over the second half."""
        return float(self.ratios[len(self.ratios) // 2 :].median())


def watch(loss: Loss, start: Tensor, steps: int, every: int, optimizer: str, **hyper: Any) -> Course:
    """Let a registered optimizer take so many steps, and read its preconditioned sharpness now and then."""
    walk, probe = Walk(loss, start, registry.load(optimizer), **hyper), Probe("preconditioned")
    weights, losses, ratios = [], [], []
    for step in range(steps + 1):
        if step % every == 0:
            weights.append(walk.weights)
            losses.append(float(walk.value))
            ratios.append(walk.ratio(probe))
        if step < steps:
            walk.step()
    at = torch.arange(0, steps + 1, every)
    return Course(at, torch.stack(weights), *torch.tensor([losses, ratios], dtype=torch.float64))
