"""Two-dimensional convolution whose second derivative takes few calls, in the fastest layout of the device.

For y = x * w, with u the gradient of y, ⊛ the transposed convolution and ⋆ the gradient in the weights:

    dx = u ⊛ w,            dw = x ⋆ u                   gradient
    du = s * w + x * v,    dx = u ⊛ v,    dw = s ⋆ u    second derivative; s, v are the gradients of dx, dw

du is one convolution of the concatenated channels [s, x] with [w, v], or two convolutions if w is large; dx
and dw are one backward pass. torch takes four convolutions, and copies between layouts. On a CPU all tensors
have the channels last: with this layout the kernels of convolution and of batch normalisation are faster.
"""

from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from torch import Tensor
from torch.nn import functional

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]

# On a CPU the weight gradient is one matrix product if there are at most PLACES positions per output channel,
# or PATCHES numbers in all patches: there torch's kernel is slower.
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
    """`original` with these derivatives; unchanged if the formulas do not apply."""
    unsupported = torch.is_autocast_enabled(input.device.type) or torch._C._are_functorch_transforms_active()
    unsupported = unsupported or input.is_complex() or weight.is_complex() or input.dtype != weight.dtype
    if isinstance(padding, str) or input.ndim != 4 or unsupported:
        return original(input, weight, bias, stride, padding, dilation, groups)
    options = (*(_pair(n) for n in (stride, padding, dilation)), groups)
    y: Tensor = _Convolution.apply(_channels_last(input), _channels_last(weight), bias, options)
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
        return *_Gradient.apply(_channels_last(u), x, w, ctx.needs_input_grad[:3], ctx.options), None


@final
class _Gradient(torch.autograd.Function):
    """(u, x, w) ↦ (dx, dw, Σ u), each None if not needed."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, x: Tensor, w: Tensor, needed: Sequence[bool], options: Any) -> Gradients:
        ctx.options = options
        ctx.save_for_backward(u, x, w)
        ctx.set_materialize_grads(False)
        return _gradients(u, x, w, needed, options)

    @staticmethod
    def backward(ctx: Any, s: Tensor | None, v: Tensor | None, q: Tensor | None) -> Any:
        u, x, w = ctx.saved_tensors
        s, v = (None if t is None else _channels_last(t) for t in (s, v))
        _, x_needed, w_needed, *_ = ctx.needs_input_grad  # false for images: their gradient is expensive
        needed = v is not None and x_needed, s is not None and w_needed, False
        dx, dw, _ = _gradients(u, x if s is None else s, w if v is None else v, needed, ctx.options)
        pairs = [(a, b) for a, b in ((s, w), (x, v)) if a is not None and b is not None]
        du = None if q is None else q.view(-1, 1, 1).expand_as(u)
        for part in _convolve(pairs, ctx.options):
            du = part if du is None else part + du if torch.is_grad_enabled() else part.add_(du)
        return du, dx, dw, None, None


def _convolve(pairs: Sequence[tuple[Tensor, Tensor]], options: Any) -> list[Tensor]:
    """The terms of Σ a * b; two terms become one, unless w is large or the channels have groups."""
    if len(pairs) == 2 and options[-1] == 1 and pairs[0][0].numel() >= pairs[0][1].numel():
        (s, w), (x, v) = pairs
        pairs = [(torch.cat([s, x], 1), torch.cat([w, v], 1))]
    return [torch.conv2d(a, b, None, *options) for a, b in pairs]


def _gradients(u: Tensor, x: Tensor, w: Tensor, needed: Sequence[bool], options: Any) -> Gradients:
    """u ⊛ w, x ⋆ u and Σ u, each if needed."""
    *window, groups = options
    dx_needed, dw_needed, db_needed = needed
    positions = u.numel() // len(w)
    as_matmul = positions <= PLACES * len(w) or positions * w[0].numel() <= PATCHES
    as_matmul = as_matmul and dw_needed and groups == 1 and u.device.type == "cpu"
    as_matmul = as_matmul and not torch.is_grad_enabled()  # only torch's kernel makes a graph
    dw = _weight_gradient(u, x, w, *window) if as_matmul else None
    mask = [dx_needed, dw_needed and not as_matmul, db_needed]
    if any(mask):
        backward = torch.ops.aten.convolution_backward
        gradients = backward(u, x, w, [len(w)], *window, False, [0, 0], groups, mask)
        dx, torch_dw, db = (t if need else None for t, need in zip(gradients, mask, strict=True))
        return dx, dw if torch_dw is None else torch_dw, db
    return None, dw, None


def _weight_gradient(u: Tensor, x: Tensor, w: Tensor, stride: Any, padding: Any, dilation: Any) -> Tensor:
    """x ⋆ u as one matrix product of the patches of x [n h w, k k channels] and u [n h w, c]."""
    (n, _, *size), (*_, high, wide) = u.shape, w.shape
    padded = functional.pad(x, [padding[1]] * 2 + [padding[0]] * 2).permute(0, 2, 3, 1).contiguous()
    image, row, column, channel = padded.stride()
    patches = padded.as_strided(
        (n, *size, high, wide, x.shape[1]),
        (image, row * stride[0], column * stride[1], row * dilation[0], column * dilation[1], channel),
    ).reshape(u.numel() // len(w), -1)
    # With one channel this order is several times faster than its transpose.
    product = patches.T @ u.permute(0, 2, 3, 1).reshape(-1, len(w))
    return product.view(high, wide, -1, len(w)).permute(3, 2, 0, 1)


def _channels_last(t: Tensor) -> Tensor:
    """The tensor with the channels last on a CPU; unchanged elsewhere."""
    if t.device.type != "cpu":
        return t
    if t.shape[1] == 1 and t.stride(1) != 1:  # in both layouts; the strides decide the layout of y
        return t.clone(memory_format=torch.channels_last)
    return t.contiguous(memory_format=torch.channels_last)


def _pair(n: int | Sequence[int]) -> list[int]:
    return [n, n] if isinstance(n, int) else [*n] * (2 // len(n))
