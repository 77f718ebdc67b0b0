"""Test whether a loss is exactly scale-invariant in the trained tensors, and which tensors break it.

    L(2w) = L(w)   and   g(2w) = g(w) / 2

Doubling changes only exponents: in floating point a scale-invariant loss satisfies both bitwise.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from optim_family.errors import UsageError, first_three


@final
@dataclass(frozen=True)
class ScaleInvariance:
    """How doubling all weights changes a loss and its gradient, and which tensors break the invariance."""

    invariant: bool
    exact: bool  # bitwise; on a GPU, where sums change their order, `invariant` allows rounding
    loss_error: float  # |L(2w) − L(w)| / |L(w)|
    gradient_error: float  # ‖2 g(2w) − g(w)‖ / ‖g(w)‖
    breaking: tuple[str, ...] = ()  # tensors whose doubling alone changes the loss, the largest change first

    @property
    def summary(self) -> str:
        """One line: the result and its evidence."""
        if self.exact:
            return "exactly scale-invariant (loss equal, gradient half at 2w, bitwise)"
        errors = f"loss changes by {self.loss_error:.1e}, gradient by {self.gradient_error:.1e} at 2w"
        if self.invariant:
            return f"scale-invariant to rounding ({errors})"
        cause = f"broken by {first_three(self.breaking)}" if self.breaking else "no single tensor breaks it"
        return f"not scale-invariant: {errors}; {cause}"


def check(loss: Callable[[], Tensor], parameters: Mapping[str, Tensor]) -> ScaleInvariance:
    """Test whether the loss is scale-invariant in the given tensors, all scaled together.

    Args:
        loss: the loss as a scalar, at the current value of the tensors; it must be deterministic.
        parameters: the trained tensors; doubled in place, and always restored bitwise.

    Returns:
        The result. If the loss is not invariant, two more losses for each tensor find those that break it.

    Raises:
        UsageError: there is no tensor.
    """
    if not parameters:
        raise UsageError("scale invariance is a property of trained tensors, and no tensor is trained")
    tensors = list(parameters.values())
    before, gradient = _evaluate(loss, tensors)
    with _restored(tensors), torch.no_grad():
        for tensor in tensors:
            tensor.mul_(2.0)
        after, halved = _evaluate(loss, tensors)
    doubled = [2 * g for g in halved]
    exact = torch.equal(before, after) and all(map(torch.equal, doubled, gradient))
    errors = _relative([after], [before]), _relative(doubled, gradient)
    invariant = exact or (before.device.type != "cpu" and max(errors) <= _rounding(before))
    return ScaleInvariance(invariant, exact, *errors, () if invariant else _breaking(loss, parameters))


def _breaking(loss: Callable[[], Tensor], parameters: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Names of tensors whose doubling alone changes the loss beyond rounding, the largest change first."""
    with torch.no_grad():
        changes = {name: _change(loss, tensor) for name, tensor in parameters.items()}
        rounding = _rounding(loss())
    return tuple(name for name in sorted(changes, key=lambda n: -changes[n]) if changes[name] > rounding)


def _rounding(loss: Tensor) -> float:
    """Relative error that reordered sums may cause, with a margin."""
    return (16 if loss.device.type == "cpu" else 100) * torch.finfo(loss.dtype).eps


def _change(loss: Callable[[], Tensor], tensor: Tensor) -> float:
    """|L(2t) − L(t)| / |L(t)| for one tensor t; at t = 1 if t is zero, where doubling has no effect."""
    with _restored([tensor]):
        if not tensor.any():
            tensor.fill_(1.0)
        before = loss()
        tensor.mul_(2.0)
        return _relative([loss()], [before])


def _evaluate(loss: Callable[[], Tensor], tensors: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
    with torch.enable_grad():
        value = loss()
        return value.detach(), torch.autograd.grad(value, tensors, materialize_grads=True)


@contextmanager
def _restored(tensors: Sequence[Tensor]) -> Iterator[None]:
    values = [tensor.detach().clone() for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, values, strict=True):
                tensor.copy_(value)


def _relative(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """‖a − b‖ / ‖b‖ over all tensors together; 0 if a = b, ∞ if it is not a number."""
    difference, size = _norm([x - y for x, y in zip(a, b, strict=True)]), _norm(b)
    if difference == 0:
        return 0.0
    return difference / size if difference < math.inf and size > 0 else math.inf


def _norm(tensors: Sequence[Tensor]) -> float:
    """√Σ‖t‖², in double precision."""
    return math.hypot(*(float(torch.linalg.vector_norm(t, dtype=torch.float64)) for t in tensors))
