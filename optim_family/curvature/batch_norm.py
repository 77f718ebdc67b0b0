"""Training-mode batch normalisation whose second derivative takes a few passes over the activations.

For each channel, with ⟨·⟩ the mean over examples and positions, x̂ = (x − μ) r and r = (var x + ε)^{-1/2}:

    y  = γ x̂ + β                                                                          (1)
    dx = γ r (u − ⟨u⟩ − ⟨u x̂⟩ x̂)                                                          (2)
    du = γ r (s − ⟨s⟩ − ⟨s x̂⟩ x̂) + p x̂ + q                                                (3)
    dx = r (h − ⟨h⟩ − ⟨h x̂⟩ x̂) − γ r² (⟨s u⟩ − ⟨u⟩⟨s⟩ − ⟨u x̂⟩⟨s x̂⟩) x̂                     (4)
    h  = p u − γ r (⟨u x̂⟩ s + ⟨s x̂⟩ u)

u is the gradient of y; s, p, q are the gradients of dx (2), dγ, dβ. (4) is a combination of s, u, x̂ and 1
with four coefficients for each channel; torch takes some thirty passes for the same numbers, up to rounding.
A derivative inside the loss needs a graph of (3) and (4). dx, dγ and dβ are then built from means and
squares, which torch differentiates to any order; its own third derivatives of batch normalisation are wrong.
"""

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor

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
    """`original`, in training mode with these derivatives; unchanged if the formulas do not apply.

    Value, gradient and running statistics are bitwise those of torch.
    """
    mixed = any(t is not None and t.dtype != input.dtype for t in (weight, bias))
    one_value = _one_value(input)
    transformed = torch._C._are_functorch_transforms_active()
    if training and transformed and running_mean is None and not mixed and not one_value:
        x_hat = standardize(input, [0, *range(2, input.ndim)], eps)
        return affine(x_hat, *(None if t is None else _per_channel(t, input) for t in (weight, bias)))
    if not training or mixed or one_value or transformed:
        return original(input, running_mean, running_var, weight, bias, training, momentum, eps)
    y: Tensor = _BatchNorm.apply(input, weight, bias, running_mean, running_var, momentum, eps)
    return y


def _one_value(input: Tensor) -> bool:
    """Whether a channel has one value only: torch raises an error."""
    return input.numel() == (input.shape[1] if input.ndim > 1 else 0)


def native_batch_norm(
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
    """`original` with torch's own kernel on a GPU too, which the derivatives above use, and never cuDNN's.

    The two may differ on a channel that is constant: its variance is a rounding error, which 1/√ε amplifies.
    """
    if training and _one_value(input):
        return original(input, running_mean, running_var, weight, bias, training, momentum, eps)
    return torch.batch_norm(
        input, weight, bias, running_mean, running_var, training, momentum, eps, cudnn_enabled=False
    )


def standardize(x: Tensor, dims: list[int], eps: float) -> Tensor:
    """(x − ⟨x⟩) (var x + ε)^{-1/2} with means over dims; differentiable to any order."""
    centred = x - x.mean(dims, keepdim=True)
    x_hat: Tensor = centred * (centred.square().mean(dims, keepdim=True) + eps).rsqrt()
    return x_hat


def affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """γ x + β."""
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


@final
class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor | None, beta: Tensor | None, *options: Any) -> Tensor:
        mean, var, momentum, eps = options
        y, mu, r = torch.native_batch_norm(x, gamma, beta, mean, var, True, momentum, eps)
        ctx.save_for_backward(x, gamma, mu, r)
        ctx.eps = eps
        return y

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> Any:
        gradients = _Gradient.apply(u, *ctx.saved_tensors, ctx.eps)
        needed = (d if need else None for d, need in zip(gradients, ctx.needs_input_grad, strict=False))
        return *needed, None, None, None, None


@final
class _Gradient(torch.autograd.Function):
    """(u, x, γ) ↦ (dx, dγ, dβ), given the statistics μ, r of x."""

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, x: Tensor, gamma: Tensor | None, mu: Tensor, r: Tensor, eps: float
    ) -> Statistics:
        dx, dgamma, dbeta = _project(u, x, gamma, mu, r)
        ctx.save_for_backward(u, x, gamma, mu, r, dgamma, dbeta)
        ctx.set_materialize_grads(False)
        ctx.eps = eps
        return dx, dgamma, dbeta

    @staticmethod
    def backward(ctx: Any, s: Tensor | None, p: Tensor | None, q: Tensor | None) -> Any:
        if torch.is_grad_enabled():
            return *_with_graph(ctx, (s, p, q)), None, None, None
        u, x, gamma, mu, r, u_x_hat_sum, u_sum = ctx.saved_tensors  #        per channel: [c]
        m, g = u.numel() // r.numel(), r if gamma is None else gamma * r
        s = torch.zeros_like(u) if s is None else s
        du, s_x_hat_sum, s_sum = _project(s, x, gamma, mu, r)
        uh, u1, sh, s1 = u_x_hat_sum / m, u_sum / m, s_x_hat_sum / m, s_sum / m  #   ⟨u x̂⟩, ⟨u⟩, ⟨s x̂⟩, ⟨s⟩
        covariance = _covariance_sum(s, u, u1) / m - uh * sh
        x_hat = (x - _per_channel(mu, x)).mul_(_per_channel(r, x))  #                   [n, c, ...]
        if p is not None:
            du.addcmul_(x_hat, _per_channel(p, x))
        p = torch.zeros_like(r) if p is None else p
        constant = r * (g * (uh * s1 + sh * u1) - p * u1)
        of_x_hat = r * (2 * g * uh * sh - p * uh - g * covariance)
        dx = torch.addcmul(_per_channel(constant, x), x_hat, _per_channel(of_x_hat, x), out=x_hat)
        dx.addcmul_(s, _per_channel(-r * g * uh, x)).addcmul_(u, _per_channel(r * (p - g * sh), x))
        if q is not None:
            du.add_(_per_channel(q, x))
        return du, dx, None if gamma is None else r * m * covariance, None, None, None


def _with_graph(ctx: Any, seeds: tuple[Tensor | None, ...]) -> list[Tensor | None]:
    """(du, dx, dγ) with a graph, from the gradients s, p, q of dx, dγ, dβ."""
    # u depends on x; the views exclude this dependence from the derivatives.
    views: list[Any] = [None if t is None else t.view_as(t) for t in ctx.saved_tensors[:3]]
    u, x, gamma = views
    dims = [0, *range(2, x.ndim)]
    centred = x - x.mean(dims, keepdim=True)
    r = (centred.square().mean(dims, keepdim=True) + ctx.eps).rsqrt()
    x_hat, g = centred * r, r if gamma is None else r * _per_channel(gamma, x)
    u_x_hat = (u * x_hat).mean(dims, keepdim=True)
    gradients = (
        g * (u - u.mean(dims, keepdim=True) - u_x_hat * x_hat),
        (u * x_hat).sum(dims),
        u.sum(dims),
    )
    pairs = [(d, s) for d, s in zip(gradients, seeds, strict=True) if s is not None and d.requires_grad]
    needed = [t if need else None for t, need in zip((u, x, gamma), ctx.needs_input_grad, strict=False)]
    inputs = [t for t in needed if t is not None]
    if not (pairs and inputs):
        return [None] * 3
    outputs, seeds_of_outputs = zip(*pairs, strict=True)
    second = iter(
        torch.autograd.grad(outputs, inputs, seeds_of_outputs, create_graph=True, allow_unused=True)
    )
    return [None if t is None else next(second) for t in needed]


def _covariance_sum(s: Tensor, u: Tensor, mean: Tensor) -> Tensor:
    """Σ s (u − ⟨u⟩) without a temporary: the kernel of dγ, with u as its input."""
    mask = [False, True, False]
    ones = torch.ones_like(mean)
    backward = torch.ops.aten.native_batch_norm_backward
    total: Tensor = backward(s, u, ones, None, None, mean, ones, True, 0.0, mask)[1]
    return total


def _project(u: Tensor, x: Tensor, gamma: Tensor | None, mu: Tensor, r: Tensor) -> Statistics:
    """γ r (u − ⟨u⟩ − ⟨u x̂⟩ x̂), Σ u x̂ and Σ u, in one kernel; r includes ε."""
    mask = [True, True, True]
    gamma = torch.ones_like(r) if gamma is None else gamma  # CUDA's kernel makes Σ u x̂ like γ
    projected: Statistics = torch.ops.aten.native_batch_norm_backward(
        u, x, gamma, None, None, mu, r, True, 0.0, mask
    )
    return projected


def _per_channel(channels: Tensor, like: Tensor) -> Tensor:
    """[c] → [1, c, 1, ...]."""
    return channels.view(1, -1, *[1] * (like.ndim - 2))
