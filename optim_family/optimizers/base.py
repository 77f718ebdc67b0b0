"""Base classes of optimizers that can describe their own geometry."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor

from optim_family.errors import invalid_fields
from optim_family.geometry import Geometry
from optim_family.space import flatten

State = MutableMapping[str, Any]
Values = Mapping[str, Any]


class HyperParameters(BaseModel):
    """The hyper-parameters of one optimizer; options, checks and tables are generated from the fields.

    A subclass adds fields with a default, a range and a meaning. `examples` of a field are values that the
    conformance suite uses in addition to the default.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    lr: Annotated[float, Field(gt=0, description="learning rate η")]
    weight_decay: Annotated[float, Field(ge=0, description="weight decay λ")] = 0.0

    @model_validator(mode="after")
    def _leaves_some_weight(self) -> Self:
        eta_lambda = self.lr * self.weight_decay
        if eta_lambda >= 1:
            raise ValueError(
                f"lr · weight_decay is the fraction of the weights removed in a step, {eta_lambda:g} ≥ 1; "
                "choose a smaller lr or weight_decay"
            )
        return self


class OptimizerBase(torch.optim.Optimizer, ABC):
    """A torch optimizer with one parameter group that can describe its own geometry.

    Args:
        params: the trained tensors, or pairs of name and tensor.
        hyper: the hyper-parameters as one object; None to give them as keywords.
        **values: the hyper-parameters as keywords: `GD(model.parameters(), lr=0.1, weight_decay=5e-4)`.

    Raises:
        ValueError: a hyper-parameter is unknown or out of range; more than one parameter group; or
            hyper-parameters both as an object and as keywords.
    """

    Hyper: ClassVar[type[HyperParameters]]
    # Hyper-parameter values that freeze the metric, for the conformance suite.
    freeze: ClassVar[Mapping[str, float]] = {}
    # Checks of the conformance suite that the optimizer fails, each with the reason.
    expected_failures: ClassVar[Mapping[str, str]] = {}
    # Shapes of the tensors that the conformance suite trains.
    test_shapes: ClassVar[Sequence[tuple[int, ...]]] = ((4, 3), (5,))
    tried_on: ClassVar[Sequence[tuple[int, ...]]] = test_shapes  # former name
    # Whether `step` evaluates the loss again, so that it needs a closure.
    needs_closure: ClassVar[bool] = False
    # The usual mini-batch size; None for the full batch.
    batch_size: ClassVar[int | None] = None

    def __init_subclass__(cls, **options: Any) -> None:
        """Allow a subclass to define `test_shapes` under its former name."""
        super().__init_subclass__(**options)
        shapes = vars(cls).get("test_shapes", vars(cls).get("tried_on"))
        if shapes is not None:
            cls.test_shapes = cls.tried_on = shapes

    def __init__(self, params: Iterable[Any], hyper: HyperParameters | None = None, **values: Any) -> None:
        if hyper is not None and values:
            raise ValueError(f"give {type(self).__name__} a Hyper object or keywords, not both.")
        try:
            super().__init__(params, (hyper or self.Hyper(**values)).model_dump())
        except ValidationError as error:  # of several lines
            raise ValueError(invalid_fields(error.errors(), self.Hyper.model_fields)) from None

    @abstractmethod
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step on all tensors that have a gradient; return the value of the closure, if any."""

    @abstractmethod
    def geometry(self) -> Geometry:
        """The geometry of the next step, which uses the gradients in `.grad`.

        Raises:
            ValueError: the metric depends on the gradient, and no tensor has one.
        """

    def rescaling(self) -> tuple[float, float] | None:
        """Exponents (a, b) such that (w, η, λ) → (cw, cᵃη, cᵇλ) leaves the path of w/‖w‖ unchanged.

        This holds for every scale-invariant loss and every c > 0; None if there are no such exponents.
        """
        return None

    @property
    def values(self) -> Values:
        """The present hyper-parameters; a scheduler changes these, not `defaults`."""
        return self.param_groups[0]

    @property
    def weights(self) -> list[Tensor]:
        """The tensors that require a gradient, in order."""
        return [w for w in self.param_groups[0]["params"] if w.requires_grad]

    @property
    def dim(self) -> int:
        """Number of trained weights d."""
        return sum(w.numel() for w in self.weights)

    def flat(self, key: str) -> Tensor:
        """One state entry of all tensors, concatenated to [d]; a scalar entry is repeated.

        Raises:
            ValueError: the entry does not exist, for example before the first step.
        """
        missing = [w for w in self.weights if key not in self.state[w]]
        if missing:
            raise ValueError(
                f"{type(self).__name__} has no state {key!r} for {len(missing)} of {len(self.weights)} "
                "tensors; take a step or load a checkpoint first."
            )
        return flatten(torch.as_tensor(self.state[w][key]).expand_as(w) for w in self.weights)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Raise ValueError for a second group: rates that differ between weights belong in the metric P."""
        if self.param_groups:
            raise ValueError(
                f"{type(self).__name__} has one learning rate and one decay for all weights, so that its "
                "threshold is one number; give it one parameter group, and freeze what is not trained."
            )
        super().add_param_group(param_group)


Member = OptimizerBase  # former name


class FamilyOptimizer(OptimizerBase, ABC):
    """An optimizer that moves one tensor at a time, by `update`."""

    # Whether `update` reads self.rho and self.gradient_norm, which cost two passes over the weights per step.
    needs_norms: ClassVar[bool] = True

    rho: Tensor
    gradient_norm: Tensor

    def __init_subclass__(cls, **options: Any) -> None:
        """Keep the inherited `update_all` only together with the inherited `update`."""
        super().__init_subclass__(**options)
        if "update" in vars(cls) and "update_all" not in vars(cls):
            cls.update_all = FamilyOptimizer.update_all  # type: ignore[method-assign]

    @abstractmethod
    def update(self, w: Tensor, grad: Tensor, state: State, h: Values) -> None:
        """Move one tensor in place: the algorithm, one line of code per line of mathematics.

        Unless `needs_norms` is False, self.rho is the norm of all trained weights before the step, and
        self.gradient_norm that of all gradients.

        Args:
            w: the tensor, any shape.
            grad: its gradient, the same shape; must not be changed.
            state: the state of this tensor; empty before the first step.
            h: the present hyper-parameters.
        """

    def update_all(self, weights: list[Tensor], gradients: list[Any], states: list[State], h: Values) -> None:
        """`update` of every tensor; an optimizer may do this with few kernels on a GPU, and bitwise the same.

        Args:
            weights: the tensors that have a gradient.
            gradients: of each; must not be changed.
            states: of each.
            h: the present hyper-parameters.
        """
        for w, gradient, state in zip(weights, gradients, states, strict=True):
            self.update(w, gradient, state, h)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step on all tensors that have a gradient; return the value of the closure, if any."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.move(at_once=_shares_kernels([w for w in self.weights if w.grad is not None]))
        return loss

    @torch.no_grad()
    def move(self, *, at_once: bool) -> None:
        """One step with `update_all`, as on a GPU, or with the loop over `update`."""
        self._compute_norms()
        trained = [w for w in self.weights if w.grad is not None]
        update = self.update_all if at_once else partial(FamilyOptimizer.update_all, self)
        update(trained, [w.grad for w in trained], [self.state[w] for w in trained], self.values)

    @torch.no_grad()
    def next_step_entry(self, entry: Callable[[Tensor, Tensor, State, Values], Tensor]) -> Tensor:
        """A state entry of all tensors as the next step will use it, [d]; a scalar is repeated.

        Args:
            entry: function of (w, grad, state, h), as in `update`. It returns a tensor that expands to w's
                shape, and must not change the state.

        Raises:
            ValueError: no tensor has a gradient. If only some have none, their gradient counts as zero.
        """
        if all(w.grad is None for w in self.weights):
            raise ValueError(
                f"{type(self).__name__} describes its next step, which depends on the gradient; "
                "call loss.backward() before geometry()."
            )
        self._compute_norms()
        gradients = [torch.zeros_like(w) if w.grad is None else w.grad for w in self.weights]
        return flatten(
            entry(w, g, self.state.get(w, {}), self.values).expand_as(w)
            for w, g in zip(self.weights, gradients, strict=True)
        )

    foresee = next_step_entry  # former name

    def _compute_norms(self) -> None:
        """Compute the norms before any tensor moves."""
        if self.needs_norms:
            gradients = [w.grad for w in self.weights if w.grad is not None]
            self.rho = torch.nn.utils.get_total_norm([w.detach() for w in self.weights])
            self.gradient_norm = torch.nn.utils.get_total_norm(gradients)


def _shares_kernels(tensors: Sequence[Tensor]) -> bool:
    """Whether torch's foreach kernels update all these tensors at once: on a GPU, in one format."""
    return len({(t.dtype, t.device) for t in tensors}) == 1 and tensors[0].is_cuda


def heavy_ball(gradients: Sequence[Any], states: list[State], beta: float) -> list[Any]:
    """m ← β m + g of all tensors, in `m` of their states; the gradients if β is 0."""
    if not beta:
        return [*gradients]
    zeros = [state.get("m", torch.zeros_like(g)) for state, g in zip(states, gradients, strict=True)]
    m = torch._foreach_add(torch._foreach_mul(zeros, beta), gradients)
    for state, entry in zip(states, m, strict=True):
        state["m"] = entry
    return [*m]


def averages(old: list[Any], new: Sequence[Any], beta: float, first: float) -> list[Any]:
    """β old + (1 − β) new of all tensors; where there is no old one, `first` · new."""
    if any(entry is None for entry in old):  # in the first step, and for a tensor that joins later
        pairs = zip(old, new, strict=True)
        return [first * y if x is None else beta * x + (1 - beta) * y for x, y in pairs]
    return weighted_sums(old, new, beta)


def weighted_sums(old: Sequence[Any], new: Sequence[Any], beta: float) -> list[Any]:
    """β old + (1 − β) new of all tensors."""
    return [*torch._foreach_add(torch._foreach_mul([*old], beta), torch._foreach_mul([*new], 1 - beta))]
