"""The factors of a learning-rate schedule: η at step t is the η of the run times a factor.

    warmup:steps=N          min(1, (t + 1) / N)
    cosine:to=F             F + (1 − F)(1 + cos πt/T) / 2 over the T steps of the run
    step:every=N:by=G       G^⌊t/N⌋
        effective               ∝ ρ² / (1 + λ ℓ₀ ρ²), which keeps ℓ = η / ((1 − ηλ) ρ²) at its first value ℓ₀
    growth:decay=L          (1 − ηL)^(−2t − 1), instead of weight decay L

Every factor depends only on the step and on the present and initial weights, so that a resumed run gets the
same factors.

Source: growth: Z. Li, S. Arora, "An exponential learning rate schedule for deep learning" (2020). On a scale-
invariant loss it moves the direction of the weights as weight decay does; without momentum this is exact. The
weights grow as (1 − ηL)^(−t), until they overflow.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Final, final

from pydantic import BaseModel, ConfigDict, Field

from optim_family.errors import UsageError


@final
@dataclass(frozen=True)
class ScheduleContext:
    """The inputs of a factor.

    Attributes:
        step: t, 0 for the first.
        steps: T, of the whole run.
        lr: η of the run, without any factor.
        weight_decay: λ.
        start: ρ₀, the norm of the weights at the start.
        norm: returns ρ, their present norm.
    """

    step: int
    steps: int
    lr: float
    weight_decay: float
    start: float
    norm: Callable[[], float]


class Schedule(BaseModel, ABC):
    """One factor, with its parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @abstractmethod
    def factor(self, context: ScheduleContext) -> float:
        """The factor of η at this step."""


@final
class Warmup(Schedule):
    """A linear warm-up over N steps."""

    steps: Annotated[int, Field(ge=1, description="steps N until the full rate")]

    def factor(self, context: ScheduleContext) -> float:
        """min(1, (t + 1) / N)."""
        return min(1.0, (context.step + 1) / self.steps)


@final
class Cosine(Schedule):
    """Half a cosine over the run."""

    to: Annotated[float, Field(ge=0, le=1, description="factor F at the end")] = 0.0

    def factor(self, context: ScheduleContext) -> float:
        """F + (1 − F)(1 + cos πt/T) / 2."""
        return self.to + (1 - self.to) * (1 + math.cos(math.pi * context.step / context.steps)) / 2


@final
class Steps(Schedule):
    """A drop every N steps."""

    every: Annotated[int, Field(ge=1, description="steps N between two drops")]
    by: Annotated[float, Field(gt=0, description="factor G of a drop")] = 0.1

    def factor(self, context: ScheduleContext) -> float:
        """G^⌊t/N⌋."""
        return self.by ** (context.step // self.every)


@final
class Effective(Schedule):
    """A constant effective learning rate ℓ = η / ((1 − ηλ) ρ²)."""

    def factor(self, context: ScheduleContext) -> float:
        """ℓ₀ ρ² / (η₀ (1 + λ ℓ₀ ρ²))."""
        first = context.lr / ((1 - context.lr * context.weight_decay) * context.start**2)
        now = first * context.norm() ** 2
        return now / (context.lr * (1 + context.weight_decay * now))


@final
class Growth(Schedule):
    """Exponential growth instead of weight decay."""

    decay: Annotated[float, Field(gt=0, description="the weight decay L that it replaces")]

    def factor(self, context: ScheduleContext) -> float:
        """(1 − ηL)^(−2t − 1).

        Raises:
            UsageError: the optimizer has weight decay too.
        """
        if context.weight_decay:
            raise UsageError("growth replaces weight decay; set --weight-decay 0 with it")
        return (1 - context.lr * self.decay) ** (-2 * context.step - 1)


BUILT_IN: Final[Mapping[str, type[Schedule]]] = {
    "warmup": Warmup,
    "cosine": Cosine,
    "step": Steps,
    "effective": Effective,
    "growth": Growth,
}
