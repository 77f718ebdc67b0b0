"""Training-mode batch normalisation whose second derivative takes a few passes over the activations.

For each channel, with ⟨·⟩ the mean over examples and places, x̂ = (x − μ) r and r = (var x + ε)^{-1/2}:

    y  = γ x̂ + β
    dx = γ r (u − ⟨u⟩ − ⟨u x̂⟩ x̂)                             first, given the gradient u of y
    du = γ r (s − ⟨s⟩ − ⟨s x̂⟩ x̂) + p x̂ + q                    second, given those s, p, q of dx, dγ, dβ
    dx = r (h − ⟨h⟩ − ⟨h x̂⟩ x̂) − γ r² (⟨s u⟩ − ⟨u⟩⟨s⟩ − ⟨u x̂⟩⟨s x̂⟩) x̂
    h  = p u − γ r (⟨u x̂⟩ s + ⟨s x̂⟩ u)

The last but one is a combination of s, u, x̂ and 1 with one coefficient each a channel. torch's own formula
takes some thirty passes. The mathematics and, to rounding, the numbers are the same.
"""

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Statistics = tuple[Tensor, Tensor, Tensor]


def batch_norm(
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
    """`original`, differentiated twice by these formulas in training mode.

    Value, gradient and running statistics are bitwise those of torch.
    """
    if not training:
        return original(input, running_mean, running_var, weight, bias, False, momentum, eps)
    y: Tensor = _BatchNorm.apply(input, weight, bias, running_mean, running_var, momentum, eps)
    return y


@final
class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor | None, beta: Tensor | None, *options: Any) -> Tensor:
        mean, var, momentum, eps = options
        y, mu, r = torch.native_batch_norm(x, gamma, beta, mean, var, True, momentum, eps)
        ctx.save_for_backward(x, gamma, mu, r)
        return y

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> Any:
        gradients = _Gradient.apply(u, *ctx.saved_tensors)
        wanted = (d if needed else None for d, needed in zip(gradients, ctx.needs_input_grad, strict=False))
        return *wanted, None, None, None, None


@final
class _Gradient(torch.autograd.Function):
    """(u, x, γ) ↦ (dx, dγ, dβ), with the statistics μ, r of x."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, x: Tensor, gamma: Tensor | None, mu: Tensor, r: Tensor) -> Statistics:
        dx, dgamma, dbeta = _project(u, x, gamma, mu, r)
        ctx.save_for_backward(u, x, gamma, mu, r, dgamma, dbeta)
        ctx.set_materialize_grads(False)
        return dx, dgamma, dbeta

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, s: Tensor | None, p: Tensor | None, q: Tensor | None) -> Any:
        u, x, gamma, mu, r, u_normed, u_sum = ctx.saved_tensors  #                    a channel each: [c]
        m, g = u.numel() // r.numel(), r if gamma is None else gamma * r
        s = torch.zeros_like(u) if s is None else s
        du, s_normed, s_sum = _project(s, x, gamma, mu, r)
        uh, u1, sh, s1 = u_normed / m, u_sum / m, s_normed / m, s_sum / m  #   ⟨u x̂⟩, ⟨u⟩, ⟨s x̂⟩, ⟨s⟩
        covariance = _products(s, u, u1) / m - uh * sh
        normed = (x - _wide(mu, x)).mul_(_wide(r, x))  #                                x̂, [n, c, ...]
        if p is not None:
            du.addcmul_(normed, _wide(p, x))
        p = torch.zeros_like(r) if p is None else p
        rest = r * (g * (uh * s1 + sh * u1) - p * u1)
        slope = r * (2 * g * uh * sh - p * uh - g * covariance)
        dx = torch.addcmul(_wide(rest, x), normed, _wide(slope, x), out=normed)
        dx.addcmul_(s, _wide(-r * g * uh, x)).addcmul_(u, _wide(r * (p - g * sh), x))
        if q is not None:
            du.add_(_wide(q, x))
        return du, dx, None if gamma is None else r * m * covariance, None, None


def _products(s: Tensor, u: Tensor, mean: Tensor) -> Tensor:
    """Σ s (u − ⟨u⟩), in one kernel that forms no product: that of dγ, were u the input."""
    mask = [False, True, False]
    ones = torch.ones_like(mean)
    backward = torch.ops.aten.native_batch_norm_backward
    summed: Tensor = backward(s, u, ones, None, None, mean, ones, True, 0.0, mask)[1]
    return summed


def _project(u: Tensor, x: Tensor, gamma: Tensor | None, mu: Tensor, r: Tensor) -> Statistics:
    """γ r (u − ⟨u⟩ − ⟨u x̂⟩ x̂), Σ u x̂ and Σ u, in one kernel; ε is in r already."""
    mask = [True, True, True]
    projected: Statistics = torch.ops.aten.native_batch_norm_backward(
        u, x, gamma, None, None, mu, r, True, 0.0, mask
    )
    return projected


def _wide(channels: Tensor, like: Tensor) -> Tensor:
    """[c] → [1, c, 1, ...]."""
    return channels.view(1, -1, *[1] * (like.ndim - 2))
