"""Optimizers of external packages with the interface of the family: `torch:NAME`, `timm:NAME` and others.

Hyper-parameters come from the constructor's signature, the geometry from `inferred_geometry`. Without a known
geometry, raw and spherical sharpness are measured without a threshold.
"""

import copy
import functools
import types
from abc import ABC
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, ClassVar, final

from torch import Tensor

from optim_family.errors import UsageError, one_line
from optim_family.geometry import Geometry
from optim_family.optimizers.base import HyperParameters, OptimizerBase
from optim_family.optimizers.external import hyperparameters, inferred_geometry
from optim_family.optimizers.external.averaging import start_training
from optim_family.optimizers.external.hyperparameters import Argument, Constructor
from optim_family.optimizers.external.packages import external_class

_ORDER = "dimensions in the order of the memory"
_DATA = (Tensor, bool, int, float, str, tuple, list, types.NoneType)  # types that a checkpoint can hold


class ExternalOptimizer(OptimizerBase, ABC):
    """A wrapper of an external optimizer, which holds the state; every hyper-parameter is one number.

    Raises:
        ValueError: its constructor rejects a hyper-parameter.
        UsageError: its constructor rejects the tensors.
    """

    make: ClassVar[Constructor]
    arguments: ClassVar[tuple[Argument, ...]]
    # Whether `step` expects the gradient at the weights before it calls the closure.
    needs_gradient: ClassVar[bool] = False

    def __init__(self, params: Iterable[Any], hyper: HyperParameters | None = None, **values: Any) -> None:
        super().__init__(params, hyper, **values)
        try:
            self.wrapped = self.make(self.param_groups[0]["params"], **self._arguments())
        except ValueError as error:
            raise UsageError(f"{type(self).__name__} refuses these weights: {one_line(error)}") from error
        start_training(self)
        self.state = self.wrapped.state

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of the wrapped optimizer, with the hyper-parameters in force."""
        self._set_hyper()
        if not (self.needs_gradient and closure):
            return self.wrapped.step(closure)
        loss = closure()
        self.wrapped.step(closure)
        return loss

    def geometry(self) -> Geometry:
        """The inferred geometry; an `UnknownMetric` if there is none."""
        self._set_hyper()
        return inferred_geometry.geometry(self.wrapped)

    def state_dict(self) -> dict[str, Any]:
        """The hyper-parameters and the wrapped optimizer's state, without what a checkpoint cannot hold."""
        other = _packed(self.wrapped.state_dict())
        (group,) = other["param_groups"]
        data = {key: x for key, x in group.items() if isinstance(x, _DATA) and not isinstance(x, Enum)}
        other["param_groups"] = [data]
        values = {key: value for key, value in self.param_groups[0].items() if key != "params"}
        return {"values": values, "other": other}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state of `state_dict`."""
        self.param_groups[0].update(state_dict["values"])
        other = _unpacked(
            copy.deepcopy(state_dict["other"])
        )  # the wrapped optimizer must not share these tensors
        other["param_groups"] = [self.wrapped.defaults | group for group in other["param_groups"]]
        self.wrapped.load_state_dict(other)
        of_weights = ((index, memory) for index, memory in other["state"].items() if isinstance(index, int))
        for index, memory in of_weights:  # torch casts all state to the dtype of the weights
            state = self.wrapped.state[self.param_groups[0]["params"][index]]
            state.update({key: state[key].to(x.dtype) for key, x in memory.items() if isinstance(x, Tensor)})
        self.state = self.wrapped.state

    def _arguments(self) -> dict[str, Any]:
        return {argument.name: argument.value(self.values) for argument in self.arguments}

    def _set_hyper(self) -> None:
        """Copy the hyper-parameters, which a scheduler may have changed, to the wrapped optimizer."""
        # A constructor may have replaced None by a number, and a word by what it stands for.
        arguments = self._arguments().items()
        known = {name: value for name, value in arguments if not isinstance(value, str | None)}
        self.wrapped.param_groups[0].update(known)
        if self.values.get("freeze_metric"):
            inferred_geometry.freeze_metric(self.wrapped)


def _packed(tree: Any) -> Any:
    """A state in which every tensor is contiguous; a transposed one stands in a dict with its order.

    Sums over a matrix depend on its layout in their last bits.
    """
    if isinstance(tree, dict):
        return {key: _packed(value) for key, value in tree.items()}
    if isinstance(tree, tuple | list):
        return type(tree)(map(_packed, tree))
    if not isinstance(tree, Tensor) or tree.is_contiguous():
        return tree
    order = sorted(range(tree.ndim), key=lambda dim: -tree.stride()[dim])
    packed = tree.permute(order)
    return {_ORDER: order, "tensor": packed} if packed.is_contiguous() else tree


def _unpacked(tree: Any) -> Any:
    """The inverse of `_packed`."""
    if isinstance(tree, dict):
        if _ORDER in tree:
            return tree["tensor"].permute(*map(tree[_ORDER].index, range(len(tree[_ORDER]))))
        return {key: _unpacked(value) for key, value in tree.items()}
    return type(tree)(map(_unpacked, tree)) if isinstance(tree, tuple | list) else tree


@functools.cache
def wrap_external(name: str) -> type[OptimizerBase]:
    """The optimizer class for `torch:NAME`, `timm:NAME` and the names of the other packages.

    Raises:
        UsageError: no optimizer has this name, or it cannot be run here.
    """
    external = external_class(name)
    known = hyperparameters.arguments(external.constructor, external.defaults)
    constructor = functools.partial(external.constructor, **external.defaults)

    @final
    class Wrapped(ExternalOptimizer):
        make = staticmethod(constructor)  # Python 3.13 warns: a partial will become a method of the class
        arguments = known
        Hyper = hyperparameters.hyper_parameters(name, constructor, known, external.kind.__doc__ or "")
        freeze = {"freeze_metric": 1.0}
        needs_closure = external.needs_closure
        needs_gradient = external.needs_gradient
        expected_failures = inferred_geometry.expected_failures(external.kind)
        test_shapes = external.test_shapes or OptimizerBase.test_shapes

    Wrapped.__name__ = Wrapped.__qualname__ = name
    values = dict(external.defaults) or "its defaults"
    Wrapped.__doc__ = f"{external.kind.__module__}.{external.kind.__qualname__} with {values}."
    return Wrapped
