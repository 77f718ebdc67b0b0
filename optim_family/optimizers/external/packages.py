"""The optimizers of external packages by name: `torch:AdamW`, `timm:lamb`, `kozistr:AdaBelief`.

A package is imported when one of its names is used. A name stands for a constructor of an optimizer on one
group of tensors, or for an error that says in one line why it cannot be run.
"""

import functools
import importlib
import inspect
import math
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, final

import torch
from torch.optim import SGD, Optimizer

from optim_family.errors import UsageError, one_line, unknown
from optim_family.optimizers.external.hyperparameters import Constructor
from optim_family.resources import EXTERNAL_PACKAGES, external_name

_HESSIAN: Final = "it needs the graph of the gradient at every step"
_MODEL: Final = "it takes the whole model, not its weights"
_AROUND: Final = "it goes around another optimizer"
_RANDOM: Final = "it draws random numbers, which a checkpoint does not hold"
_OBJECTS: Final = "a checkpoint cannot hold its state"
_UNSUPPORTED: Final = {
    "torch:SparseAdam": "it takes sparse gradients only",
    "kozistr:AdaHessian": _HESSIAN,
    "kozistr:SophiaH": _HESSIAN,
    **dict.fromkeys(("kozistr:LOMO", "kozistr:AdaLOMO", "kozistr:AdamMini"), _MODEL),
    "kozistr:WSAM": f"{_MODEL}; kozistr:SAM and sam run",
    "kozistr:GSAM": f"{_MODEL}; kozistr:SAM and sam run",
    **dict.fromkeys(
        [f"kozistr:{n}" for n in ("Lookahead", "TRAC", "OrthoGrad", "PCGrad", "Magma", "SafeFP16Optimizer")],
        _AROUND,
    ),
    **dict.fromkeys(
        [f"kozistr:{n}" for n in ("BSAM", "Kron", "DASH", "Gravity", "Alice", "SaRA", "SPAM")], _RANDOM
    ),
    **dict.fromkeys([f"kozistr:{n}" for n in ("AdaShift", "AggMo", "Conda", "ScalableShampoo")], _OBJECTS),
    "kozistr:A2Grad": "it has no learning rate",
    "kozistr:AliG": "it has no learning rate",
    "kozistr:ASGD": "it sets its own learning rate; torch:ASGD runs",
    "kozistr:LoRARite": "it takes pairs of low-rank factors only",
    "kozistr:DeMo": "it needs processes that share the weights",
    "kozistr:ScheduleFreeWrapper": f"{_AROUND}; kozistr:ScheduleFreeSGD and kozistr:ScheduleFreeAdamW run",
    **dict.fromkeys(
        ("schedulefree:ScheduleFreeWrapper", "schedulefree:ScheduleFreeWrapperReference"),
        f"{_AROUND}; schedulefree:SGDScheduleFree and schedulefree:AdamWScheduleFree run",
    ),
    "kozistr:DistributedMuon": "it needs processes that share the weights; kozistr:Muon runs",
}
_AROUND_SGD: Final = ("SAM", "LookSAM", "FriendlySAM")  # around an optimizer that they make themselves
_NEEDS_CLOSURE: Final = {
    *("torch:LBFGS", "kozistr:LBFGS", *(f"kozistr:{name}" for name in _AROUND_SGD)),
    *(f"schedulefree:{name}ScheduleFreeClosure" for name in ("SGD", "AdamW", "RAdam")),
}
_NEEDS_GRADIENT: Final = {f"kozistr:{name}" for name in _AROUND_SGD}
_MATRICES: Final = (4, 3), (5, 1)
_LARGER_MATRICES: Final = (5, 4), (4, 6)  # timm's Muon trains smaller ones by AdamW
# Those that orthogonalise matrices; they expect a group that says so.
_OF_MATRICES: Final = ("Muon", "AdaMuon", "AdaGO", "NorMuon", "MuonClip")


@final
@dataclass(frozen=True)
class ExternalClass:
    """An optimizer of an external package.

    Attributes:
        name: PREFIX:NAME.
        kind: its class.
        constructor: of the class on one group of tensors; its signature has the hyper-parameters.
        defaults: that replace those of the signature.
        test_shapes: of the tensors in the conformance suite; None for the usual ones.
    """

    name: str
    kind: type[Optimizer]
    constructor: Constructor
    defaults: Mapping[str, Any] = field(default_factory=dict)
    test_shapes: Sequence[tuple[int, ...]] | None = None

    @property
    def needs_closure(self) -> bool:
        """Whether its `step` evaluates the loss again."""
        return self.name in _NEEDS_CLOSURE

    @property
    def needs_gradient(self) -> bool:
        """Whether its `step` expects the gradient at the weights too, before it calls the closure."""
        return self.name in _NEEDS_GRADIENT


def external_class(name: str) -> ExternalClass:
    """The optimizer PREFIX:NAME.

    Raises:
        UsageError: its package is not installed, no optimizer has this name, or it cannot be run here.
    """
    prefix, _, kind = name.partition(":")
    if name in _UNSUPPORTED:
        raise UsageError(f"{name} cannot be run: {_UNSUPPORTED[name]}")
    return {"torch": _torch, "timm": _timm, "schedulefree": _schedulefree, "kozistr": _kozistr}[prefix](kind)


def _torch(kind: str) -> ExternalClass:
    optimizer_class = _of_module("torch", kind, torch.optim)
    return ExternalClass(
        f"torch:{kind}", optimizer_class, optimizer_class, test_shapes=_MATRICES if kind == "Muon" else None
    )


def _timm(kind: str) -> ExternalClass:
    """The class and timm's defaults: those of its registry, and momentum 0.9 if it has momentum."""
    registry = importlib.import_module("timm.optim")
    if kind not in registry.list_optimizers():
        raise _unknown("timm", kind, registry.list_optimizers())
    info = registry.get_optimizer_info(kind)
    if info.second_order:
        raise UsageError(f"timm:{kind} cannot be run: {_HESSIAN}")
    try:
        optimizer = registry.get_optimizer_class(kind, bind_defaults=False)
    except (ImportError, AssertionError) as error:
        raise UsageError(f"timm:{kind} cannot be run here: {one_line(error)}") from error
    momentum = {"momentum": 0.9} if info.has_momentum else {}
    shapes = _LARGER_MATRICES if optimizer.__name__ == "Muon" else None
    return ExternalClass(f"timm:{kind}", optimizer, optimizer, momentum | (info.defaults or {}), shapes)


def _schedulefree(kind: str) -> ExternalClass:
    optimizer_class = _of_module("schedulefree", kind, _imported("schedulefree", kind))
    return ExternalClass(f"schedulefree:{kind}", optimizer_class, optimizer_class)


def _kozistr(kind: str) -> ExternalClass:
    package = _imported("kozistr", kind)
    optimizer_class = _of_module(
        "kozistr", kind, importlib.import_module("pytorch_optimizer.optimizer"), package
    )
    constructor: Constructor = optimizer_class
    if kind in _OF_MATRICES:
        constructor = _constructor(
            optimizer_class, lambda params, **h: optimizer_class([{"params": params, "use_muon": True}], **h)
        )
    elif kind in _AROUND_SGD:
        constructor = _constructor(
            optimizer_class, functools.partial(_around_sgd, optimizer_class), without="base_optimizer"
        )
    return ExternalClass(
        f"kozistr:{kind}",
        optimizer_class,
        constructor,
        test_shapes=_MATRICES if kind in _OF_MATRICES else None,
    )


def _of_module(prefix: str, kind: str, *modules: types.ModuleType) -> type[Optimizer]:
    """The optimizer of this name in the modules of a package."""
    known = {
        name: value
        for module in modules
        for name, value in inspect.getmembers(module, inspect.isclass)
        if issubclass(value, Optimizer) and value is not Optimizer and name != "BaseOptimizer"
    }
    if kind not in known:
        raise _unknown(prefix, kind, known)
    return known[kind]


def _unknown(prefix: str, kind: str, known: Any) -> UsageError:
    """No optimizer has this name; the nearest one in its package by capitals, or of this name in another."""
    near = next((f"{prefix}:{name}" for name in known if name.lower() == kind.lower()), external_name(kind))
    return UsageError(unknown("optimizer", f"{prefix}:{kind}", [f"{prefix}:{n}" for n in known], near=near))


def _imported(prefix: str, kind: str) -> types.ModuleType:
    package = EXTERNAL_PACKAGES[prefix]
    try:
        return importlib.import_module(package.module)
    except ImportError as error:
        raise UsageError(
            f"{prefix}:{kind} needs {package.distribution}, which cannot be imported here "
            f"({one_line(error)}); pip install 'optim-family[{package.extra}]'"
        ) from error


def _constructor(kind: type[Optimizer], make: Callable[..., Optimizer], without: str = "") -> Constructor:
    """A constructor with the signature of a class, without an argument that it fills itself."""

    def constructor(params: Any, **values: Any) -> Optimizer:
        return make(params, **values)

    parameters = [p for name, p in inspect.signature(kind).parameters.items() if name != without]
    if without:  # what goes to the optimizer inside, which has these names first
        inside = inspect.signature(SGD).parameters
        own = [inside[name] for name in ("lr", "weight_decay", "momentum", "nesterov")]
        keywords = [p.replace(kind=p.KEYWORD_ONLY) for p in (*own, *parameters[1:-1])]
        parameters = [parameters[0], *keywords]
    constructor.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return constructor


def _around_sgd(kind: type[Optimizer], params: Any, **values: Any) -> Optimizer:
    """SAM around torch's SGD."""
    if not 0 < values.get("rho", 1.0) < math.inf:
        raise ValueError(f"rho must be greater than 0, not {values['rho']:g}; without it this is torch:SGD")
    return kind(params, base_optimizer=SGD, **values)  # type: ignore[call-arg]
