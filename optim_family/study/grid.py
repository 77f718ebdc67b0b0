"""Expand a grid to runs, one for each combination of its lists, or report every mistake in it.

A key is a field of the run or a hyper-parameter; a hyper-parameter with the name of a field has its
optimizer's name as a prefix, `rmsprop_norm`.
"""

import difflib
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, final

from pydantic import BaseModel, ValidationError

from optim_family import registry
from optim_family.data import datasets
from optim_family.errors import OptimFamilyError, UsageError, invalid_field
from optim_family.networks import cards
from optim_family.training.spec import RunSpec

Grid = Mapping[str, Any]
Axes = Mapping[str, list[Any]]

# The fields of a run as keys of a grid; each of `seeds` is the seed of a run.
RUN_KEYS: Final = (*(key for key in RunSpec.model_fields if key not in ("hyper", "seed")), "seeds")
_DEFAULTS: Final[Grid] = {"seeds": 0, "device": "auto"}
_NONE: Final = {"batch_size": "full", "limit": "all"}  # the words of a grid for null


@final
@dataclass(frozen=True)
class Mistake:
    """One line about a mistake, and the key of the wrong value; empty if the whole grid is wrong."""

    text: str
    key: str = ""


def expand(shared: Grid, grid: Grid) -> Iterator[RunSpec | Mistake]:
    """Yield every run of a grid and every mistake in it; a mistake may come more than once.

    Args:
        shared: fields of the run, which the grid overrides.
        grid: fields and hyper-parameters, each a value or a list of values.
    """
    axes = {key: _alternatives(key, value) for key, value in {**_DEFAULTS, **shared, **grid}.items()}
    for key in ("optimizer", "model"):
        if key not in axes:
            near = difflib.get_close_matches(key, axes, n=1)
            yield Mistake(f"it names no {key}" + (f"; did you mean that by {near[0]!r}?" if near else ""))
    yield from (Mistake(f"{key}: give at least one value", key) for key, values in axes.items() if not values)
    yield from (
        Mistake(f"{key}: {value} stands twice", key)
        for key, values in axes.items()
        for i, value in enumerate(values)
        if value in values[:i]
    )
    yield from _invalid_names("model", axes, cards.load)
    yield from _invalid_names("data", axes, datasets.check_name)
    for name in axes.pop("optimizer", []):
        try:
            optimizer = registry.load(str(name))
        except OptimFamilyError as error:
            yield Mistake(str(error), "optimizer")
        else:
            yield from _expand_axes(str(name), optimizer.Hyper, {"batch_size": [optimizer.batch_size]} | axes)


def _alternatives(key: str, value: Any) -> list[Any]:
    """The values of a key in turn; several views are one value."""
    if key == "views":
        return [[value] if isinstance(value, str) else value]
    return value if isinstance(value, list) else [value]


def as_grid_keys(run: RunSpec) -> dict[str, Any]:
    """The fields and hyper-parameters of a run under the keys of a grid."""
    fields = run.model_dump(mode="json", exclude={"hyper", "seed"}) | {"seeds": run.seed}
    words = {key: _NONE[key] for key in _NONE if fields[key] is None}
    return fields | words | {_key(run.optimizer, name): value for name, value in run.hyper.items()}


def _key(optimizer: str, hyper: str) -> str:
    return f"{optimizer}_{hyper}" if hyper in RUN_KEYS else hyper


def _invalid_names(key: str, axes: Axes, check: Callable[[str], Any]) -> Iterator[Mistake]:
    for name in axes.get(key, ()):
        try:
            check(str(name))
        except UsageError as error:
            yield Mistake(str(error), key)


def _expand_axes(name: str, hyper: type[BaseModel], axes: Axes) -> Iterator[RunSpec | Mistake]:
    """Yield every run of one optimizer and every mistake."""
    names = {_key(name, field): field for field in hyper.model_fields}
    known = {key: values for key, values in axes.items() if key in names or key in RUN_KEYS}
    for key in (key for key in axes if key not in known):
        near = difflib.get_close_matches(key, [*names, *RUN_KEYS], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        yield Mistake(f"{name} has no hyper-parameter {key!r}{hint} It has {', '.join(names)}", key)
    for combination in itertools.product(*known.values()):
        values = dict(zip(known, combination, strict=True))
        numbers = {names[key]: value for key, value in values.items() if key in names}
        fields = {k: None if x == _NONE.get(k, ()) else x for k, x in values.items() if k in RUN_KEYS}
        full, mistakes = _validate(hyper, numbers, f"{name} ")
        run = {"optimizer": name, "hyper": full, "seed": fields.pop("seeds"), **fields}
        mistakes += _validate(RunSpec, run)[1]
        yield from mistakes
        if not mistakes:
            yield RunSpec.model_validate(run)


def _validate(model: type[BaseModel], values: Grid, prefix: str = "") -> tuple[dict[str, Any], list[Mistake]]:
    """The values completed by defaults, as JSON, or mistakes such as `rmsprop lr: it must be …`."""
    try:
        return model.model_validate(values).model_dump(mode="json"), []
    except ValidationError as error:
        details = error.errors(include_url=False)
    fields = [str(detail["loc"][0]).replace("seed", "seeds") if detail["loc"] else "" for detail in details]
    lines = [
        invalid_field(d, prefix + f) if f else prefix + invalid_field(d, "")
        for d, f in zip(details, fields, strict=True)
    ]
    return {}, list(map(Mistake, lines, fields))
