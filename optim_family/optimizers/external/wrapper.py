"""Optimizers of torch and of timm as members of the family: `torch:NAME` and `timm:NAME`, whoever wrote them.

The hyper-parameters come from the constructor's signature, the geometry from `adapt`. Where none is known,
the raw and the spherical sharpness are measured without a threshold.
"""

import copy
import functools
import importlib
import types
from abc import ABC
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, final

import torch
from torch import Tensor
from torch.optim import Optimizer

from optim_family.errors import UsageError, one_line, unknown
from optim_family.geometry import Geometry
from optim_family.optimizers.base import HyperParameters, OptimizerBase
from optim_family.optimizers.external import inferred_geometry
from optim_family.optimizers.external.hyperparameters import (
    Argument,
    Constructor,
    arguments,
    hyper_parameters,
)

_MATRICES_ONLY = {"torch:Muon"}
_DATA = (Tensor, bool, int, float, str, tuple, list, types.NoneType)  # and not torch.bfloat16
_REFUSED = {
    "torch:LBFGS": "it evaluates the loss several times a step, and a run does that once",
    "torch:SparseAdam": "it takes sparse gradients only",
}


class ExternalOptimizer(OptimizerBase, ABC):
    """Somebody else's optimizer, which holds the state; here are its hyper-parameters, a field a number.

    Raises:
        pydantic.ValidationError: it refuses a hyper-parameter.
        UsageError: it refuses the tensors.
    """

    make: ClassVar[Constructor]
    arguments: ClassVar[tuple[Argument, ...]]

    def __init__(self, params: Iterable[Any], hyper: HyperParameters | None = None, **values: Any) -> None:
        super().__init__(params, hyper, **values)
        try:
            self.other = self.make(self.param_groups[0]["params"], **self._given())
        except ValueError as error:
            raise UsageError(f"{type(self).__name__} refuses these weights: {one_line(error)}") from error
        self.state = self.other.state

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of the other, with the hyper-parameters in force."""
        self._tell()
        return self.other.step(closure)

    def geometry(self) -> Geometry:
        """That of the other; an `UnknownMetric` where none is known."""
        self._tell()
        return inferred_geometry.geometry(self.other)

    def state_dict(self) -> dict[str, Any]:
        """The values in force and all that the other remembers, but for its settings that are no data."""
        other = self.other.state_dict()
        (group,) = other["param_groups"]
        other["param_groups"] = [{key: value for key, value in group.items() if isinstance(value, _DATA)}]
        held = {key: value for key, value in self.param_groups[0].items() if key != "params"}
        return {"values": held, "other": other}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the one stood that gave this."""
        self.param_groups[0].update(state_dict["values"])
        saved = copy.deepcopy(state_dict["other"])  # or the other would go on with the very tensors
        saved["param_groups"] = [self.other.defaults | group for group in saved["param_groups"]]
        self.other.load_state_dict(saved)
        for index, memory in saved["state"].items():  # torch gives all numbers the precision of the weights
            held = self.other.state[self.param_groups[0]["params"][index]]
            held.update({key: held[key].to(x.dtype) for key, x in memory.items() if isinstance(x, Tensor)})
        self.state = self.other.state

    def _given(self) -> dict[str, Any]:
        return {argument.name: argument.value(self.values) for argument in self.arguments}

    def _tell(self) -> None:
        """A scheduler changes the values here."""
        self.other.param_groups[0].update(self._given())
        if self.values.get("still"):
            inferred_geometry.freeze_metric(self.other)


@functools.cache
def wrap_external(name: str) -> type[OptimizerBase]:
    """The family optimizer behind `torch:NAME` or `timm:NAME`.

    Raises:
        UsageError: there is none of that name, or it cannot be run here.
    """
    package, _, kind = name.partition(":")
    if name in _REFUSED:
        raise UsageError(f"{name} cannot be run: {_REFUSED[name]}")
    constructor, bound = _timm(kind) if package == "timm" else (_torch(kind), {})
    known = arguments(constructor, bound)

    @final
    class Wrapped(ExternalOptimizer):
        make = functools.partial(constructor, **bound)
        arguments = known
        Hyper = hyper_parameters(name, make, known, constructor.__doc__ or "")
        freeze = {"still": 1.0}
        expected_failures = inferred_geometry.expected_failures(constructor)
        test_shapes = ((4, 3), (5, 1)) if name in _MATRICES_ONLY else OptimizerBase.test_shapes

    Wrapped.__name__ = Wrapped.__qualname__ = name
    Wrapped.__doc__ = (
        f"{constructor.__module__}.{constructor.__qualname__} with {dict(bound) or 'its defaults'}."
    )
    return Wrapped


def _torch(kind: str) -> type[Optimizer]:
    found = {name: getattr(torch.optim, name) for name in dir(torch.optim)}
    known = {
        name: value
        for name, value in found.items()
        if isinstance(value, type) and issubclass(value, Optimizer) and value is not Optimizer
    }
    if kind not in known:
        raise UsageError(unknown("optimizer", f"torch:{kind}", [f"torch:{name}" for name in known]))
    return known[kind]


def _timm(kind: str) -> tuple[type[Optimizer], dict[str, Any]]:
    """The class, and what timm's factory gives it: the registry's values, momentum 0.9 where it has one."""
    registry = importlib.import_module("timm.optim")
    if kind not in registry.list_optimizers():
        names = [f"timm:{name}" for name in registry.list_optimizers()]
        raise UsageError(unknown("optimizer", f"timm:{kind}", names))
    info = registry.get_optimizer_info(kind)
    if info.second_order:
        raise UsageError(f"timm:{kind} cannot be run: it needs the graph of the gradient at every step")
    try:
        found = registry.get_optimizer_class(kind, bind_defaults=False)
    except (ImportError, AssertionError) as error:
        raise UsageError(f"timm:{kind} cannot be run here: {one_line(error)}") from error
    momentum = {"momentum": 0.9} if info.has_momentum else {}
    return found, momentum | (info.defaults or {})
