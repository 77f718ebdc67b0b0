"""The trained weights as one vector: named tensors ↔ w [d]."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import final

import torch
from torch import Tensor, nn

# Terms of a sum in float32 on a CPU: few enough for its last digits, enough to cost no more than one sum.
BLOCK = 2**15


def flatten(tensors: Iterable[Tensor]) -> Tensor:
    """One vector [d] out of tensors of any shapes, in their order."""
    return torch.cat([t.reshape(-1) for t in tensors])


def unflatten(vector: Tensor, like: Iterable[Tensor]) -> list[Tensor]:
    """Views of a vector [d] in the shapes of the given tensors."""
    shapes = [t.shape for t in like]
    parts = torch.split(vector, [shape.numel() for shape in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


@contextmanager
def replace_gradients(params: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> Iterator[None]:
    """Set `.grad` of the tensors inside; restore it."""
    before = [p.grad for p in params]
    try:
        for p, gradient in zip(params, gradients, strict=True):
            p.grad = gradient
        yield
    finally:
        for p, gradient_before in zip(params, before, strict=True):
            p.grad = gradient_before


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor of the CPU on a device; pinned memory, so that the host does not wait for a GPU."""
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def norm(vector: Tensor) -> Tensor:
    """‖v‖, a scalar in float64: squares of float32 numbers leave the range of float32 at 1e±19.

    On a CPU in blocks: torch converts all of them first, which takes longer than a sum.
    """
    parts = torch.split(vector, BLOCK) if vector.device.type == "cpu" else (vector,)
    lengths: Tensor = torch.stack([torch.linalg.vector_norm(part, dtype=torch.float64) for part in parts])
    return torch.linalg.vector_norm(lengths) if len(parts) > 1 else lengths[0]


def inner(rows: Tensor, vector: Tensor) -> Tensor:
    """⟨qᵢ, v⟩ for the rows qᵢ [m, d] and v [d], in float64 [m].

    On a CPU float32 sums over 30 million terms are off by some 1e-3: they are taken in blocks.
    """
    if vector.dtype == torch.float64 or vector.device.type != "cpu" or vector.numel() <= BLOCK:
        return (rows @ vector).double()
    parts = zip(torch.split(rows, BLOCK, 1), torch.split(vector, BLOCK), strict=True)
    return torch.stack([row @ part for row, part in parts]).double().sum(0)


def trained_parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """The parameters that an optimizer trains, in the order of its groups: those that require a gradient."""
    return [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]


@final
class ParameterSpace:
    """The trained tensors of one module, by name; each tensor once, also when it is tied."""

    def __init__(self, named: Mapping[str, Tensor]) -> None:
        self.names, self.tensors = tuple(named), tuple(named.values())
        self.dim = sum(t.numel() for t in self.tensors)

    @classmethod
    def of(cls, model: nn.Module) -> "ParameterSpace":
        """The parameters of a module that require a gradient.

        Raises:
            ValueError: there are none.
        """
        parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not parameters:
            raise ValueError(f"{type(model).__name__} has no parameter that requires a gradient.")
        return cls(parameters)

    @classmethod
    def of_optimizer(cls, optimizer: torch.optim.Optimizer) -> "ParameterSpace":
        """The trained parameters of an optimizer, named by their numbers, in the order of its metric."""
        return cls({str(index): p for index, p in enumerate(trained_parameters(optimizer))})

    def weights(self) -> Tensor:
        """w [d], a copy."""
        return flatten(t.detach() for t in self.tensors)

    def gradient(self) -> Tensor:
        """∇L [d] as it stands in `.grad`, a copy; zero where there is none."""
        return flatten(torch.zeros_like(t) if t.grad is None else t.grad for t in self.tensors)

    def assign(self, vector: Tensor) -> None:
        """Move the tensors to the point w [d]."""
        with torch.no_grad():
            for tensor, part in zip(self.tensors, unflatten(vector, self.tensors), strict=True):
                tensor.copy_(part)
