"""The smallest network with normalisation, and scale-invariant losses."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from optim_family.theory.toys import Completion, Regression, Toy

Loss = Callable[[Tensor], Tensor]


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
    def make(
        cls, n: int = 40, inputs: int = 10, hidden: int = 20, *, trained: bool = False, seed: int = 0
    ) -> "Network":
        """Gaussian examples, targets and weights, float64."""
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        x, y, weights = draw(n, inputs), draw(n), draw(hidden, inputs) / inputs**0.5
        return cls(x, y, weights, draw(hidden) / hidden**0.5, trained)

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


def scale_invariant(seed: int = 0) -> dict[str, tuple[Loss, Tensor]]:
    """Linear regression, matrix completion and a network, all with BN, each with random weights [d]."""
    generator = torch.Generator().manual_seed(seed)
    problems: dict[str, Toy | Network] = {
        "regression": Regression.make(),
        "completion": Completion.make(),
        "network": Network.make(),
    }
    losses: dict[str, tuple[Loss, Tensor]] = {}
    for name, problem in problems.items():
        start = torch.randn(problem.start().shape, generator=generator, dtype=torch.float64)
        losses[name] = problem.loss, start
    return losses


def gradients(loss: Loss, points: Tensor) -> Tensor:
    """∇L at each of some points, [m, d] → [m, d]."""
    rows = []
    for point in points:
        w = point.detach().clone().requires_grad_()
        rows += torch.autograd.grad(loss(w), w)
    return torch.stack(rows)
