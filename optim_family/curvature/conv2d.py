"""Two-dimensional convolution whose second derivative takes few calls, in the layout that suits the device.

For y = x * w, with u the gradient of y, ⊛ the transposed convolution and ⋆ the gradient in the weights:

    dx = u ⊛ w,            dw = x ⋆ u                   first
    du = s * w + x * v,    dx = u ⊛ v,    dw = s ⋆ u    second, given those s, v of dx, dw

du is one convolution of [s, x] with [w, v] as channels, or two where the weights are many; the rest is one
backward pass. torch's own formula takes four convolutions and copies to and fro. On a CPU everything is
kept with the channels last, where its kernels are faster, those of batch normalisation too.
"""

from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from torch import Tensor
from torch.nn import functional

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]

# ⋆ is a matrix product of our own up to so many places for each output channel, or numbers in all patches:
# there the library's kernel on a CPU is slower.
PLACES, PATCHES = 8, 2**20


def conv2d(
    original: Callable[..., Tensor],
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """`original`, differentiated by these formulas; as it is where they do not serve."""
    other = torch.is_autocast_enabled(input.device.type) or torch._C._are_functorch_transforms_active()
    other = other or input.is_complex() or weight.is_complex() or input.dtype != weight.dtype
    if isinstance(padding, str) or input.ndim != 4 or other:
        return original(input, weight, bias, stride, padding, dilation, groups)
    options = (*(_pair(n) for n in (stride, padding, dilation)), groups)
    y: Tensor = _Convolution.apply(_laid_out(input), _laid_out(weight), bias, options)
    return y


@final
class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, bias: Tensor | None, options: Any) -> Tensor:
        ctx.options = options
        ctx.save_for_backward(x, w)
        return torch.conv2d(x, w, bias, *options)

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> Any:
        x, w = ctx.saved_tensors
        return *_Gradient.apply(_laid_out(u), x, w, ctx.needs_input_grad[:3], ctx.options), None


@final
class _Gradient(torch.autograd.Function):
    """(u, x, w) ↦ (dx, dw, Σ u), those that are needed."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, x: Tensor, w: Tensor, needed: Sequence[bool], options: Any) -> Gradients:
        ctx.options = options
        ctx.save_for_backward(u, x, w)
        ctx.set_materialize_grads(False)
        return _gradients(u, x, w, needed, options)

    @staticmethod
    def backward(ctx: Any, s: Tensor | None, v: Tensor | None, q: Tensor | None) -> Any:
        u, x, w = ctx.saved_tensors
        s, v = (None if t is None else _laid_out(t) for t in (s, v))
        wanted = ctx.needs_input_grad  # not in the images, whose gradient would cost as much as any
        needed = v is not None and wanted[1], s is not None and wanted[2], False
        dx, dw, _ = _gradients(u, x if s is None else s, w if v is None else v, needed, ctx.options)
        pairs = [(a, b) for a, b in ((s, w), (x, v)) if a is not None and b is not None]
        du = None if q is None else q.view(-1, 1, 1).expand_as(u)
        for part in _convolved(pairs, ctx.options):
            du = part if du is None else part + du if torch.is_grad_enabled() else part.add_(du)
        return du, dx, dw, None, None


def _convolved(pairs: Sequence[tuple[Tensor, Tensor]], options: Any) -> list[Tensor]:
    """The terms of Σ a * b; two become one, unless the weights are many to copy or the channels in groups."""
    if len(pairs) == 2 and options[-1] == 1 and pairs[0][0].numel() >= pairs[0][1].numel():
        (s, w), (x, v) = pairs
        pairs = [(torch.cat([s, x], 1), torch.cat([w, v], 1))]
    return [torch.conv2d(a, b, None, *options) for a, b in pairs]


def _gradients(u: Tensor, x: Tensor, w: Tensor, needed: Sequence[bool], options: Any) -> Gradients:
    """u ⊛ w, x ⋆ u and Σ u, each if needed."""
    *places, groups = options
    first, second, third = needed
    ours = second and groups == 1 and u.device.type == "cpu" and _small(u.numel() // len(w), w)
    ours = ours and not torch.is_grad_enabled()  # a graph is wanted: torch's own kernel has one
    dw = _weights(u, x, w, *places) if ours else None
    mask = [first, second and not ours, third]
    if any(mask):
        backward = torch.ops.aten.convolution_backward
        found = backward(u, x, w, [len(w)], *places, False, [0, 0], groups, mask)
        dx, other, db = (t if kept else None for t, kept in zip(found, mask, strict=True))
        return dx, dw if other is None else other, db
    return None, dw, None


def _small(places: int, w: Tensor) -> bool:
    return places <= PLACES * len(w) or places * w[0].numel() <= PATCHES


def _weights(u: Tensor, x: Tensor, w: Tensor, stride: Any, padding: Any, dilation: Any) -> Tensor:
    """x ⋆ u as one product of matrices: the patches of x [n h w, k k channels] with u [n h w, c]."""
    (n, _, *size), (*_, high, wide) = u.shape, w.shape
    padded = functional.pad(x, [padding[1]] * 2 + [padding[0]] * 2).permute(0, 2, 3, 1).contiguous()
    image, row, column, channel = padded.stride()
    patches = padded.as_strided(
        (n, *size, high, wide, x.shape[1]),
        (image, row * stride[0], column * stride[1], row * dilation[0], column * dilation[1], channel),
    ).reshape(u.numel() // len(w), -1)
    # The patches first: with one channel several times faster than the transpose of this.
    product = patches.T @ u.permute(0, 2, 3, 1).reshape(-1, len(w))
    return product.view(high, wide, -1, len(w)).permute(3, 2, 0, 1)


def _laid_out(t: Tensor) -> Tensor:
    if t.device.type != "cpu":
        return t
    if t.shape[1] == 1 and t.stride(1) != 1:  # lies either way, but its strides tell torch how to lay out y
        return t.clone(memory_format=torch.channels_last)
    return t.contiguous(memory_format=torch.channels_last)


def _pair(n: int | Sequence[int]) -> list[int]:
    return [n, n] if isinstance(n, int) else [*n] * (2 // len(n))
