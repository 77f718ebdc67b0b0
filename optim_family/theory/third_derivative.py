"""Third derivatives of a network's loss: batch normalisation from primitives, and ∇(vᵀ∇²L v).

Through torch's own training-mode batch normalisation third derivatives are wrong by some per cent, or raise.
Through means, squares and roots they are right: the derivative of log λ₁ along the weights is −2, as
λ₁(H(cw)) = λ₁(H(w))/c² demands.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from optim_family.curvature.double_backward import replace_functions
from optim_family.space import flatten, unflatten
from optim_family.training.objective import Objective


@contextmanager
def primitive_batch_norm() -> Iterator[None]:
    """Make `batch_norm` in training mode differentiable to every order inside the context.

    The running statistics do not change.
    """
    with replace_functions(batch_norm=_batch_norm):
        yield


def _batch_norm(
    original: Callable[..., Tensor],
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """(x − μ) / √(var x + ε) · γ + β, each channel over examples and places."""
    if not training:
        return original(input, running_mean, running_var, weight, bias, False, momentum, eps)
    around = [0, *range(2, input.ndim)]
    centred = input - input.mean(around, keepdim=True)
    normal = centred / (centred.square().mean(around, keepdim=True) + eps).sqrt()
    wide: Any = [1, -1, *[1] * (input.ndim - 2)]
    scaled = normal if weight is None else normal * weight.view(wide)
    return scaled if bias is None else scaled + bias.view(wide)


def third_derivative(objective: Objective, v: Tensor) -> Tensor:
    """∇(vᵀ ∇²L(w) v) at the present weights, for a fixed v: [d] → [d]."""
    tensors = objective.space.tensors
    vs, total = unflatten(v, tensors), torch.zeros_like(v)
    with primitive_batch_norm():
        for chunk in objective.chunk_losses():
            gradient = torch.autograd.grad(chunk(), tensors, create_graph=True)
            product = torch.autograd.grad(gradient, tensors, vs, create_graph=True)
            curvature = torch.stack([(p * part).sum() for p, part in zip(product, vs, strict=True)]).sum()
            total += flatten(torch.autograd.grad(curvature, tensors, materialize_grads=True))
    return total
