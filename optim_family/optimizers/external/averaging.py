"""Optimizers that average the weights: gradients at y, evaluation at the average x.

    z ← z − η P⁻¹ ∇L(y)          x ← (1 − c) x + c z          y = (1 − β) z + β x

The tensors hold y while the optimizer is in training mode, and x while it is in evaluation mode. Its
`train()` and `eval()` change between both.

Source: A. Defazio et al., "The road less scheduled" (2024).
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal, get_args

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

Point = Literal["x", "y"]
POINTS: Final[tuple[Point, ...]] = get_args(Point)
_MODE: Final = "train_mode"  # of a parameter group, or of a wrapper itself


def point_of(optimizer: Any) -> Point | None:
    """The point where the weights are; None if the optimizer does not average.

    Raises:
        ValueError: some parameter groups are in training mode, others in evaluation mode.
    """
    inner = _inner(optimizer)
    modes = [group[_MODE] for group in inner.param_groups if _MODE in group] or [getattr(inner, _MODE, None)]
    if not (callable(getattr(inner, "train", None)) and callable(getattr(inner, "eval", None))):
        return None
    if len({*map(bool, modes)}) > 1:  # a new group of schedulefree begins in evaluation mode
        raise ValueError(
            f"some parameter groups of {type(inner).__name__} are in training mode, others in evaluation "
            "mode; call its train() after add_param_group()."
        )
    return None if modes[0] is None else "y" if modes[0] else "x"


def require_point(optimizer: Any, point: str | None) -> Point | None:
    """The point to measure at, x by default; None if the optimizer does not average.

    Raises:
        ValueError: there is no such point, or the optimizer has one only.
    """
    if point not in (None, *POINTS):
        raise ValueError(f"the point is x, the average, or y, where gradients are computed; got {point!r}.")
    if optimizer is not None and point_of(optimizer):
        return "y" if point == "y" else "x"
    if point == "y":
        name = "without an optimizer" if optimizer is None else f"with {type(optimizer).__name__}"
        raise ValueError(f"the point y exists with schedule-free optimizers only; {name} there is one point.")
    return None


@contextmanager
def at_point(optimizer: Any, point: Point | None) -> Iterator[bool]:
    """Inside, the weights are at this point; yields whether they moved.

    Weights and mode are restored bitwise. Nothing moves if the point is None, if the weights are there, or
    before the first step, where x = y.
    """
    inner = _inner(optimizer)
    if point is None or point_of(inner) in (None, point) or not inner.state:
        yield False
        return
    there, back = (inner.eval, inner.train) if point == "x" else (inner.train, inner.eval)
    tensors = [tensor for group in inner.param_groups for tensor in group["params"]]
    before = [tensor.detach().clone() for tensor in tensors]
    there()
    try:
        yield True
    finally:
        back()
        with torch.no_grad():
            for tensor, old in zip(tensors, before, strict=True):
                tensor.copy_(old)


def start_training(optimizer: Any) -> None:
    """Put an optimizer that averages into training mode; some begin in the other one."""
    if point_of(optimizer) == "x":
        _inner(optimizer).train()


def require_training(optimizer: Any, *_: Any) -> None:
    """A hook before a step, which takes the weights for y.

    Raises:
        ValueError: the optimizer is in evaluation mode, where the weights are x.
    """
    if point_of(optimizer) == "x":
        raise ValueError(
            f"{type(optimizer).__name__} takes a step in evaluation mode, where its weights are the average "
            "x; call its train() before the training and after each eval()."
        )


def warn_about_statistics(model: nn.Module, optimizer: Any, point: Point | None) -> None:
    """Warn where weights at x are normalised with statistics that were gathered while they were at y."""
    norms = (module for module in model.modules() if isinstance(module, _BatchNorm))
    old = any(not norm.training and norm.running_mean is not None for norm in norms)
    if old and point == "x" and point_of(optimizer) == "y":
        warnings.warn(
            "the weights are measured at the average x, and BatchNorm has running statistics of the training "
            "at y: recompute them after the optimizer's eval(), or measure in training mode.",
            stacklevel=3,
        )


def _inner(optimizer: Any) -> Any:
    """The optimizer inside the wrapper of this package."""
    return getattr(optimizer, "wrapped", optimizer)
