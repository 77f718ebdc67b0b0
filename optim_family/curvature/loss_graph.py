"""Inspect the graph of a loss: coarsest number format, kinks, operations without a second derivative."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Self, final

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Operations that are linear on either side of a kink: differences of gradients see it, derivatives do not.
KINKS: Final = re.compile(
    r"Relu|Threshold|Hardtanh|Hardswish|Hardshrink|Softshrink|Hardsigmoid|PreluKernel|Abs|Max|Min|Clamp|Sort|"
    r"Topk|Huber|SmoothL1|Norm.*Inf|Where|Sign|Median|Kthvalue|Fmin|Fmax"
)
_ONCE: Final = once_differentiable(lambda ctx: None).__code__

# What to use where torch has no second derivative, by a part of the name of its operation.
REPLACEMENTS: Final[dict[str, tuple[str, str]]] = {
    "embedding_bag": ("EmbeddingBag", "Embedding, and the mean or sum of its rows"),
    "ctc_loss": ("CTCLoss", "a loss that can be differentiated twice"),
    "multi_margin": ("MultiMarginLoss", "the margins, written out with relu"),
    "multilabel_margin": ("MultiLabelMarginLoss", "the margins, written out with relu"),
    "scaled_dot_product": ("fused attention", "torch.nn.attention.sdpa_kernel(SDPBackend.MATH)"),
    "flex_attention": ("flex_attention", "attention written out"),
    "cudnn_rnn": ("an RNN of cuDNN", "torch.backends.cudnn.flags(enabled=False) around the forward pass"),
}
_MISSING: Final = (
    re.compile(r"derivative for '?(?:aten::)?(\w+)(?:: \w+)?'? is not implemented", re.I),
    re.compile(r"the derivative for '?(?:aten::)?(\w+)'?", re.I),
    re.compile(r"trying to backward through (\S+?)(?:\.default)? but no autograd formula", re.I),
    re.compile(r"(\w+) does not support double backward", re.I),
    re.compile(r"double backwards on (\w+) not supported", re.I),  # operations of torchvision
)


@final
@dataclass(frozen=True)
class LossGraph:
    """Properties of the graph of a loss.

    Attributes:
        machine_epsilon: of the coarsest number format of any result.
        kinks: operations that are linear on either side of a kink.
        once: functions of the user that are marked `once_differentiable`.
        reentrant: reentrant checkpoints, which hide their weights from the second derivative.
    """

    machine_epsilon: float
    kinks: tuple[str, ...] = ()
    once: tuple[str, ...] = ()
    reentrant: tuple[str, ...] = ()

    @classmethod
    def of(cls, loss: Tensor) -> Self:
        """The graph behind a loss, a scalar."""
        eps, kinks, once, reentrant = torch.finfo(loss.dtype).eps, set(), set(), set()
        for node in _nodes(loss):
            name = node.name().rpartition("::")[2].removesuffix("0").removesuffix("Backward")
            for metadata in getattr(node, "_input_metadata", ()):
                if metadata.dtype.is_floating_point:
                    eps = max(eps, torch.finfo(metadata.dtype).eps)
            if KINKS.search(name):
                kinks.add(name)
            function = getattr(type(node), "_forward_cls", None)
            if function is not None:
                if getattr(getattr(function, "backward", None), "__code__", None) is _ONCE:
                    once.add(name)
                if "checkpoint" in name.lower():
                    reentrant.add(name)
        return cls(eps, *(tuple(sorted(names)) for names in (kinks, once, reentrant)))


def _nodes(loss: Tensor) -> Iterator[Any]:
    """Every node of the graph, once."""
    waiting, seen = [loss.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            waiting += [following for following, _ in node.next_functions]


@contextmanager
def explain_missing_derivative() -> Iterator[None]:
    """Turn torch's error of a missing second derivative into one line: the layer, and its replacement.

    Raises:
        ValueError: an operation inside has no second derivative.
    """
    try:
        yield
    except RuntimeError as error:
        if (reason := missing_derivative(str(error))) is None:
            raise
        raise ValueError(reason) from error


def missing_derivative(message: str) -> str | None:
    """One line for what torch says of a missing second derivative; None if it says something else."""
    if "once_differentiable" in message:
        return (
            "a function in the loss is marked @once_differentiable and has no second derivative: write "
            "its backward with differentiable operations, and remove the mark."
        )
    if "differentiated Tensors does not require grad" in message:
        return (
            "the forward pass sets requires_grad of a measured weight to False: freeze weights before the "
            "measurement instead."
        )
    if "backward through the graph a second time" in message:
        return (
            "the loss uses tensors of an earlier evaluation, which a hook or the model keeps: empty the list "
            "that holds them at the start of the forward pass."
        )
    matches = (pattern.search(message) for pattern in _MISSING)
    operation = next((match[1] for match in matches if match), None)
    if operation is None:
        return None
    for part, (layer, instead) in REPLACEMENTS.items():
        if part in operation.lower():
            return f"torch has no second derivative of {layer} ({operation}): use {instead}."
    return f"torch has no second derivative of {operation}: use operations that can be differentiated twice."
