"""Optimizers of torch and timm with the interface of the family: `torch:NAME` and `timm:NAME`.

Hyper-parameters come from the constructor's signature, the geometry from `inferred_geometry`. Without a known
geometry, raw and spherical sharpness are measured without a threshold.
"""

import copy
import functools
import importlib
import inspect
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
from optim_family.optimizers.external import hyperparameters, inferred_geometry
from optim_family.optimizers.external.hyperparameters import Argument, Constructor

_MATRICES_ONLY = {"torch:Muon"}
_NEEDS_CLOSURE = {"torch:LBFGS"}
_DATA = (Tensor, bool, int, float, str, tuple, list, types.NoneType)  # types that a checkpoint can hold
_UNSUPPORTED = {
    "torch:SparseAdam": "it takes sparse gradients only",
}


class ExternalOptimizer(OptimizerBase, ABC):
    """A wrapper of an external optimizer, which holds the state; every hyper-parameter is one number.

    Raises:
        pydantic.ValidationError: its constructor rejects a hyper-parameter.
        UsageError: its constructor rejects the tensors.
    """

    make: ClassVar[Constructor]
    arguments: ClassVar[tuple[Argument, ...]]

    def __init__(self, params: Iterable[Any], hyper: HyperParameters | None = None, **values: Any) -> None:
        super().__init__(params, hyper, **values)
        try:
            self.wrapped = self.make(self.param_groups[0]["params"], **self._arguments())
        except ValueError as error:
            raise UsageError(f"{type(self).__name__} refuses these weights: {one_line(error)}") from error
        self.state = self.wrapped.state

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of the wrapped optimizer, with the hyper-parameters in force."""
        self._set_hyper()
        return self.wrapped.step(closure)

    def geometry(self) -> Geometry:
        """The inferred geometry; an `UnknownMetric` if there is none."""
        self._set_hyper()
        return inferred_geometry.geometry(self.wrapped)

    def state_dict(self) -> dict[str, Any]:
        """The hyper-parameters and the wrapped optimizer's state, without what a checkpoint cannot hold."""
        other = self.wrapped.state_dict()
        (group,) = other["param_groups"]
        other["param_groups"] = [{key: value for key, value in group.items() if isinstance(value, _DATA)}]
        values = {key: value for key, value in self.param_groups[0].items() if key != "params"}
        return {"values": values, "other": other}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state of `state_dict`."""
        self.param_groups[0].update(state_dict["values"])
        other = copy.deepcopy(state_dict["other"])  # the wrapped optimizer must not share these tensors
        other["param_groups"] = [self.wrapped.defaults | group for group in other["param_groups"]]
        self.wrapped.load_state_dict(other)
        for index, memory in other["state"].items():  # torch casts all state to the dtype of the weights
            state = self.wrapped.state[self.param_groups[0]["params"][index]]
            state.update({key: state[key].to(x.dtype) for key, x in memory.items() if isinstance(x, Tensor)})
        self.state = self.wrapped.state

    def _arguments(self) -> dict[str, Any]:
        return {argument.name: argument.value(self.values) for argument in self.arguments}

    def _set_hyper(self) -> None:
        """Copy the hyper-parameters, which a scheduler may have changed, to the wrapped optimizer."""
        # A constructor may have replaced None by a number.
        known = {name: value for name, value in self._arguments().items() if value is not None}
        self.wrapped.param_groups[0].update(known)
        if self.values.get("freeze_metric"):
            inferred_geometry.freeze_metric(self.wrapped)


@functools.cache
def wrap_external(name: str) -> type[OptimizerBase]:
    """The optimizer class for `torch:NAME` or `timm:NAME`.

    Raises:
        UsageError: no optimizer has this name, or it cannot be run here.
    """
    package, _, kind = name.partition(":")
    if name in _UNSUPPORTED:
        raise UsageError(f"{name} cannot be run: {_UNSUPPORTED[name]}")
    constructor, bound = _timm(kind) if package == "timm" else (_torch(kind), {})
    known = hyperparameters.arguments(constructor, bound)

    @final
    class Wrapped(ExternalOptimizer):
        make = functools.partial(constructor, **bound)
        arguments = known
        Hyper = hyperparameters.hyper_parameters(name, make, known, constructor.__doc__ or "")
        freeze = {"freeze_metric": 1.0}
        needs_closure = name in _NEEDS_CLOSURE
        expected_failures = inferred_geometry.expected_failures(constructor)
        test_shapes = ((4, 3), (5, 1)) if name in _MATRICES_ONLY else OptimizerBase.test_shapes

    Wrapped.__name__ = Wrapped.__qualname__ = name
    Wrapped.__doc__ = (
        f"{constructor.__module__}.{constructor.__qualname__} with {dict(bound) or 'its defaults'}."
    )
    return Wrapped


def _torch(kind: str) -> type[Optimizer]:
    known = {
        name: value
        for name, value in inspect.getmembers(torch.optim, inspect.isclass)
        if issubclass(value, Optimizer) and value is not Optimizer
    }
    if kind not in known:
        raise UsageError(unknown("optimizer", f"torch:{kind}", [f"torch:{name}" for name in known]))
    return known[kind]


def _timm(kind: str) -> tuple[type[Optimizer], dict[str, Any]]:
    """The class and timm's defaults: those of its registry, and momentum 0.9 if it has momentum."""
    registry = importlib.import_module("timm.optim")
    if kind not in registry.list_optimizers():
        names = [f"timm:{name}" for name in registry.list_optimizers()]
        raise UsageError(unknown("optimizer", f"timm:{kind}", names))
    info = registry.get_optimizer_info(kind)
    if info.second_order:
        raise UsageError(f"timm:{kind} cannot be run: it needs the graph of the gradient at every step")
    try:
        optimizer = registry.get_optimizer_class(kind, bind_defaults=False)
    except (ImportError, AssertionError) as error:
        raise UsageError(f"timm:{kind} cannot be run here: {one_line(error)}") from error
    momentum = {"momentum": 0.9} if info.has_momentum else {}
    return optimizer, momentum | (info.defaults or {})
