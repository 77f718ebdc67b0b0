"""Hyper-parameters from the constructor's signature of an external optimizer.

A tuple of numbers becomes one field a number: `betas` → `beta1`, `beta2`. Arguments that only select an
implementation of the same step are left out, and so are those that timm offers as separate names
(`timm:lambw` is `timm:lamb` with decoupled decay). The constructor validates the values.
"""

import inspect
import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Final, cast, final, get_args, get_origin

import torch
from pydantic import Field, create_model, model_validator
from torch.optim import Optimizer

from optim_family.errors import one_line
from optim_family.optimizers.base import HyperParameters

Constructor = Callable[..., Optimizer]

_IMPLEMENTATION_OPTIONS: Final = {"foreach", "fused", "capturable", "differentiable", "verbose"}
_ALIASED_OPTIONS: Final = {"maximize", "caution", "corrected_weight_decay", "decoupled_decay"}
_PLAIN: Final = (bool, int, float, str)


@final
@dataclass(frozen=True)
class Argument:
    """One argument of a constructor, and the fields that hold its value.

    Attributes:
        name: the keyword.
        fields: name → (type, default), several for a tuple; `...` for no default.
        is_tuple: whether the argument is a tuple.
    """

    name: str
    fields: Mapping[str, tuple[Any, Any]]
    is_tuple: bool = False

    def value(self, values: Mapping[str, Any]) -> Any:
        """The argument's value from the values of the fields."""
        parts = tuple(values[field] for field in self.fields)
        return parts if self.is_tuple else parts[0]


def arguments(make: Constructor, bound: Mapping[str, Any]) -> tuple[Argument, ...]:
    """The arguments of a constructor that are hyper-parameters; `bound` replaces defaults."""
    _, *parameters = inspect.signature(make).parameters.values()
    skipped = _IMPLEMENTATION_OPTIONS | _ALIASED_OPTIONS
    candidates = (
        _argument(p.name, p.annotation, bound.get(p.name, p.default))
        for p in parameters
        if p.name not in skipped
    )
    return tuple(argument for argument in candidates if argument)


def hyper_parameters(
    name: str, make: Constructor, known: tuple[Argument, ...], doc: str
) -> type[HyperParameters]:
    """A pydantic model with the fields of all arguments; values that the constructor rejects are invalid.

    Args:
        name: of the optimizer, for messages.
        make: its constructor.
        known: its arguments.
        doc: its docstring, which explains the arguments.
    """

    def validate(self: Any) -> Any:
        try:
            values = {a.name: a.value(vars(self)) for a in known}
            rate = make([torch.zeros(2, 2, requires_grad=True)], **values).param_groups[0]["lr"]
            if rate != self.lr:
                raise ValueError(f"its constructor changes the learning rate {self.lr:g} to {rate:g}")
        except (ValueError, TypeError, AssertionError) as error:
            raise ValueError(f"{name} refuses: {one_line(error)}") from error
        return self

    definitions = dict(field for argument in known for field in _definitions(argument, doc))
    if "weight_decay" not in definitions:
        definitions["weight_decay"] = Annotated[float, Field(ge=0, le=0, description=f"{name} has none")], 0.0
    model: type[HyperParameters] = create_model(
        f"{name}Hyper",
        __base__=HyperParameters,
        __doc__=f"The hyper-parameters of {name}.",
        __validators__={"validate": cast(Any, model_validator(mode="after")(validate))},
        **definitions,
    )
    return model


def _argument(name: str, annotation: Any, default: Any) -> Argument | None:
    """None if its values are neither numbers, strings nor tuples of numbers."""
    if isinstance(default, Enum):
        return None
    if name == "lr":
        return Argument(name, {name: (float, default if isinstance(default, float) else ...)})
    if isinstance(default, tuple):
        stem = name if name == "eps" else name.removesuffix("s")
        parts: Sequence[Any] = get_args(annotation) if get_origin(annotation) is tuple else ()
        parts = parts if len(parts) == len(default) and ... not in parts else [float] * len(default)
        fields = {f"{stem}{i}": _field(*part) for i, part in enumerate(zip(parts, default, strict=True), 1)}
        return Argument(name, fields, is_tuple=True)
    if default is inspect.Parameter.empty and annotation in (int, float):
        return Argument(name, {name: (annotation, ...)})
    kind, default = _field(annotation, default)
    return None if kind is None else Argument(name, {name: (kind, default)})


def _field(annotation: Any, default: Any) -> tuple[Any, Any]:
    """Type and default: bool, int, float or str, or one of them with None; None for any other type."""
    allowed = get_args(annotation) or (annotation,)
    plain = [kind for kind in allowed if kind in _PLAIN]
    if isinstance(default, bool | str):
        kind: Any = type(default)
    elif isinstance(default, int | float):
        kind = int if plain == [int] else float  # 0 may mean 0.0
    else:
        kind = plain[0] if default is None and plain else None
    if kind and types.NoneType in allowed:
        return kind | None, default
    return kind, float(default) if kind is float else default  # 0 and 0.0 have the same run key


def _definitions(argument: Argument, doc: str) -> Iterator[tuple[str, Any]]:
    limits: dict[str, Any] = {"lr": {"gt": 0}, "weight_decay": {"ge": 0}}.get(argument.name, {})
    meaning = _meaning(argument.name, doc)
    for number, (name, (kind, default)) in enumerate(argument.fields.items(), 1):
        prefix = f"number {number} of {argument.name}: " if argument.is_tuple else ""
        examples = [0.9] if name == "momentum" else None  # in addition to 0, in the conformance suite
        field = Field(description=prefix + meaning, examples=examples, **limits)
        yield name, (Annotated[kind, field], default)


def _meaning(name: str, doc: str) -> str:
    """The first sentence on an argument in the docstring."""
    match = re.search(rf"^[ ]+{name}\b[^:\n]*:((?:.*\n)(?:[ ]{{12,}}.*\n)*)", doc + "\n", flags=re.MULTILINE)
    text = " ".join(re.sub("`_?", "", match[1]).split()) if match else ""
    return re.split(r"\. | \(default|\.$", text)[0]
