"""Replace functions of torch, in the measuring thread, by functions with a correct second derivative.

Convolution and batch, layer and instance normalisation take fewer passes, and have third derivatives. The
second derivative of torch's fused `weight_norm` is wrong; `hardsigmoid`, sparse embeddings and fused
attention have none: attention uses its plain kernel, and an RNN that of torch instead of cuDNN's. A reentrant
checkpoint hides its weights.
"""

import importlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import wraps
from math import prod
from typing import Any, Final

import torch
import torch.utils.checkpoint
from torch import Tensor
from torch.backends import cuda as attention
from torch.nn import functional

from optim_family.curvature.batch_norm import affine, batch_norm, standardize
from optim_family.curvature.conv2d import conv2d
from optim_family.curvature.shared_context import SharedContext

# The modules in which torch looks up each function.
PLACES: Final[dict[str, tuple[Any, ...]]] = {
    "batch_norm": (functional,),
    "conv2d": (functional,),
    "embedding": (functional,),
    "hardsigmoid": (functional,),
    "instance_norm": (functional,),
    "layer_norm": (functional,),
    **{
        name: (functional,) for name in ("relu", "leaky_relu", "relu6", "hardtanh", "hardswish", "max_pool2d")
    },
    "_weight_norm": (torch, importlib.import_module("torch.nn.utils.weight_norm")),
    "CheckpointFunction": (torch.utils.checkpoint,),
    **{name: (torch._VF,) for name in ("gru", "lstm", "rnn_relu", "rnn_tanh")},
}
ATTENTION_KERNELS: Final = ("flash", "mem_efficient", "cudnn")

_thread = threading.local()  # `replacements`: the functions of this thread, by name


@contextmanager
def replace_functions(**replacements: Callable[..., Any]) -> Iterator[None]:
    """Replace functions of torch for this thread inside; each replacement takes the original first.

    A function that is replaced already keeps its replacement. A checkpointed part runs again inside the
    backward pass, which a torch function mode does not reach; hence the backward pass stays in this thread.
    """
    before = getattr(_thread, "replacements", {})
    with _dispatch, torch.autograd.set_multithreading_enabled(False):
        _thread.replacements = {**replacements, **before}
        try:
            yield
        finally:
            _thread.replacements = before


@contextmanager
def second_derivatives() -> Iterator[None]:
    """Replace the functions whose second derivative in torch is wrong, missing or slow."""
    with replace_functions(**REPLACEMENTS), _plain_attention, _eager:
        yield


@contextmanager
def _dispatchers() -> Iterator[None]:
    """Each function calls the replacement of the present thread, if there is one."""
    with ExitStack() as stack:
        for name, places in PLACES.items():
            for place in places:
                original = getattr(place, name)
                setattr(place, name, _dispatcher(name, original))
                stack.callback(setattr, place, name, original)
        yield


def _dispatcher(name: str, original: Any) -> Any:
    def dispatch(*args: Any, **kwargs: Any) -> Any:
        replacement = getattr(_thread, "replacements", {}).get(name)
        return call(*args, **kwargs) if replacement is None else replacement(call, *args, **kwargs)

    if not isinstance(original, type):
        call = original
        return wraps(original)(dispatch)
    call = original.apply  # type: ignore[attr-defined]
    return type(original.__name__, (original,), {"apply": staticmethod(dispatch)})


@contextmanager
def _attention_without_fused_kernels() -> Iterator[None]:
    before = {name: getattr(attention, f"{name}_sdp_enabled")() for name in ATTENTION_KERNELS}
    try:
        for name in ATTENTION_KERNELS:
            getattr(attention, f"enable_{name}_sdp")(False)
        yield
    finally:
        for name, enabled in before.items():
            getattr(attention, f"enable_{name}_sdp")(enabled)


_dispatch = SharedContext(_dispatchers)
# These switches are global in torch: other threads, too, run eagerly and with the plain attention kernel.
_plain_attention = SharedContext(_attention_without_fused_kernels)
_eager = SharedContext(
    lambda: torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
)


def _embedding(
    original: Callable[..., Tensor],
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Dense gradients; with `max_norm` at the renormalised rows, without changing the weights in place."""
    if max_norm is not None:
        renormed = weight.detach().clone()
        original(input, renormed, padding_idx, max_norm, norm_type)
        weight = weight + (renormed - weight).detach()
    return original(input, weight, padding_idx)


def _layer_norm(
    original: Callable[..., Tensor],
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """A batch normalisation in which each row is a channel; torch's third derivative is wrong."""
    numbers = prod(normalized_shape)
    if (
        numbers < 2
        or not input.numel()
        or any(t is not None and t.dtype != input.dtype for t in (weight, bias))
    ):
        return original(input, normalized_shape, weight, bias, eps)
    if torch._C._are_functorch_transforms_active():
        return affine(standardize(input, [*range(-len(normalized_shape), 0)], eps), weight, bias)
    rows = functional.batch_norm(input.reshape(1, -1, numbers), None, None, training=True, eps=eps)
    return affine(rows.view(input.shape), weight, bias)


def _instance_norm(
    original: Callable[..., Tensor],
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Layer normalisation of each channel of each example; running statistics would be restored anyway."""
    positions = input.shape[2:]
    if (
        not use_input_stats
        or prod(positions) < 2
        or any(t is not None and t.dtype != input.dtype for t in (weight, bias))
    ):
        return original(input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)
    per_channel = (None if t is None else t.view(-1, *[1] * len(positions)) for t in (weight, bias))
    return affine(functional.layer_norm(input, positions, eps=eps), *per_channel)


def _weight_norm(original: Callable[..., Tensor], v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """g v / ‖v‖, with the norm over all dimensions except dim; over all dimensions if dim = −1."""
    return v * (g / torch.norm_except_dim(v, 2, dim))


def _rnn(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """An RNN without cuDNN, whose kernels have no second derivative."""
    cudnn: Any = torch.backends.cudnn
    before = cudnn.enabled
    cudnn.enabled = False  # in the forward pass only: the graph then holds other operations
    try:
        return original(*args, **kwargs)
    finally:
        cudnn.enabled = before


def _hardsigmoid(original: Callable[..., Tensor], input: Tensor, inplace: bool = False) -> Tensor:
    """Piecewise linear: min(max(x + 3, 0), 6) / 6."""
    return functional.relu6(input + 3) / 6


def _checkpoint(original: Callable[..., Any], function: Callable[..., Any], keep: bool, *args: Any) -> Any:
    """A non-reentrant checkpoint, which has derivatives of all orders."""
    return torch.utils.checkpoint.checkpoint(function, *args, use_reentrant=False, preserve_rng_state=keep)


REPLACEMENTS: Final[dict[str, Callable[..., Any]]] = {
    "batch_norm": batch_norm,
    "conv2d": conv2d,
    "embedding": _embedding,
    "hardsigmoid": _hardsigmoid,
    "instance_norm": _instance_norm,
    "layer_norm": _layer_norm,
    "_weight_norm": _weight_norm,
    "CheckpointFunction": _checkpoint,
    **{name: _rnn for name in ("gru", "lstm", "rnn_relu", "rnn_tanh")},
}
