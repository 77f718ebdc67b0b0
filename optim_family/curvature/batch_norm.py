"""Training-mode batch normalisation whose second derivative takes a few passes over the activations.

For each channel, with ⟨·⟩ the mean over examples and places, x̂ = (x − μ) r and r = (var x + ε)^{-1/2}:

    y  = γ x̂ + β
    dx = γ r (u − ⟨u⟩ − ⟨u x̂⟩ x̂)                             first, given the gradient u of y
    du = γ r (s − ⟨s⟩ − ⟨s x̂⟩ x̂) + p x̂ + q                    second, given those s, p, q of dx, dγ, dβ
    dx = r (h − ⟨h⟩ − ⟨h x̂⟩ x̂) − γ r² (⟨s u⟩ − ⟨u⟩⟨s⟩ − ⟨u x̂⟩⟨s x̂⟩) x̂
    h  = p u − γ r (⟨u x̂⟩ s + ⟨s x̂⟩ u)

The last but one is a combination of s, u, x̂ and 1 with one coefficient each a channel. torch's own formula
takes some thirty passes. The mathematics and, to rounding, the numbers are the same. Where the second
derivative needs a graph, for a derivative inside the loss, dx, dγ and dβ are formed from means and squares,
which torch differentiates to any order; through its own batch normalisation third derivatives are wrong.
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
    """`original`, differentiated by these formulas in training mode; as it is where they do not serve.

    Value, gradient and running statistics are bitwise those of torch.
    """
    mixed = any(t is not None and t.dtype != input.dtype for t in (weight, bias))
    single = input.numel() == (input.shape[1] if input.ndim > 1 else 0)  # of which torch refuses the variance
    transformed = torch._C._are_functorch_transforms_active()
    if training and transformed and running_mean is None and not mixed and not single:
        normed = standardize(input, [0, *range(2, input.ndim)], eps)
        return affine(normed, *(None if t is None else _wide(t, input) for t in (weight, bias)))
    if not training or mixed or single or transformed:
        return original(input, running_mean, running_var, weight, bias, training, momentum, eps)
    y: Tensor = _BatchNorm.apply(input, weight, bias, running_mean, running_var, momentum, eps)
    return y


def standardize(x: Tensor, around: list[int], eps: float) -> Tensor:
    """(x − ⟨x⟩) (var x + ε)^{-1/2} with the mean over these dimensions, from operations of every order."""
    centred = x - x.mean(around, keepdim=True)
    normed: Tensor = centred * (centred.square().mean(around, keepdim=True) + eps).rsqrt()
    return normed


def affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """γ x + β."""
    scaled = x if weight is None else x * weight
    return scaled if bias is None else scaled + bias


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
        wanted = (d if needed else None for d, needed in zip(gradients, ctx.needs_input_grad, strict=False))
        return *wanted, None, None, None, None


@final
class _Gradient(torch.autograd.Function):
    """(u, x, γ) ↦ (dx, dγ, dβ), with the statistics μ, r of x."""

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
        return du, dx, None if gamma is None else r * m * covariance, None, None, None


def _with_graph(ctx: Any, seeds: tuple[Tensor | None, ...]) -> list[Tensor | None]:
    """(du, dx, dγ) given the gradients of dx, dγ, dβ, with a graph."""
    # Views, so that what u itself owes to x is not counted here.
    views: list[Any] = [None if t is None else t.view_as(t) for t in ctx.saved_tensors[:3]]
    u, x, gamma = views
    around = [0, *range(2, x.ndim)]
    centred = x - x.mean(around, keepdim=True)
    r = (centred.square().mean(around, keepdim=True) + ctx.eps).rsqrt()
    normed, g = centred * r, r if gamma is None else r * _wide(gamma, x)
    along = (u * normed).mean(around, keepdim=True)
    gradients = (
        g * (u - u.mean(around, keepdim=True) - along * normed),
        (u * normed).sum(around),
        u.sum(around),
    )
    pairs = [(d, s) for d, s in zip(gradients, seeds, strict=True) if s is not None and d.requires_grad]
    wanted = [t if needed else None for t, needed in zip((u, x, gamma), ctx.needs_input_grad, strict=False)]
    inputs = [t for t in wanted if t is not None]
    if not (pairs and inputs):
        return [None] * 3
    outputs, seeds_of_outputs = zip(*pairs, strict=True)
    second = iter(
        torch.autograd.grad(outputs, inputs, seeds_of_outputs, create_graph=True, allow_unused=True)
    )
    return [None if t is None else next(second) for t in wanted]


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
