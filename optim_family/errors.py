"""Errors, one class for each exit code, and their messages in one line; the exit code of a diverged run."""

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final

DIVERGED: Final = (
    3  # exit code of a run whose loss or gradient is not finite; its result is kept, so no error
)


class OptimFamilyError(Exception):
    """A failure that one line explains; `exit_code` is the exit code of the command line."""

    exit_code: ClassVar[int] = 1


class UsageError(OptimFamilyError):
    """The request is invalid."""

    exit_code = 2


class UsageErrors(UsageError):
    """Several mistakes in one request: the message has a line for each."""


class BusyError(OptimFamilyError):
    """Another process is writing to the run directory."""

    exit_code = 4


class CorruptError(OptimFamilyError):
    """A store, a checkpoint or a data file is damaged."""

    exit_code = 5


class PluginError(OptimFamilyError):
    """A plugin could not be imported, or broke its contract."""

    exit_code = 6


class UnreliableReading(OptimFamilyError, ValueError):
    """A reading that would be wrong, refused."""

    exit_code = 7


class Stopped(OptimFamilyError):
    """A signal asked the run to stop; a checkpoint is left behind."""

    exit_code = 75


class Interrupted(Stopped):
    """Stopped by Ctrl-C."""

    exit_code = 130


def one_line(error: object) -> str:
    """The message of an exception in one line; its class if the message is empty."""
    return " ".join(str(error).split()) or type(error).__name__


def first_three(names: Iterable[str]) -> str:
    """The first three names, and how many more there are: `a, b, c, …(+2)`."""
    listed = list(names)
    return ", ".join(listed[:3]) + (f", …(+{len(listed) - 3})" if len(listed) > 3 else "")


def unknown(kind: str, name: str, known: Iterable[str], near: str | None = None) -> str:
    """One line for a name that does not exist: the name, the nearest known name, all known names.

    Args:
        kind: the noun for what the name denotes.
        name: as the user wrote it.
        known: all names.
        near: a name that is meant more probably than the nearest one by spelling.

    >>> unknown("optimizer", "rmsprob", ["gd", "rmsprop"])
    "there is no optimizer 'rmsprob'; did you mean 'rmsprop'? Known: gd, rmsprop"
    >>> unknown("optimizer", "x", ["gd", "rmsprop"])
    "there is no optimizer 'x'; known: gd, rmsprop"
    """
    names = list(known)
    near = near or next(iter(difflib.get_close_matches(name, names, n=1)), None)
    hint = f"did you mean {near!r}? Known" if near else "known"
    return f"there is no {kind} {name!r}; {hint}: {', '.join(names) or 'none'}"


def invalid_field(detail: Mapping[str, Any], field: str) -> str:
    """One line for one entry of a pydantic error: the field, the rule, what it got.

    Args:
        detail: an element of `ValidationError.errors()`.
        field: the field as the user writes it, `--lr`; empty for a rule about several fields.

    >>> invalid_field({"type": "greater_than", "msg": "Input should be greater than 0", "input": -1}, "--lr")
    '--lr: it must be greater than 0, not -1'
    """
    message = detail["msg"].removeprefix("Value error, ").partition(", unable to parse")[0]
    if not field:
        return str(message)
    if detail["type"] == "literal_error":
        choices = re.findall(r"'([^']*)'", detail["ctx"]["expected"])
        return unknown(field.removeprefix("--"), str(detail["input"]), choices)
    message = message.replace("Input should", "it must", 1)
    got = "" if detail["type"] == "missing" else f", not {detail['input']}"
    return f"{field}: {message[:1].lower()}{message[1:]}{got}"


def invalid_fields(details: Iterable[Mapping[str, Any]], known: Iterable[str]) -> str:
    """One line for the mistakes of keywords in Python.

    Args:
        details: `ValidationError.errors()`.
        known: the names of all hyper-parameters.

    >>> extra = {"type": "extra_forbidden", "loc": ("lrr",), "msg": "Extra inputs are not permitted"}
    >>> invalid_fields([extra], ["lr", "weight_decay"])
    "there is no hyper-parameter 'lrr'; did you mean 'lr'? Known: lr, weight_decay"
    """
    names = list(known)
    return "; ".join(
        unknown("hyper-parameter", str(detail["loc"][0]), names)
        if detail["type"] == "extra_forbidden"
        else invalid_field(detail, ".".join(map(str, detail["loc"])))
        for detail in details
    )


def json_or_text(text: str) -> Any:
    """A JSON value, or the text itself if it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def key_value(setting: str, subject: str) -> tuple[str, str]:
    """Split `KEY=VALUE`; spaces around both are dropped.

    Raises:
        UsageError: the setting has another form; the message begins with the subject, `--set`.
    """
    key, _, value = (part.strip() for part in setting.partition("="))
    if not (key and value):
        raise UsageError(f"{subject} {setting}: write KEY=VALUE")
    return key, value
