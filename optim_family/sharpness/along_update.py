"""What an update does to the loss, for any optimizer: w⁺ = w − η Δ, weight decay included.

    curvature               κ = ΔᵀHΔ / ‖Δ‖²                                      one product
    directional smoothness  D = 2 (L(w⁺) − L(w) + η ⟨g, Δ⟩) / (η² ‖Δ‖²)          one forward pass
    critical sharpness      λ_c = 2/η_c,  η_c the least η with L(w − η Δ) > L(w)  about eight forward passes
    rotation                the angle between w and w⁺                           free

On a quadratic D = κ and λ_c = ΔᵀHΔ / ⟨g, Δ⟩. The loss falls if and only if η D ‖Δ‖² < 2 ⟨g, Δ⟩: the ratio of
both sides, and the ratio of λ_c to 2/η, is 1 where an update leaves the loss as it is. D and λ_c need no
second derivative.

Source: A. Mishkin et al., "Directional smoothness and gradient methods" (2024); critical sharpness:
arXiv:2601.16979 (2026).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, final

import torch
from torch import Tensor

from optim_family.curvature.chunked_loss import ChunkLoss
from optim_family.curvature.hessian import Hessian, chunk_gradient
from optim_family.sharpness.midpoint import moved_to
from optim_family.space import ParameterSpace, inner, norm

RTOL: Final = 0.01  # relative error of a critical sharpness
MAX_DOUBLINGS: Final = 40  # of η, or halvings, before there is no critical rate
ROUNDINGS: Final = 8  # machine epsilons of the loss below which it does not count as higher


@final
@dataclass(frozen=True)
class AlongUpdate:
    """One update, with the evidence for it; None where a quantity has no value.

    Attributes:
        curvature: κ, in loss / weight²; None if it was not measured.
        smoothness: D, in loss / weight².
        smoothness_ratio: η D ‖Δ‖² / (2 ⟨g, Δ⟩); None if the update does not descend.
        critical: λ_c, in 1 / learning rate; None if the update does not descend, or the loss never rises.
        critical_ratio: λ_c η / 2.
        rotation: the angle between w and w⁺, in radians.
        loss_change: L(w⁺) − L(w).
        forward_passes: over all chunks.
        equilibrium_rotation: the rotation in equilibrium, if the loss is scale-invariant and it is known.
    """

    curvature: float | None
    smoothness: float | None
    smoothness_ratio: float | None
    critical: float | None
    critical_ratio: float | None
    rotation: float
    loss_change: float
    forward_passes: int
    equilibrium_rotation: float | None = None

    def as_record(self) -> dict[str, Any]:
        """As JSON; the rotation in equilibrium only where it is known."""
        record = asdict(self)
        if self.equilibrium_rotation is None:
            del record["equilibrium_rotation"]
        return record


def along_update(
    losses: Sequence[ChunkLoss],
    space: ParameterSpace,
    before: Tensor,
    after: Tensor,
    lr: float,
    *,
    curvature: bool = True,
    all_reduce: Callable[[Tensor], Tensor] | None = None,
) -> AlongUpdate:
    """Measure the update from `before` to `after`, both [d]; weights are restored bitwise.

    Args:
        losses: the closures whose sum is the loss.
        space: the trained tensors.
        before: w.
        after: w⁺.
        lr: η.
        curvature: measure κ, which needs second derivatives.
        all_reduce: sums a vector over the processes that share the closures; None for a single process.

    Raises:
        ValueError: the learning rate is not above zero, or the weights did not move.
        FloatingPointError: the loss or its gradient is not finite.
    """
    delta, length = _direction(before, after, lr)
    total = all_reduce or (lambda vector: vector)

    def loss_at(rate: float) -> float:
        with moved_to(space, before - rate * delta), torch.no_grad():
            return float(total(torch.stack([chunk().detach().double() for chunk in losses]).sum()[None])[0])

    with moved_to(space, before), torch.enable_grad():
        gradient = total(_gradient(losses, space, before))
        descent, bend = float(inner(gradient[None], delta)[0]), None
        if curvature:
            product = Hessian(losses, space.tensors, "rebuilt", all_reduce) @ delta
            bend = float(inner(delta[None], product)[0]) / length**2
    now, then = loss_at(0.0), loss_at(lr)
    if not all(map(math.isfinite, (descent, now, then))):
        raise FloatingPointError("the loss or the gradient along the update is not finite.")
    smoothness = 2 * (then - now + lr * descent) / (lr * length) ** 2
    slack = torch.finfo(before.dtype).eps * ROUNDINGS * abs(now)
    rate, passes = critical_rate(loss_at, lr, now, slack) if descent > 0 else (None, 0)
    resolved = abs(smoothness) * (lr * length) ** 2 / 2 > slack
    return AlongUpdate(
        curvature=bend,
        smoothness=smoothness if resolved else None,
        smoothness_ratio=lr * smoothness * length**2 / (2 * descent) if descent > 0 and resolved else None,
        critical=2 / rate if rate else None,
        critical_ratio=lr / rate if rate else None,
        rotation=_angle(before, after),
        loss_change=then - now,
        forward_passes=passes + 2,
    )


def critical_rate(
    loss_at: Callable[[float], float], lr: float, now: float, slack: float = 0.0
) -> tuple[float | None, int]:
    """The least η at which L(w − ηΔ) > L(w), to 1 %, and how often the loss was evaluated.

    Doubling or halving from the present rate brackets it, bisection of log η refines it. None if the loss
    does not rise within 40 doublings, or rises however small the rate is.

    Args:
        loss_at: L(w − ηΔ) as a function of η.
        lr: the present η, above zero.
        now: L(w).
        slack: rounding error of the loss; a smaller rise is none.
    """
    count = 0

    def rises(rate: float) -> bool:
        nonlocal count
        count += 1
        value = loss_at(rate)
        return not value <= now + slack  # infinite and NaN are higher

    factor = 0.5 if rises(lr) else 2.0
    rate = lr
    for _ in range(MAX_DOUBLINGS):
        rate *= factor
        if rises(rate) == (factor > 1):
            break
    else:
        return None, count
    low, high = sorted((rate, rate / factor))
    while high / low > 1 + RTOL:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if rises(middle) else (middle, high)
    return math.sqrt(low * high), count


def _direction(before: Tensor, after: Tensor, lr: float) -> tuple[Tensor, float]:
    """Δ and its length."""
    if not lr > 0:
        raise ValueError(f"along an update the learning rate must be above 0; got {lr:g}.")
    delta = (before - after) / lr
    if not (length := float(norm(delta))):
        raise ValueError("the last step did not move the weights: there is no update to measure along.")
    return delta, length


def _gradient(losses: Sequence[ChunkLoss], space: ParameterSpace, like: Tensor) -> Tensor:
    gradient = torch.zeros_like(like)
    for chunk in losses:
        gradient += chunk_gradient(chunk, space.tensors)[1]
    return gradient


def _angle(before: Tensor, after: Tensor) -> float:
    """atan2(|w⁺ − (w⁺·θ) θ|, w⁺·θ), which keeps its digits for small angles."""
    unit = before.double() / float(norm(before)) if bool(before.any()) else before.double()
    along = float(after.double() @ unit)
    return math.atan2(float(norm(after.double() - along * unit)), along)


@final
class UpdateObserver:
    """Remembers the weights around the last step of an optimizer, by hooks on its `step`.

    Attributes:
        active: whether the next step is remembered, which costs two copies of the weights.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, space: ParameterSpace) -> None:
        self.space, self.active = space, True
        self._update: tuple[Tensor, Tensor, float] | None = None
        self._before: Tensor | None = None
        self._handles = [
            optimizer.register_step_pre_hook(self._on_begin),
            optimizer.register_step_post_hook(self._on_end),
        ]

    def _on_begin(self, *arguments: Any) -> None:
        self._before = self.space.weights() if self.active else None

    def _on_end(self, optimizer: torch.optim.Optimizer, *arguments: Any) -> None:
        if self._before is not None:
            rate = float(optimizer.param_groups[0]["lr"])
            self._update, self._before = (self._before, self.space.weights(), rate), None

    def expect(self, due: bool) -> None:
        """Remember the next step if a measurement follows it, and forget the last one."""
        self.active = due
        if due:
            self._update = None

    def mistake(self) -> str:
        """What the optimizer does wrong if a step was due, and no update leads to the weights; else empty."""
        if self._update is None:
            return "replaces step() in its objects, where no hook sees it; define step() in the class"
        now = self.space.weights()
        if torch.equal(self._update[1].to(now.device), now):
            return ""
        return "moves the weights outside step(); move them in it"

    def measure(self, losses: Sequence[ChunkLoss], **options: Any) -> AlongUpdate | None:
        """`along_update` of the last step; None before the first, or if it did not move the weights.

        Raises:
            ValueError: the weights have changed since the step.
        """
        if self._update is None:
            return None
        now, lr = self.space.weights(), self._update[2]
        before, after = (point.to(now.device) for point in self._update[:2])
        if not torch.equal(after, now):
            raise ValueError(
                "the weights have changed since optimizer.step(), and are no longer where it left them: "
                "record before you change them, or without `along`."
            )
        if torch.equal(before, after):
            return None
        return along_update(losses, self.space, before, after, lr, **options)

    def state_dict(self) -> dict[str, Any]:
        """The last update."""
        return {"update": self._update}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self._update = state["update"]

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
