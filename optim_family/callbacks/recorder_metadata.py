"""Specification and provenance of a run that a script trains, in the fields of `optim-family run`."""

import inspect
import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Final

from torch import Tensor, nn
from torch.optim import Optimizer

from optim_family import registry
from optim_family.errors import UsageError
from optim_family.optimizers.base import OptimizerBase
from optim_family.optimizers.external.hyperparameters import arguments
from optim_family.resources import EXTERNAL_PACKAGES
from optim_family.runs.layout import SPEC
from optim_family.space import ParameterSpace
from optim_family.training.record import make_provenance, training_record
from optim_family.training.spec import RunSpec

LIBRARIES: Final = ("optim-family", "torch", "numpy", "scipy")
RECORD: Final = frozenset({*inspect.signature(training_record).parameters, "effective_lr"})


def check(model: nn.Module, optimizer: Optimizer, every: int, views: Any, rtol: float) -> None:
    """Raise ValueError if an argument of a recorder is invalid."""
    if not isinstance(optimizer, Optimizer):
        raise ValueError(f"the optimizer must be a torch.optim.Optimizer; got {type(optimizer).__name__}.")
    own = {id(p) for p in model.parameters() if p.requires_grad}
    if not any(id(p) in own for group in optimizer.param_groups for p in group["params"]):
        raise ValueError(f"{type(optimizer).__name__} trains no weight of {type(model).__name__}.")
    if not (isinstance(every, Integral) and every >= 1):
        raise ValueError(f"every must be a whole number of steps, at least 1; got {every!r}.")
    if not (isinstance(rtol, Real) and 0 < rtol < 1):
        raise ValueError(f"rtol must lie between 0 and 1; got {rtol!r}.")
    if isinstance(views, str):
        raise ValueError(f"views must be a list of names; write [{views!r}].")


def extra_fields(
    name: str | None, seed: int | None, config: Mapping[str, Any] | None, reading: str
) -> dict[str, Any]:
    """The fields of the specification that a script gives; none that is None, or has the default.

    Raises:
        ValueError: the name is no file name, the seed no whole number, or a setting no number or text.
    """
    if name is not None and (not isinstance(name, str) or not name.strip() or set(name) & set("/\\\0")):
        raise ValueError(f"name must be a text without slashes, as it names a folder; got {name!r}.")
    if seed is not None and not (isinstance(seed, Integral) and seed >= 0):
        raise ValueError(f"seed must be a whole number, at least 0; got {seed!r}.")
    for key, value in (config or {}).items():
        if not isinstance(value, Real | str | None):
            raise ValueError(f"config: {key} must be a number or a text; got a {type(value).__name__}.")
    fields = {"name": name, "seed": None if seed is None else int(seed), "config": dict(config or {}) or None}
    fields |= {"reading": None if reading == "lanczos" else reading}
    return {field: value for field, value in fields.items() if value is not None}


def own_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics of a script for a record, as plain numbers.

    Raises:
        ValueError: one is no number, or has the name of a field of every record.
    """
    for name, value in metrics.items():
        if name in RECORD:
            raise ValueError(f"metrics: {name} is a field of every record; choose another name.")
        if not isinstance(value, Real) and not (isinstance(value, Tensor) and value.numel() == 1):
            raise ValueError(f"metrics: {name} must be one number; got a {type(value).__name__}.")
    return {name: float(value) for name, value in metrics.items()}


def spec(
    model: nn.Module,
    optimizer: Optimizer,
    loss_fn: Callable[..., Any],
    *,
    every: int,
    views: Sequence[str],
    rtol: float,
) -> dict[str, Any]:
    """The fields of a RunSpec as JSON; null if unknown."""
    return dict.fromkeys(RunSpec.model_fields) | {
        "optimizer": name(optimizer),
        "hyper": hyper(optimizer),
        "model": type(model).__name__,
        "data": "script",
        "loss": getattr(loss_fn, "__name__", type(loss_fn).__name__),
        "every": int(every),
        "views": list(views),
        "rtol": float(rtol),
    }


def provenance(optimizer: Optimizer, space: ParameterSpace, examples: Sequence[float]) -> dict[str, Any]:
    """The content of provenance.json; `examples` holds the number of examples of each chunk."""
    kind = type(optimizer)
    return make_provenance(
        space,
        libraries=LIBRARIES,
        optimizer={"target": f"{kind.__module__}:{kind.__qualname__}"},
        data={"train": round(sum(examples)), "chunks": len(examples)},
        device=str(space.tensors[0].device),
    )


def name(optimizer: Optimizer) -> str:
    """The name in `run`, `gd` or `torch:AdamW`; else the name of the class."""
    kind = type(optimizer)
    package = kind.__module__.partition(".")[0]
    registered = {entry.target: entry.name for entry in registry.entries().values()}
    prefixes = {external.module: prefix for prefix, external in EXTERNAL_PACKAGES.items()}
    foreign = f"{prefixes[package]}:{kind.__name__}" if package in prefixes else kind.__name__
    return registered.get(f"{kind.__module__}:{kind.__qualname__}", foreign)


def hyper(optimizer: Optimizer) -> dict[str, Any]:
    """The hyper-parameters of the first group, each a number or a string."""
    group, values = optimizer.param_groups[0], dict[str, Any]()
    if isinstance(optimizer, OptimizerBase):
        return {field: group[field] for field in type(optimizer).Hyper.model_fields}
    for argument in arguments(type(optimizer), {}):
        if argument.name in group:
            value = group[argument.name]
            values |= zip(argument.fields, value if argument.is_tuple else [value], strict=True)
    return {field: value.item() if isinstance(value, Tensor) else value for field, value in values.items()}


def rate(optimizer: Optimizer) -> float:
    """Present η of the first group."""
    return float(optimizer.param_groups[0]["lr"])


def decay(optimizer: Optimizer) -> float:
    """Present λ of the first group."""
    return float(optimizer.param_groups[0].get("weight_decay", 0.0))


def folder(out: Path | str | None, name: str | None, default: str) -> Path:
    """`out`, or the first free folder of runs/NAME, runs/NAME-2 and so on; a given name that is taken warns.

    Args:
        out: the folder; None for one in runs/.
        name: that the user gave the run, if any.
        default: its name otherwise.

    Raises:
        UsageError: `out` holds a run.
    """
    if out is None:
        base = Path("runs", (name or default).replace(":", "-"))
        numbered = (base.with_name(f"{base.name}-{n}") for n in itertools.count(2))
        free = next(path for path in itertools.chain([base], numbered) if not path.exists())
        if name and free != base:
            warnings.warn(f"{base} exists already; this run is written to {free}.", stacklevel=3)
        return free
    if (Path(out) / SPEC).exists():
        raise UsageError(f"{out} holds a run already; choose another folder, or omit `out` for a new one")
    return Path(out)
