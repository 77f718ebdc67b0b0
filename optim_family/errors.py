"""What can go wrong, one class for each exit code, and how it is said in one line."""

import difflib
from collections.abc import Iterable
from typing import ClassVar


class OptimFamilyError(Exception):
    """A failure that one line explains; `exit_code` is what the command line answers with."""

    exit_code: ClassVar[int] = 1


class UsageError(OptimFamilyError):
    """The request cannot be carried out as it was written."""

    exit_code = 2


class BusyError(OptimFamilyError):
    """Another process is writing to the run directory."""

    exit_code = 4


class CorruptError(OptimFamilyError):
    """A store, a checkpoint or a data file is not what it should be."""

    exit_code = 5


class PluginError(OptimFamilyError):
    """A plugin could not be imported, or broke its contract."""

    exit_code = 6


class Stopped(OptimFamilyError):
    """A signal asked the run to stop; a checkpoint is left behind."""

    exit_code = 75


class Interrupted(Stopped):
    """Stopped by Ctrl-C."""

    exit_code = 130


def one_line(error: object) -> str:
    """What an exception says, in one line; its class where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """One line for a name that does not exist: what it was, the nearest name, the whole list.

    >>> unknown("optimizer", "rmsprob", ["gd", "rmsprop"])
    "there is no optimizer 'rmsprob'; did you mean 'rmsprop'? Known: gd, rmsprop"
    >>> unknown("optimizer", "x", ["gd", "rmsprop"])
    "there is no optimizer 'x'; known: gd, rmsprop"
    """
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}? Known" if near else "known"
    return f"there is no {kind} {name!r}; {hint}: {', '.join(names) or 'none'}"
