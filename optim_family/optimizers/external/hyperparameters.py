"""Hyper-parameters out of the signature of somebody else's optimizer.

A tuple of numbers becomes one field a number: `betas` → `beta1`, `beta2`. Left out are arguments that only
say how the same step is computed, and those for which timm has names (`timm:lambw` is `timm:lamb` with
decoupled decay). The constructor itself judges the values.
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

_HOW: Final = {"foreach", "fused", "capturable", "differentiable", "verbose"}
_ALIASED_OPTIONS: Final = {"maximize", "caution", "corrected_weight_decay", "decoupled_decay"}
_PLAIN: Final = (bool, int, float, str)


@final
@dataclass(frozen=True)
class Argument:
    """One argument of a constructor, and the fields that it is made of.

    Attributes:
        name: the keyword.
        fields: their names; several for a tuple.
        kinds: their types.
        defaults: of each field; `...` where there is none.
        whole: it is a tuple.
    """

    name: str
    fields: tuple[str, ...]
    kinds: tuple[Any, ...]
    defaults: tuple[Any, ...]
    whole: bool = False

    def value(self, values: Mapping[str, Any]) -> Any:
        """What to hand to the constructor, out of the values of the fields."""
        parts = tuple(values[field] for field in self.fields)
        return parts if self.whole else parts[0]


def arguments(make: Constructor, bound: Mapping[str, Any]) -> tuple[Argument, ...]:
    """The arguments of a constructor that are hyper-parameters; `bound` ones have another default."""
    parameters = list(inspect.signature(make).parameters.values())[1:]
    found = []
    for p in parameters:
        if p.name in _HOW or p.name in _ALIASED_OPTIONS:
            continue
        default = bound.get(p.name, p.default)
        if argument := _argument(p.name, p.annotation, default):
            found.append(argument)
    return tuple(found)


def hyper_parameters(
    name: str, make: Constructor, known: tuple[Argument, ...], doc: str
) -> type[HyperParameters]:
    """A model with a field for each; it refuses what the constructor refuses, in its words.

    Args:
        name: of the optimizer, for messages.
        make: its constructor.
        known: its arguments.
        doc: its docstring, in which arguments are explained.
    """

    def accepted(self: Any) -> Any:
        try:
            make([torch.zeros(2, 2, requires_grad=True)], **{a.name: a.value(vars(self)) for a in known})
        except (ValueError, TypeError, AssertionError) as error:
            raise ValueError(f"{name} refuses: {one_line(error)}") from error
        return self

    given = dict(field for argument in known for field in _fields(argument, doc))
    if "weight_decay" not in given:
        given["weight_decay"] = Annotated[float, Field(ge=0, le=0, description=f"{name} has none")], 0.0
    model: type[HyperParameters] = create_model(
        f"{name}Hyper",
        __base__=HyperParameters,
        __doc__=f"The hyper-parameters of {name}.",
        __validators__={"accepted": cast(Any, model_validator(mode="after")(accepted))},
        **given,
    )
    return model


def _argument(name: str, annotation: Any, default: Any) -> Argument | None:
    """None if its values are neither numbers, words nor tuples of numbers."""
    if name == "lr":
        return Argument(name, (name,), (float,), (default if isinstance(default, float) else ...,))
    if isinstance(default, tuple):
        stem = name if name == "eps" else name.removesuffix("s")
        fields = tuple(f"{stem}{i}" for i in range(1, len(default) + 1))
        parts = get_args(annotation) or [float] * len(default)
        kinds = tuple(_type(part, value) for part, value in zip(parts, default, strict=True))
        return Argument(name, fields, kinds, tuple(map(_value, kinds, default)), whole=True)
    kind = _type(annotation, default)
    return None if kind is None else Argument(name, (name,), (kind,), (_value(kind, default),))


def _type(annotation: Any, default: Any) -> Any:
    """bool, int, float or str, with None where that is allowed; None for anything else."""
    allowed = get_args(annotation) or (annotation,)
    plain = [kind for kind in allowed if kind in _PLAIN]
    if isinstance(default, bool | str):
        kind: Any = type(default)
    elif isinstance(default, int | float):
        kind = int if plain == [int] else float  # 0 may stand for 0.0
    else:
        kind = plain[0] if default is None and plain else None
    return kind | None if kind and types.NoneType in allowed else kind


def _value(kind: Any, default: Any) -> Any:
    """0 → 0.0 where a real number is meant: a run that is given 0.0 is the same run."""
    return float(default) if kind is float else default


def _fields(argument: Argument, doc: str) -> Iterator[tuple[str, Any]]:
    limits: dict[str, Any] = {"lr": {"gt": 0}, "weight_decay": {"ge": 0}}.get(argument.name, {})
    meaning = _meaning(argument.name, doc)
    for i, (name, kind, default) in enumerate(
        zip(argument.fields, argument.kinds, argument.defaults, strict=True)
    ):
        place = f"number {i + 1} of {argument.name}: " if argument.whole else ""
        tried = [0.9] if name == "momentum" else None  # beside 0, by the conformance suite
        yield name, (Annotated[kind, Field(description=place + meaning, examples=tried, **limits)], default)


def _meaning(name: str, doc: str) -> str:
    """What the docstring says of an argument, up to its first full stop."""
    found = re.search(rf"^[ ]+{name}\b[^:\n]*:((?:.*\n)(?:[ ]{{12,}}.*\n)*)", doc + "\n", flags=re.MULTILINE)
    text = " ".join(re.sub("`_?", "", found[1]).split()) if found else ""
    return re.split(r"\. | \(default|\.$", text)[0]
