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
_RENAMED: Final = {"views": "--view"}


@final
@dataclass(frozen=True)
class Field:
    """One field of a model: its option on the command line, and what `--help` says of it."""

    name: str
    flag: str  # --weight-decay
    default: str  # empty if there is none to tell
    range: str  # > 0, or the words to choose from; empty if everything is allowed
    meaning: str
    kind: Any  # bool, int, float or str
    choices: tuple[str, ...] = ()
    many: bool = False

    def option(self, parameter: str, panel: str) -> click.RichOption:
        """As click has it; a value stays text, for pydantic to judge all of them at once."""
        given: dict[str, Any] = {"default": None, "help": self._help, "panel": panel}
        if self.kind is bool:
            return click.RichOption([f"{self.flag}/--no-{self.flag[2:]}", parameter], **given)
        metavar = f"[{'|'.join(self.choices)}]" if self.choices and not self.many else _METAVARS[self.kind]
        return click.RichOption(
            [self.flag, parameter],
            metavar=metavar,
            multiple=self.many,
            shell_complete=lambda ctx, option, start: [c for c in self.choices if c.startswith(start)],
            **given,
        )

    @property
    def _help(self) -> str:
        limits = self.range if self.many or not self.choices else ""
        default = f"default {self.default}" if self.default else ""
        remarks = "; ".join(filter(None, (limits, default)))
        return f"{self.meaning} ({remarks})" if remarks else self.meaning


def fields(model: type[BaseModel], *, taken: Collection[str] = (), prefix: str = "") -> list[Field]:
    """The fields of a model, in order; a flag that is `taken` carries the prefix: `--rmsprop-norm`."""
    found = []
    for name, info in model.model_fields.items():
        flag = _RENAMED.get(name, f"--{name.replace('_', '-')}")
        found.append(_field(name, f"--{prefix}-{flag[2:]}" if flag in taken else flag, info))
    return found


def mistakes(error: ValidationError, known: Iterable[Field]) -> Iterator[str]:
    """One line for each mistake: the option, the rule, what it got."""
    by_name = {field.name: field for field in known}
    for detail in error.errors(include_url=False):
        field = by_name.get(str(detail["loc"][0])) if detail["loc"] else None
        yield invalid_field(detail, field.flag if field else "")


def _field(name: str, flag: str, info: FieldInfo) -> Field:
    kind, choices, many = _kind(info.annotation)
    return Field(
        name=name,
        flag=flag,
        default=_default(info),
        range=", ".join(choices or _limits(info)),
        meaning=info.description or "",
        kind=kind,
        choices=choices,
        many=many,
    )


def _kind(annotation: Any) -> tuple[Any, tuple[str, ...], bool]:
    """What one value is, the words it is chosen from, and whether there may be several."""
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
