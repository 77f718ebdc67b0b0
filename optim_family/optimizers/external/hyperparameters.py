"""Hyper-parameters from the constructor's signature of an external optimizer.

A tuple of numbers becomes one field a number: `betas` → `beta1`, `beta2`. Arguments that only select an
implementation of the same step are left out, and so are those that timm offers as separate names
(`timm:lambw` is `timm:lamb` with decoupled decay). The constructor validates the values.
"""

import inspect
import re
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, cast, final, get_args

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
        fields: names of the fields; several for a tuple.
        kinds: type of each field.
        defaults: default of each field; `...` for none.
        is_tuple: whether the argument is a tuple.
    """

    name: str
    fields: tuple[str, ...]
    kinds: tuple[Any, ...]
    defaults: tuple[Any, ...]
    is_tuple: bool = False

    def value(self, values: Mapping[str, Any]) -> Any:
        """The argument's value from the values of the fields."""
        parts = tuple(values[field] for field in self.fields)
        return parts if self.is_tuple else parts[0]


def arguments(make: Constructor, bound: Mapping[str, Any]) -> tuple[Argument, ...]:
    """The arguments of a constructor that are hyper-parameters; `bound` replaces defaults."""
    parameters = list(inspect.signature(make).parameters.values())[1:]
    result = []
    for p in parameters:
        if p.name in _IMPLEMENTATION_OPTIONS or p.name in _ALIASED_OPTIONS:
            continue
        default = bound.get(p.name, p.default)
        if argument := _argument(p.name, p.annotation, default):
            result.append(argument)
    return tuple(result)


def hyper_parameters(
    name: str, make: Constructor, known: tuple[Argument, ...], doc: str
) -> type[HyperParameters]:
    """A pydantic model with the fields of all arguments; it is invalid where the constructor raises.

    Args:
        name: of the optimizer, for messages.
        make: its constructor.
        known: its arguments.
        doc: its docstring, which explains the arguments.
    """

    def validate(self: Any) -> Any:
        try:
            make([torch.zeros(2, 2, requires_grad=True)], **{a.name: a.value(vars(self)) for a in known})
        except (ValueError, TypeError, AssertionError) as error:
            raise ValueError(f"{name} refuses: {one_line(error)}") from error
        return self

    definitions = dict(field for argument in known for field in _fields(argument, doc))
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
    if name == "lr":
        return Argument(name, (name,), (float,), (default if isinstance(default, float) else ...,))
    if isinstance(default, tuple):
        stem = name if name == "eps" else name.removesuffix("s")
        fields = tuple(f"{stem}{i}" for i in range(1, len(default) + 1))
        parts = get_args(annotation) or [float] * len(default)
        kinds = tuple(_type(part, value) for part, value in zip(parts, default, strict=True))
        return Argument(name, fields, kinds, tuple(map(_value, kinds, default)), is_tuple=True)
    kind = _type(annotation, default)
    return None if kind is None else Argument(name, (name,), (kind,), (_value(kind, default),))


def _type(annotation: Any, default: Any) -> Any:
    """bool, int, float or str, or one of them with None; None for any other type."""
    allowed = get_args(annotation) or (annotation,)
    plain = [kind for kind in allowed if kind in _PLAIN]
    if isinstance(default, bool | str):
        kind: Any = type(default)
    elif isinstance(default, int | float):
        kind = int if plain == [int] else float  # 0 may mean 0.0
    else:
        kind = plain[0] if default is None and plain else None
    return kind | None if kind and types.NoneType in allowed else kind


def _value(kind: Any, default: Any) -> Any:
    """0 → 0.0 for a float field, so that 0 and 0.0 have the same run key."""
    return float(default) if kind is float else default


def _fields(argument: Argument, doc: str) -> Iterator[tuple[str, Any]]:
    limits: dict[str, Any] = {"lr": {"gt": 0}, "weight_decay": {"ge": 0}}.get(argument.name, {})
    meaning = _meaning(argument.name, doc)
    for i, (name, kind, default) in enumerate(
        zip(argument.fields, argument.kinds, argument.defaults, strict=True)
    ):
        prefix = f"number {i + 1} of {argument.name}: " if argument.is_tuple else ""
        tried = [0.9] if name == "momentum" else None  # in addition to 0, in the conformance suite
        yield name, (Annotated[kind, Field(description=prefix + meaning, examples=tried, **limits)], default)


def _meaning(name: str, doc: str) -> str:
    """The first sentence that the docstring says about an argument."""
    match = re.search(rf"^[ ]+{name}\b[^:\n]*:((?:.*\n)(?:[ ]{{12,}}.*\n)*)", doc + "\n", flags=re.MULTILINE)
    text = " ".join(re.sub("`_?", "", match[1]).split()) if match else ""
    return re.split(r"\. | \(default|\.$", text)[0]
