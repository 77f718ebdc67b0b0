"""What the conformance suite works with: an optimizer on two tensors whose gradients a check chooses."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, final, get_args, get_origin

import torch
from pydantic import ValidationError
from torch import Tensor

from optim_family.geometry import Geometry, UnknownMetric
from optim_family.optimizers.base import OptimizerBase
from optim_family.space import ParameterSpace, unflatten

LR = 0.1
# Share s removed in a step. A momentum β > 1 − s outlasts the weights; coupled decay itself oscillates in it
# where s > (1 − √β)².
DECOUPLED_SHRINK, COUPLED_SHRINK = 0.02, 1e-5
WARM_UP = 200  # steps after which bias corrections have died out


@final
@dataclass(frozen=True)
class OptimizerHarness:
    """An optimizer on two tensors whose gradients the check chooses."""

    optimizer: OptimizerBase
    space: ParameterSpace

    @classmethod
    def build(
        cls, optimizer: type[OptimizerBase], values: dict[str, Any], seed: int = 0
    ) -> "OptimizerHarness":
        """Fresh tensors of a seeded start, and the optimizer on them."""
        generator = torch.Generator().manual_seed(seed)
        tensors = {
            f"w{i}": torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
            for i, shape in enumerate(optimizer.test_shapes)
        }
        space = ParameterSpace(tensors)
        return cls(optimizer(space.tensors, **values), space)

    def step(self, gradient: Tensor) -> Tensor:
        """One real step with this gradient [d]; returns the weights after it [d]."""
        self.lend(gradient)
        self.optimizer.step()
        return self.space.weights()

    def lend(self, gradient: Tensor) -> None:
        """Put a gradient [d] where `backward` would."""
        for tensor, part in zip(self.space.tensors, unflatten(gradient, self.space.tensors), strict=True):
            tensor.grad = part.clone()

    def geometry(self, gradient: Tensor | None = None) -> Geometry:
        """The geometry of the next step with this gradient [d], by default of ones."""
        self.lend(torch.ones(self.space.dim, dtype=torch.float64) if gradient is None else gradient)
        return self.optimizer.geometry()

    def warm_up(self, steps: int = WARM_UP, seed: int = 1) -> "OptimizerHarness":
        """Random gradients, as a training would have left behind."""
        for gradient in gradients(self.space.dim, steps, seed):
            self.step(gradient)
        return self

    def set(self, **values: float) -> None:
        """Change hyper-parameters as a scheduler does."""
        self.optimizer.param_groups[0].update(values)

    def copy(self, **values: float) -> "OptimizerHarness":
        """The same optimizer in the same state, with other hyper-parameters."""
        group = self.optimizer.param_groups[0]
        held = {key: group[key] for key in type(self.optimizer).Hyper.model_fields}
        twin = OptimizerHarness.build(type(self.optimizer), held | values)
        twin.space.assign(self.space.weights())
        twin.optimizer.load_state_dict(self.optimizer.state_dict())
        twin.set(**(held | values))
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
    combinations = (
        dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())
    )
    return [values for values in combinations if _allowed(optimizer, values)]


def with_decay(optimizer: type[OptimizerBase]) -> list[dict[str, Any]]:
    """All variants, each without decay and with as much as its kind can bear, or any kind."""
    plain = variants(optimizer, lr=LR, weight_decay=0.0)
    declared = OptimizerHarness.build(optimizer, plain[0]).geometry().decay
    decay = (DECOUPLED_SHRINK if declared and not declared.coupled else COUPLED_SHRINK) / LR
    return plain + variants(optimizer, lr=LR, weight_decay=decay)


def with_metric(optimizer: type[OptimizerBase], tried: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that declare a metric; the others promise nothing about it."""
    metrics = [OptimizerHarness.build(optimizer, values).geometry().metric for values in tried]
    return [v for v, metric in zip(tried, metrics, strict=True) if not isinstance(metric, UnknownMetric)]


def _allowed(optimizer: type[OptimizerBase], values: dict[str, Any]) -> bool:
    try:
        optimizer.Hyper(**values)
    except ValidationError:
        return False
    return True
