"""Specification and provenance of a run that a script trains, in the fields of `optim-family run`."""

import itertools
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Final

from torch import Tensor, nn
from torch.optim import Optimizer

from optim_family import registry
from optim_family.errors import UsageError
from optim_family.optimizers.base import OptimizerBase
from optim_family.optimizers.external.hyperparameters import arguments
from optim_family.runs.layout import SPEC
from optim_family.space import ParameterSpace
from optim_family.training.provenance import make_provenance
from optim_family.training.spec import RunSpec

LIBRARIES: Final = ("optim-family", "torch", "numpy", "scipy")


def check(
    model: nn.Module,
    optimizer: Optimizer,
    chunks: Sequence[Any],
    *,
    every: int,
    views: Sequence[str] | None,
    rtol: float,
) -> None:
    """Check the arguments of a recorder.

    Raises:
        ValueError: one of them is invalid.
    """
    if not isinstance(optimizer, Optimizer):
        raise ValueError(f"the optimizer must be one of torch's kind; got {type(optimizer).__name__}.")
    own = {id(p) for p in model.parameters() if p.requires_grad}
    if not any(id(p) in own for group in optimizer.param_groups for p in group["params"]):
        raise ValueError(f"{type(optimizer).__name__} trains no weight of {type(model).__name__}.")
    if not (isinstance(every, Integral) and every >= 1):
        raise ValueError(f"every must be a whole number of steps, at least 1; got {every!r}.")
    if not (isinstance(rtol, Real) and 0 < rtol < 1):
        raise ValueError(f"rtol must lie between 0 and 1; got {rtol!r}.")
    if isinstance(views, str):
        raise ValueError(f"views must be a list of names; write [{views!r}].")
    if wrong := [type(chunk).__name__ for chunk in chunks if not _is_pair(chunk)]:
        raise ValueError(f"each chunk must be a pair (x, y); got {wrong[0]}.")


def _is_pair(chunk: Any) -> bool:
    return isinstance(chunk, tuple | list) and len(chunk) == 2


def spec(
    model: nn.Module,
    optimizer: Optimizer,
    loss_fn: Callable[..., Any],
    *,
    every: int,
    views: Sequence[str],
    rtol: float,
) -> dict[str, Any]:
    """The fields of a RunSpec, as far as they are known here, as JSON."""
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


def provenance(optimizer: Optimizer, space: ParameterSpace, examples: Sequence[int]) -> dict[str, Any]:
    """What the numbers depend on beyond that, as JSON; `examples` counts those of each chunk."""
    kind = type(optimizer)
    return make_provenance(
        space,
        libraries=LIBRARIES,
        optimizer={"target": f"{kind.__module__}:{kind.__qualname__}"},
        data={"train": sum(examples), "chunks": len(examples)},
        device=str(space.tensors[0].device),
    )


def name(optimizer: Optimizer) -> str:
    """As `run` has it, `gd` or `torch:AdamW`; else the name of the class."""
    kind = type(optimizer)
    package = kind.__module__.partition(".")[0]
    registered = {entry.target: entry.name for entry in registry.entries().values()}
    foreign = f"{package}:{kind.__name__}" if package in ("torch", "timm") else kind.__name__
    return registered.get(f"{kind.__module__}:{kind.__qualname__}", foreign)


def hyper(optimizer: Optimizer) -> dict[str, Any]:
    """The hyper-parameters of the first group, a number or a word each."""
    group, values = optimizer.param_groups[0], dict[str, Any]()
    if isinstance(optimizer, OptimizerBase):
        return {field: group[field] for field in type(optimizer).Hyper.model_fields}
    for argument in arguments(type(optimizer), {}):
        if argument.name in group:
            value = group[argument.name]
            values |= zip(argument.fields, value if argument.is_tuple else [value], strict=True)
    return {field: value.item() if isinstance(value, Tensor) else value for field, value in values.items()}


def rate(optimizer: Optimizer) -> float:
    """η of the first group, now."""
    return float(optimizer.param_groups[0]["lr"])


def decay(optimizer: Optimizer) -> float:
    """λ of the first group, now."""
    return float(optimizer.param_groups[0].get("weight_decay", 0.0))


def folder(out: Path | str | None, title: str) -> Path:
    """A folder that holds no run: `out`, or the first free one of runs/TITLE, runs/TITLE-2 and so on.

    Raises:
        UsageError: `out` holds one.
    """
    base = Path("runs", title.replace(":", "-"))
    candidates = (base if n == 1 else base.with_name(f"{base.name}-{n}") for n in itertools.count(1))
    path = next(path for path in candidates if not path.exists()) if out is None else Path(out)
    if (path / SPEC).exists():
        raise UsageError(
            f"{path} holds a run already; choose another folder, or leave out `out` for a new one"
        )
    return path
