"""From a grid to its runs: all combinations of its lists, or everything that is wrong with it.

A key is a field of the run or a hyper-parameter; a hyper-parameter that is named like a field of the run
carries its optimizer's name, `rmsprop_norm`.
"""

import difflib
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from optim_family import registry
from optim_family.data import datasets
from optim_family.errors import OptimFamilyError, UsageError, invalid_field, unknown
from optim_family.networks import cards
from optim_family.training.spec import RunSpec

Grid = Mapping[str, Any]
Axes = Mapping[str, list[Any]]

_OWN: Final = ("optimizer", "hyper", "seed")
# What a grid can say of a run; `seeds` are its seed, one run each.
RUN_KEYS: Final = ("optimizer", *(key for key in RunSpec.model_fields if key not in _OWN), "seeds")
_DEFAULTS: Final[Grid] = {"seeds": 0, "device": "auto"}
_NONE: Final = {"batch_size": "full", "limit": "all"}  # how a file says what JSON says by null
_ONE_VALUE: Final = {"views"}  # although it is a list


@final
@dataclass(frozen=True)
class Mistake:
    """What is wrong, in one line, and the key whose value it is; no key if it is the grid as a whole."""

    text: str
    key: str = ""


def expand(shared: Grid, grid: Grid) -> Iterator[RunSpec | Mistake]:
    """Every run of a grid, and every mistake in it; some mistakes come again.

    Args:
        shared: fields of the run, which hold where the grid does not say them.
        grid: fields and hyper-parameters, each a value or a list of values.
    """
    axes = {key: _axis(key, value) for key, value in {**_DEFAULTS, **shared, **grid}.items()}
    yield from (_missing(key, axes) for key in ("optimizer", "model") if key not in axes)
    yield from (Mistake(f"{key}: give at least one value", key) for key, values in axes.items() if not values)
    yield from _refused("model", axes, cards.load)
    yield from _refused("data", axes, _check_data)
    for name in axes.pop("optimizer", []):
        try:
            optimizer = registry.load(str(name))
        except OptimFamilyError as error:
            yield Mistake(str(error), "optimizer")
        else:
            usual = {"batch_size": [optimizer.batch_size]}
            yield from _of_optimizer(str(name), optimizer.Hyper, usual | axes)


def as_grid_keys(run: RunSpec) -> dict[str, Any]:
    """What a run is, by the keys of a grid."""
    fields = run.model_dump(mode="json", exclude={"hyper", "seed"}) | {"seeds": run.seed}
    words = {key: _NONE[key] for key in _NONE if fields[key] is None}
    return fields | words | {_key(run.optimizer, name): value for name, value in run.hyper.items()}


def _key(optimizer: str, hyper: str) -> str:
    return f"{optimizer}_{hyper}" if hyper in RUN_KEYS else hyper


def _axis(key: str, value: Any) -> list[Any]:
    return value if isinstance(value, list) and key not in _ONE_VALUE else [value]


def _missing(key: str, axes: Axes) -> Mistake:
    near = difflib.get_close_matches(key, axes, n=1)
    return Mistake(f"it names no {key}" + (f"; did you mean that by {near[0]!r}?" if near else ""))


def _refused(key: str, axes: Axes, check: Callable[[str], Any]) -> Iterator[Mistake]:
    for name in axes.get(key, ()):
        try:
            check(str(name))
        except UsageError as error:
            yield Mistake(str(error), key)


def _check_data(name: str) -> None:
    known = {*datasets.NAMES, *datasets.registered_datasets()}
    if name not in known and not name.startswith(("npz:", "folder:")):
        raise UsageError(unknown("data set", name, datasets.FORMS))


def _of_optimizer(name: str, hyper: type[BaseModel], axes: Axes) -> Iterator[RunSpec | Mistake]:
    names = {_key(name, field): field for field in hyper.model_fields}
    strange = [key for key in axes if key not in names and key not in RUN_KEYS]
    yield from (_no_such_key(name, key, names) for key in strange)
    known = {key: values for key, values in axes.items() if key not in strange}
    for values in itertools.product(*known.values()):
        given = dict(zip(known, values, strict=True))
        numbers = {names[key]: value for key, value in given.items() if key in names}
        fields = {key: _none_if_keyword(key, value) for key, value in given.items() if key in RUN_KEYS}
        full, wrong = _validated(hyper, numbers, f"{name} ")
        run = {"optimizer": name, "hyper": full, "seed": fields.pop("seeds"), **fields}
        wrong += _validated(RunSpec, run)[1]
        yield from wrong
        if not wrong:
            yield RunSpec.model_validate(run)


def _no_such_key(optimizer: str, key: str, hyper: Collection[str]) -> Mistake:
    near = difflib.get_close_matches(key, [*hyper, *RUN_KEYS], n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return Mistake(f"{optimizer} has no hyper-parameter {key!r}{hint} It has {', '.join(hyper)}", key)


def _validated(model: type[BaseModel], values: Grid, whose: str = "") -> tuple[dict[str, Any], list[Mistake]]:
    """The values with everything that they leave open, as JSON; or the mistakes in them."""
    try:
        return model.model_validate(values).model_dump(mode="json"), []
    except ValidationError as error:
        return {}, [_format_mistake(detail, whose) for detail in error.errors(include_url=False)]


def _none_if_keyword(key: str, value: Any) -> Any:
    return None if value == _NONE.get(key, ()) else value


def _format_mistake(detail: ErrorDetails, whose: str) -> Mistake:
    """One mistake: `rmsprop lr: it must be greater than 0, not -1`."""
    if not detail["loc"]:
        return Mistake(whose + invalid_field(detail, ""))
    field = str(detail["loc"][0]).replace("seed", "seeds")
    return Mistake(invalid_field(detail, whose + field), field)
