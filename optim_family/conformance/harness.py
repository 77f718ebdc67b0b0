"""The test bed of the conformance suite: an optimizer on two tensors whose gradients a check sets."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, Self, final, get_args, get_origin

import torch
from pydantic import ValidationError
from torch import Tensor

from optim_family.geometry import Geometry, UnknownMetric
from optim_family.optimizers.base import OptimizerBase
from optim_family.space import ParameterSpace, unflatten

LR = 0.1
# ηλ. Momentum with β > 1 − ηλ decays more slowly than the weights; coupled decay oscillates by itself
# where ηλ > (1 − √β)².
DECOUPLED_ETA_LAMBDA, COUPLED_ETA_LAMBDA = 0.02, 1e-5
WARM_UP = 200  # steps after which bias corrections are negligible


@final
class Undeclared(str):
    """What a check returns where the optimizer does not make the declaration: its verdict is n/a."""


@final
@dataclass(frozen=True)
class OptimizerHarness:
    """An optimizer on two tensors whose gradients the check sets."""

    optimizer: OptimizerBase
    space: ParameterSpace

    @classmethod
    def build(cls, optimizer: type[OptimizerBase], values: dict[str, Any], seed: int = 0) -> Self:
        """New seeded tensors in float64, and the optimizer on them."""
        generator = torch.Generator().manual_seed(seed)
        tensors = {
            f"w{i}": torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
            for i, shape in enumerate(optimizer.test_shapes)
        }
        space = ParameterSpace(tensors)
        return cls(optimizer(space.tensors, **values), space)

    def step(self, gradient: Tensor | Callable[[Tensor], Tensor]) -> Tensor:
        """One real step with this gradient [d], or function of w; returns the weights after it [d]."""

        def closure() -> float:
            self.set_gradient(gradient(self.space.weights()) if callable(gradient) else gradient)
            return 0.0

        if self.optimizer.needs_closure:
            self.optimizer.step(closure)
        else:
            closure()
            self.optimizer.step()
        return self.space.weights()

    def set_gradient(self, gradient: Tensor) -> None:
        """Write a gradient [d] to `.grad`, as `backward` would."""
        for tensor, part in zip(self.space.tensors, unflatten(gradient, self.space.tensors), strict=True):
            tensor.grad = part.clone()

    def geometry(self, gradient: Tensor | None = None) -> Geometry:
        """The geometry of the next step with this gradient [d], by default of ones."""
        self.set_gradient(torch.ones(self.space.dim, dtype=torch.float64) if gradient is None else gradient)
        return self.optimizer.geometry()

    def warm_up(self, steps: int = WARM_UP) -> Self:
        """Take steps with random gradients, so that the state is one of training."""
        for gradient in gradients(self.space.dim, steps, seed=1):
            self.step(gradient)
        return self

    def set(self, **values: float) -> None:
        """Change hyper-parameters as a scheduler does."""
        self.optimizer.param_groups[0].update(values)

    def copy(self, **values: float) -> "OptimizerHarness":
        """A new optimizer with the same weights and state, and with other hyper-parameters."""
        group = self.optimizer.param_groups[0]
        current = {key: group[key] for key in type(self.optimizer).Hyper.model_fields}
        twin = OptimizerHarness.build(type(self.optimizer), current | values)
        twin.space.assign(self.space.weights())
        twin.optimizer.load_state_dict(self.optimizer.state_dict())
        twin.set(**(current | values))
        return twin


def gradients(dim: int, count: int, seed: int) -> Iterator[Tensor]:
    """Random gradients [d] of different sizes along the axes."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.linspace(0.5, 2, dim, dtype=torch.float64)
    for _ in range(count):
        yield sizes * torch.randn(dim, generator=generator, dtype=torch.float64)


def variants(optimizer: type[OptimizerBase], **fixed: float) -> list[dict[str, Any]]:
    """Every allowed combination of the optimizer's choices, with the given values fixed."""
    choices = {}
    for name, field in optimizer.Hyper.model_fields.items():
        if name in fixed:
            choices[name] = [fixed[name]]
        elif get_origin(field.annotation) is Literal:
            choices[name] = list(get_args(field.annotation))
        elif field.annotation is bool:
            choices[name] = [False, True]
        else:
            choices[name] = [field.default, *(field.examples or [])]
    allowed = []
    for combination in itertools.product(*choices.values()):
        values = dict(zip(choices, combination, strict=True))
        with suppress(ValidationError):
            optimizer.Hyper(**values)
            allowed.append(values)
    return allowed


def with_decay(optimizer: type[OptimizerBase]) -> list[dict[str, Any]]:
    """All variants, each without decay and with the largest decay at which the checks are valid."""
    plain = variants(optimizer, lr=LR, weight_decay=0.0)
    declared = OptimizerHarness.build(optimizer, plain[0]).geometry().decay
    decay = (DECOUPLED_ETA_LAMBDA if declared and not declared.coupled else COUPLED_ETA_LAMBDA) / LR
    return plain + variants(optimizer, lr=LR, weight_decay=decay)


def with_metric(optimizer: type[OptimizerBase], candidates: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The variants that declare a metric."""
    metrics = ((v, OptimizerHarness.build(optimizer, v).geometry().metric) for v in candidates)
    return [values for values, metric in metrics if not isinstance(metric, UnknownMetric)]
