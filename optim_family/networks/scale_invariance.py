"""Is a loss exactly scale-invariant in the trained tensors, and which of them is not?

    L(2w) = L(w)   and   g(2w) = g(w) / 2

Doubling changes exponents only, so in floating point both hold to the last bit, or the loss is not invariant.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from optim_family.errors import UsageError


@final
@dataclass(frozen=True)
class Verdict:
    """What doubling all weights did to a loss, and which tensors are to blame."""

    invariant: bool
    exact: bool  # bitwise; on a GPU, where sums change their order, `invariant` allows rounding
    loss_error: float  # |L(2w) − L(w)| / |L(w)|
    gradient_error: float  # ‖2 g(2w) − g(w)‖ / ‖g(w)‖
    breaking: tuple[str, ...] = ()  # tensors whose own doubling moves the loss, the worst first

    @property
    def summary(self) -> str:
        """One line: the verdict and the evidence for it."""
        if self.exact:
            return "exactly scale-invariant (loss equal, gradient half at 2w, bitwise)"
        errors = f"loss moves by {self.loss_error:.1e}, gradient by {self.gradient_error:.1e} at 2w"
        if self.invariant:
            return f"scale-invariant to rounding ({errors})"
        return f"not scale-invariant: {errors}; {self._blame()}"

    def _blame(self) -> str:
        if not self.breaking:
            return "no single tensor breaks it"
        more = len(self.breaking) - 3
        return f"broken by {', '.join(self.breaking[:3])}" + (f", …(+{more})" if more > 0 else "")


def check(loss: Callable[[], Tensor], named: Mapping[str, Tensor]) -> Verdict:
    """Prove or refute that the loss is scale-invariant in the named tensors, all scaled together.

    Args:
        loss: the loss as a scalar, at the present value of the tensors; it must be deterministic.
        named: the trained tensors; they are doubled in place and restored to the last bit, come what may.

    Returns:
        The verdict. A refutation costs two more losses for each tensor, to find those that are to blame.

    Raises:
        UsageError: no tensor is named.
    """
    if not named:
        raise UsageError("scale invariance is a property of trained tensors, and none is trained")
    tensors = list(named.values())
    before, gradient = _evaluate(loss, tensors)
    with _restored(tensors), torch.no_grad():
        for tensor in tensors:
            tensor.mul_(2.0)
        after, halved = _evaluate(loss, tensors)
    doubled = [2 * g for g in halved]
    exact = torch.equal(before, after) and all(map(torch.equal, doubled, gradient))
    errors = _relative([after], [before]), _relative(doubled, gradient)
    invariant = exact or (before.device.type != "cpu" and max(errors) <= _rounding(before))
    return Verdict(invariant, exact, *errors, () if invariant else _breaking(loss, named))


def _breaking(loss: Callable[[], Tensor], named: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Names of the tensors whose own doubling moves the loss by more than rounding, the worst first."""
    with torch.no_grad():
        moves = {name: _moved(loss, tensor) for name, tensor in named.items()}
        rounding = _rounding(loss())
    return tuple(name for name in sorted(moves, key=lambda n: -moves[n]) if moves[name] > rounding)


def _rounding(loss: Tensor) -> float:
    """Relative error that reordered sums may make, with room to spare."""
    return (16 if loss.device.type == "cpu" else 100) * torch.finfo(loss.dtype).eps


def _moved(loss: Callable[[], Tensor], tensor: Tensor) -> float:
    """|L(2t) − L(t)| / |L(t)| for one tensor t; of ones if it is zero, where doubling shows nothing."""
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
    kept = [tensor.detach().clone() for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, kept, strict=True):
                tensor.copy_(value)


def _relative(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """‖a − b‖ / ‖b‖ over all tensors together; 0 if a = b, ∞ if it is not a number."""
    moved, size = _norm([x - y for x, y in zip(a, b, strict=True)]), _norm(b)
    if moved == 0:
        return 0.0
    return moved / size if moved < math.inf and size > 0 else math.inf


def _norm(tensors: Sequence[Tensor]) -> float:
    """√Σ‖t‖², in double precision."""
    return math.hypot(*(float(torch.linalg.vector_norm(t, dtype=torch.float64)) for t in tensors))
