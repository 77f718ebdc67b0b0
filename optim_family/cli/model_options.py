"""From the fields of a pydantic model to options, a table of them, and one line for each mistake."""

import types
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, Union, final, get_args, get_origin

import rich_click as click
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from optim_family.errors import invalid_field

_SIGNS: Final = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
_METAVARS: Final[dict[Any, str]] = {int: "INT", float: "FLOAT", str: "TEXT"}


@final
@dataclass(frozen=True)
class Field:
    """One field of a model, its option on the command line, and the help of that option."""

    name: str
    flag: str  # --weight-decay
    default: str  # empty if there is none
    range: str  # > 0, or the choices; empty if every value is allowed
    meaning: str
    kind: Any  # bool, int, float or str
    choices: tuple[str, ...] = ()
    many: bool = False

    def option(self, parameter: str, panel: str) -> click.RichOption:
        """The click option; its value stays text: pydantic reports the mistakes of all fields at once."""
        limits = self.range if self.many or not self.choices else ""
        remarks = "; ".join(filter(None, (limits, self.default and f"default {self.default}")))
        text = f"{self.meaning} ({remarks})" if remarks else self.meaning
        if self.kind is bool:
            flags = f"{self.flag}/--no-{self.flag[2:]}"
            return click.RichOption([flags, parameter], default=None, help=text, panel=panel)
        return click.RichOption(
            [self.flag, parameter],
            metavar=f"[{'|'.join(self.choices)}]" if self.choices and not self.many else _METAVARS[self.kind],
            multiple=self.many,
            shell_complete=lambda ctx, option, start: [c for c in self.choices if c.startswith(start)],
            default=None,
            help=text,
            panel=panel,
        )


def fields(model: type[BaseModel], *, other_flags: Collection[str] = (), prefix: str = "") -> list[Field]:
    """The fields of a model, in order; one of `other_flags` carries the prefix: `--rmsprop-norm`."""
    result = []
    for name, info in model.model_fields.items():
        flag = "--view" if name == "views" else f"--{name.replace('_', '-')}"
        flag = f"--{prefix}-{flag[2:]}" if flag in other_flags else flag
        kind, choices, many = _kind(info.annotation)
        limits = ", ".join(choices or _limits(info))
        result.append(Field(name, flag, _default(info), limits, info.description or "", kind, choices, many))
    return result


def mistakes(error: ValidationError, known: Iterable[Field]) -> Iterator[str]:
    """One line for each mistake: the option, the rule, what it got."""
    flags = {field.name: field.flag for field in known}
    for detail in error.errors(include_url=False):
        yield invalid_field(detail, flags.get(str(detail["loc"][0]), "") if detail["loc"] else "")


def _kind(annotation: Any) -> tuple[Any, tuple[str, ...], bool]:
    """The type of one value, its choices, and whether the option may be repeated."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return _kind(next(each for each in arguments if each is not types.NoneType))
    if origin is Literal:
        return str, tuple(map(str, arguments)), False
    if origin is tuple:
        return *_kind(arguments[0])[:2], True
    return annotation if annotation in (bool, *_METAVARS) else str, (), False


def _default(info: FieldInfo) -> str:
    if info.is_required() or info.default is None:
        return ""
    if isinstance(info.default, bool):
        return "yes" if info.default else "no"
    return format(info.default, "g" if isinstance(info.default, float) else "")


def _limits(info: FieldInfo) -> list[str]:
    return [
        f"{sign} {getattr(rule, name)}"
        for rule in info.metadata
        for name, sign in _SIGNS.items()
        if getattr(rule, name, None) is not None
    ]
