"""The schedule of a run: parses the text of `--schedule`, and sets the learning rate before each step.

The text names factors of `lr_schedules`, and + multiplies them: `warmup:steps=100+cosine:to=0.1`. Any
scheduler of torch that depends on the step alone is a factor too: `torch:ExponentialLR:gamma=0.999`.
"""

import math
from collections.abc import Callable
from typing import Any, Final, final

import torch
from pydantic import PrivateAttr, ValidationError
from torch.nn.utils import get_total_norm
from torch.optim import SGD, Optimizer, lr_scheduler

from optim_family.errors import UsageError, invalid_field, json_or_text, key_value, one_line, unknown
from optim_family.space import trained_parameters
from optim_family.training.lr_schedules import BUILT_IN, Schedule, ScheduleContext

TORCH: Final = (
    *("ConstantLR", "CosineAnnealingLR", "CosineAnnealingWarmRestarts", "CyclicLR", "ExponentialLR"),
    *("LinearLR", "MultiStepLR", "OneCycleLR", "PolynomialLR", "StepLR"),
)


@final
class Torch(Schedule):
    """The learning rate of a torch scheduler over η, from a dummy optimizer; remembers its step."""

    name: str
    options: dict[str, Any]
    _optimizer: Any = PrivateAttr(None)
    _scheduler: Any = PrivateAttr(None)
    _step: int = PrivateAttr(0)

    def factor(self, context: ScheduleContext) -> float:
        """Its factor; a UsageError if it needs more than the step, or a parameter is invalid."""
        try:
            if self._scheduler is None or context.step < self._step:
                self._begin(context.lr)
            while self._step < context.step:
                self._optimizer.step()
                self._scheduler.step()
                self._step += 1
            return float(self._optimizer.param_groups[0]["lr"]) / context.lr
        except (TypeError, ValueError, KeyError, ZeroDivisionError) as error:
            raise UsageError(f"torch:{self.name}: {one_line(error)}") from error

    def _begin(self, lr: float) -> None:
        self._optimizer, self._step = SGD([torch.zeros(1, requires_grad=True)], lr=lr, momentum=0.5), 0
        self._scheduler = getattr(lr_scheduler, self.name)(self._optimizer, **self.options)
        if self._optimizer.param_groups[0]["momentum"] != 0.5:
            raise UsageError(f"torch:{self.name} changes the momentum too; add :cycle_momentum=false")


def parse(text: str) -> tuple[Schedule, ...]:
    """The factors in a text such as `warmup:steps=100+cosine`.

    Raises:
        UsageError: a name or a parameter is unknown, missing or out of range.
    """
    return tuple(_parse(term.strip()) for term in text.split("+"))


def _parse(term: str) -> Schedule:
    name, *words = term.split(":")
    torch_name = words.pop(0) if name == "torch" and words else None
    options = dict(key_value(word, f"schedule {term!r}:") for word in words)
    if len(options) < len(words):
        raise UsageError(f"schedule {term!r} gives a parameter twice")
    if torch_name is not None:
        if torch_name not in TORCH:
            raise UsageError(unknown("schedule", f"torch:{torch_name}", [f"torch:{each}" for each in TORCH]))
        return Torch(name=torch_name, options={key: json_or_text(value) for key, value in options.items()})
    if name not in BUILT_IN:
        raise UsageError(unknown("schedule", name, [*BUILT_IN, "torch:NAME"]))
    known = BUILT_IN[name].model_fields
    for key in options.keys() - known.keys():
        raise UsageError(f"schedule {term!r}: {unknown('parameter', key, known)}")
    try:
        return BUILT_IN[name].model_validate(options)
    except ValidationError as error:
        mistakes = (invalid_field(each, ".".join(map(str, each["loc"]))) for each in error.errors())
        raise UsageError(f"schedule {term!r}: {'; '.join(mistakes)}") from error


@final
class Scheduler:
    """Sets the learning rate of an optimizer before each step; remembers where it started.

    Args:
        text: the factors, as for `parse`.
        optimizer: any; the learning rates of its groups keep their ratios.
        steps: T, of the whole run.

    Raises:
        UsageError: the text is invalid, does not suit the optimizer, or gives a rate that is not positive.
    """

    def __init__(self, text: str, optimizer: Optimizer, steps: int) -> None:
        self.schedules, self.optimizer, self.steps = parse(text), optimizer, steps
        self.rates = [float(group["lr"]) for group in optimizer.param_groups]
        self.start = self._norm()
        self._validate_all_steps(text)
        self(0)

    def __call__(self, step: int) -> float:
        """Set the rates of step t; returns that of the first group."""
        factor = self._factor(step, self._norm)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        return float(self.optimizer.param_groups[0]["lr"])

    def _factor(self, step: int, norm: Callable[[], float]) -> float:
        decay = self.optimizer.param_groups[0].get("weight_decay", 0.0)
        context = ScheduleContext(step, self.steps, self.rates[0], decay, self.start, norm)
        return math.prod(schedule.factor(context) for schedule in self.schedules)

    def _validate_all_steps(self, text: str) -> None:
        """Evaluate every step once, at the present weights, so that no run fails late."""
        for step in range(self.steps):
            try:
                factor = self._factor(step, lambda: self.start)
            except OverflowError:
                factor = math.inf
            if not 0 < factor < math.inf:
                raise UsageError(
                    f"schedule {text!r} multiplies the learning rate by {factor:g} at step {step}; it must "
                    "stay above 0 and finite: let it end above 0 (to, eta_min), or take fewer steps"
                )

    def _norm(self) -> float:
        return float(get_total_norm([w.detach() for w in trained_parameters(self.optimizer)]))
