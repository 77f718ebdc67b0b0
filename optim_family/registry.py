"""Plugins by name: entry points are read lazily, listing imports nothing, loading imports one."""

import configparser
import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

from optim_family import __version__
from optim_family.errors import OptimFamilyError, PluginError, UsageError, one_line, unknown
from optim_family.resources import version

if TYPE_CHECKING:
    from optim_family.optimizers.base import Member

GROUP: Final = "optim_family.optimizers"
MODELS: Final = "optim_family.models"
DATA: Final = "optim_family.data"
_KINDS: Final = {GROUP: "optimizer", MODELS: "model", DATA: "data set"}
_HERE: Final = "optim-family"
# Packages whose optimizers are members under the name PACKAGE:NAME.
ADOPTED: Final = ("torch", "timm")


@final
@dataclass(frozen=True)
class Entry:
    """One registered name, and who registered it."""

    name: str
    target: str  # module:Class
    distribution: str
    version: str
    rivals: tuple[str, ...] = ()  # all who claim the name, if there is more than one
    kind: str = "optimizer"

    @property
    def source(self) -> str:
        """The distribution and its version: `optim-family 0.1.0`."""
        return f"{self.distribution} {self.version}".strip()


def entries(group: str = GROUP) -> dict[str, Entry]:
    """Name → entry, sorted by name; a name that several distributions claim lists them as `rivals`."""
    installed = {_entry(point) for point in entry_points(group=group)}
    if not any(entry.distribution == _HERE for entry in installed):
        installed |= set(_checkout(group))
    claims: dict[str, list[Entry]] = {}
    for entry in sorted(installed, key=lambda entry: (entry.name, entry.source, entry.target)):
        claims.setdefault(entry.name, []).append(entry)
    return {name: _merged(claimants) for name, claimants in claims.items()}


def entry(name: str) -> Entry:
    """Who provides the optimizer of this name, those of torch and timm included.

    Raises:
        UsageError: no optimizer has this name.
    """
    package = name.partition(":")[0]
    if package in ADOPTED and package != name:
        return Entry(name, "optim_family.optimizers.external.wrapper:adopt", package, version(package) or "")
    known = entries()
    if name not in known:
        raise UsageError(unknown("optimizer", name, [*known, *(f"{package}:NAME" for package in ADOPTED)]))
    return known[name]


def load(name: str) -> "type[Member]":
    """Import the optimizer of this name, and nothing else.

    Raises:
        UsageError: no optimizer has this name.
        PluginError: two distributions claim it, it cannot be imported, or it is no family optimizer.
    """
    found = entry(name)
    if found.distribution in ADOPTED:
        adopt: Callable[[str], type[Member]] = _import(found)
        return adopt(name)
    return _checked(_sole(found), found)


def provided(group: str, name: str) -> tuple[Entry, Any]:
    """What a plugin of another group registers under a name that `entries(group)` has, and who it is.

    Raises:
        PluginError: two distributions claim the name, or it cannot be imported.
    """
    found = entries(group)[name]
    return found, _sole(found)


def _entry(point: EntryPoint) -> Entry:
    who = ("unknown distribution", "")
    if point.dist is not None:
        who = point.dist.name.lower().replace("_", "-"), point.dist.version
    return Entry(point.name, point.value, *who, kind=_KINDS[point.group])


def _checkout(group: str) -> Iterable[Entry]:
    """The entry points of this project from the setup.cfg beside it: it runs where it is not installed."""
    config = configparser.ConfigParser()
    config.read(Path(__file__).resolve().parent.parent / "setup.cfg", encoding="utf-8")
    lines = config.get("options.entry_points", group, fallback="").strip().splitlines()
    for name, _, target in (line.partition("=") for line in lines):
        yield Entry(name.strip(), target.strip(), _HERE, __version__)


def _merged(claimants: list[Entry]) -> Entry:
    first, *others = claimants
    return replace(first, rivals=tuple(each.source for each in claimants)) if others else first


def _sole(entry: Entry) -> Any:
    """What it registers, if nobody else claims the name."""
    if entry.rivals:
        rivals = " and by ".join(entry.rivals)
        raise PluginError(f"{entry.kind} {entry.name!r} is registered by {rivals}; uninstall one of them")
    return _import(entry)


def _import(entry: Entry) -> Any:
    module, _, path = entry.target.partition(":")
    with plugin_errors(entry, "cannot be imported"):
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    return found


def _checked(found: Any, entry: Entry) -> "type[Member]":
    from optim_family.optimizers.base import Member

    if not (isinstance(found, type) and issubclass(found, Member)):
        raise broken(entry, f"is not a subclass of optim_family.FamilyOptimizer or Member: {entry.target}")
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise broken(entry, f"does not define {missing}, which every family optimizer must")
    return found


@contextmanager
def plugin_errors(plugin: Entry | str, action: str) -> Iterator[None]:
    """Turn an exception of a plugin into one that names it; what it prints goes to stderr, not stdout.

    Args:
        plugin: its entry, or the name of an optimizer.
        action: what happened, `failed in step()` or `cannot be imported`.

    Raises:
        PluginError: the plugin raised anything but an error of this package or a lack of memory.
    """
    try:
        with redirect_stdout(sys.stderr):
            yield
    except (OptimFamilyError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, RuntimeError) and _out_of_memory(error):
            raise
        owner = entry(plugin) if isinstance(plugin, str) else plugin
        raise broken(owner, f"{action}: {type(error).__name__}: {one_line(error)}") from error


def _out_of_memory(error: RuntimeError) -> bool:
    from optim_family.curvature.memory import out_of_memory

    return out_of_memory(error)


def broken(entry: Entry, reason: str) -> PluginError:
    """An error that names plugin, distribution and version."""
    return PluginError(f"{entry.kind} {entry.name!r} of {entry.source} {reason}")
