"""The smallest network with normalisation, and scale-invariant losses."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from optim_family.theory.flow import Loss
from optim_family.theory.toys import Completion, Regression, Toy, gaussian

EXAMPLES, INPUTS, HIDDEN = 40, 10, 20


@final
@dataclass(frozen=True)
class Network:
    """f(x) = ⟨a, tanh BN(Wx)⟩ and L = ½ mean (f − y)²; BN from primitives, over all examples.

    Attributes:
        x: examples, [n, inputs].
        y: targets, [n].
        weights: W of the start, [hidden, inputs].
        readout: a of the start, [hidden].
        trained: a is trained too; if not, the loss is scale-invariant.
    """

    x: Tensor
    y: Tensor
    weights: Tensor
    readout: Tensor
    trained: bool

    @classmethod
    def make(cls, *, trained: bool = False) -> "Network":
        """Gaussian examples, targets and weights, float64."""
        draw = gaussian(seed=0)
        x, y, weights = draw(EXAMPLES, INPUTS), draw(EXAMPLES), draw(HIDDEN, INPUTS) / INPUTS**0.5
        return cls(x, y, weights, draw(HIDDEN) / HIDDEN**0.5, trained)

    def start(self) -> Tensor:
        """The trained weights at the start, as one vector [d]."""
        return torch.cat([self.weights.flatten(), self.readout]) if self.trained else self.weights.flatten()

    def loss(self, w: Tensor) -> Tensor:
        """L(w), [d] → scalar."""
        size = self.weights.numel()
        readout = w[size:] if self.trained else self.readout
        z = self.x @ w[:size].view_as(self.weights).T  #                              [n, hidden]
        z = z - z.mean(0)
        normalised = z / z.square().mean(0).sqrt()
        return 0.5 * (torch.tanh(normalised) @ readout - self.y).square().mean()


def scale_invariant() -> dict[str, tuple[Loss, Tensor]]:
    """Linear regression, matrix completion and a network, all with BN, each with random weights [d]."""
    draw = gaussian(seed=0)
    problems: dict[str, Toy | Network] = {
        "regression": Regression.make(),
        "completion": Completion.make(),
        "network": Network.make(),
    }
    return {name: (problem.loss, draw(problem.start().shape)) for name, problem in problems.items()}


def gradients(loss: Loss, points: Tensor) -> Tensor:
    """∇L at each of some points, [m, d] → [m, d]."""
    return torch.stack([torch.func.grad(loss)(point) for point in points])
