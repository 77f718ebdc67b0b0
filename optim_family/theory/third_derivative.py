"""Third derivatives of a network's loss: ∇(vᵀ∇²L v).

Through torch's own training-mode batch normalisation third derivatives are wrong by some per cent, or raise.
The core's are right to any order: as λ₁(H(cw)) = λ₁(H(w))/c² demands, the derivative of log λ₁
along the weights is −2.
"""

import torch
from torch import Tensor

from optim_family.curvature.double_backward import second_derivatives
from optim_family.space import flatten, unflatten
from optim_family.training.objective import Objective


def third_derivative(objective: Objective, v: Tensor) -> Tensor:
    """∇(vᵀ ∇²L(w) v) at the present weights, for a fixed v: [d] → [d]."""
    tensors = objective.space.tensors
    vs, total = unflatten(v, tensors), torch.zeros_like(v)
    with second_derivatives():
        for chunk in objective.chunk_losses():
            gradient = torch.autograd.grad(chunk(), tensors, create_graph=True)
            product = torch.autograd.grad(gradient, tensors, vs, create_graph=True)
            curvature = torch.stack([(p * part).sum() for p, part in zip(product, vs, strict=True)]).sum()
            total += flatten(torch.autograd.grad(curvature, tensors, materialize_grads=True))
    return total
