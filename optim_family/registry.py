"""Plugins by name: listing reads entry points and imports nothing; loading imports one plugin."""

import configparser
import functools
import inspect
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

from optim_family import __version__
from optim_family.errors import OptimFamilyError, PluginError, UsageError, one_line, unknown
from optim_family.resources import EXTERNAL_PACKAGES, external_name, version

if TYPE_CHECKING:
    from optim_family.optimizers.base import OptimizerBase

GROUP: Final = "optim_family.optimizers"
MODELS: Final = "optim_family.models"
DATA: Final = "optim_family.data"
_KINDS: Final = {GROUP: "optimizer", MODELS: "model", DATA: "data set"}
_INSTALL: Final = "your own must be installed in this environment: pip install --editable FOLDER"
_THIS_DISTRIBUTION: Final = "optim-family"
_EXTERNAL: Final = "optim_family.optimizers.external.wrapper:wrap_external"


@final
@dataclass(frozen=True)
class PluginEntry:
    """One registered name, and the distribution that registers it."""

    name: str
    target: str  # module:Class
    distribution: str
    version: str
    conflicting: tuple[str, ...] = ()  # all sources of the name, if there are several
    kind: str = "optimizer"

    @property
    def source(self) -> str:
        """The distribution and its version: `optim-family 0.1.0`."""
        return f"{self.distribution} {self.version}".strip()

    @property
    def built_in(self) -> bool:
        """Whether this distribution registers the name."""
        return self.distribution == _THIS_DISTRIBUTION


Entry = PluginEntry  # former name


def entries(group: str = GROUP) -> dict[str, PluginEntry]:
    """Name → entry, sorted by name; a name of several distributions lists them as `conflicting`."""
    installed = {_entry(point) for point in entry_points(group=group)}
    if not any(entry.built_in for entry in installed):
        installed |= set(_checkout(group))
    by_name: dict[str, list[PluginEntry]] = {}
    for entry in sorted(installed, key=lambda entry: (entry.name, entry.source, entry.target)):
        by_name.setdefault(entry.name, []).append(entry)
    return {
        name: replace(first, conflicting=tuple(each.source for each in (first, *others)) if others else ())
        for name, (first, *others) in by_name.items()
    }


def entry(name: str) -> PluginEntry:
    """The entry of an optimizer, including those of torch, timm and the other external packages.

    Raises:
        UsageError: no optimizer has this name.
    """
    prefix = name.partition(":")[0]
    if prefix in EXTERNAL_PACKAGES and prefix != name:
        distribution = EXTERNAL_PACKAGES[prefix].distribution
        return PluginEntry(name, _EXTERNAL, distribution, version(distribution) or "")
    known = entries()
    if prefix != name and prefix in known:
        return replace(known[prefix], name=name)
    if name not in known:
        everything = [*known, *(f"{prefix}:NAME" for prefix in EXTERNAL_PACKAGES)]
        near = name.lower() if name.lower() in known else external_name(name)
        raise UsageError(f"{unknown('optimizer', name, everything, near=near)}; {_INSTALL}")
    return known[name]


@functools.cache
def load(name: str) -> "type[OptimizerBase]":
    """Import the optimizer of this name, once a process, and nothing else.

    Raises:
        UsageError: no optimizer has this name.
        PluginError: two distributions register it, it cannot be imported, or it is no concrete
            subclass of `OptimizerBase`.
    """
    plugin = entry(name)
    target = _registered_object(plugin)
    if plugin.target == _EXTERNAL:
        target = target(name)
    target = _around(target, plugin)
    from optim_family.optimizers.base import OptimizerBase

    if not (isinstance(target, type) and issubclass(target, OptimizerBase)):
        raise named_error(
            plugin, f"is not a subclass of optim_family.FamilyOptimizer or OptimizerBase: {plugin.target}"
        )
    if inspect.isabstract(target):
        missing = ", ".join(sorted(target.__abstractmethods__))
        raise named_error(plugin, f"does not define {missing}, which every family optimizer must")
    return target


def _around(target: Any, plugin: PluginEntry) -> Any:
    """The optimizer `sam:gd` from the class of `sam`, whose `around` takes the class of `gd`."""
    _, colon, inner = plugin.name.partition(":")
    around = getattr(target, "around", None)
    if around is None:
        if colon and plugin.target != _EXTERNAL:
            raise UsageError(f"{plugin.name}: this optimizer goes around no other one; write its name alone")
        return target
    from optim_family.optimizers.base import FamilyOptimizer

    inner_class = load(inner or target.default_inner)
    if not issubclass(inner_class, FamilyOptimizer) or inner_class.needs_closure:
        raise UsageError(
            f"{plugin.name}: the inner optimizer must move one tensor at a time with one gradient a step, as "
            f"gd does; {inner} does not"
        )
    wrapped = around(inner_class)
    wrapped.__name__ = wrapped.__qualname__ = plugin.name
    wrapped.__doc__ = target.__doc__
    return wrapped


def load_plugin(group: str, name: str) -> tuple[PluginEntry, Any]:
    """The entry of a model or data set, and the object it registers; `entries(group)` has the name.

    Raises:
        PluginError: two distributions register the name, or it cannot be imported.
    """
    plugin = entries(group)[name]
    return plugin, _registered_object(plugin)


def _entry(point: EntryPoint) -> PluginEntry:
    owner = ("unknown distribution", "")
    if point.dist is not None:
        owner = point.dist.name.lower().replace("_", "-"), point.dist.version
    return PluginEntry(point.name, point.value, *owner, kind=_KINDS[point.group])


def _checkout(group: str) -> Iterable[PluginEntry]:
    """This project's entry points from setup.cfg, for a checkout that is not installed."""
    config = configparser.ConfigParser()
    config.read(Path(__file__).resolve().parent.parent / "setup.cfg", encoding="utf-8")
    lines = config.get("options.entry_points", group, fallback="").strip().splitlines()
    for name, _, target in (line.partition("=") for line in lines):
        yield PluginEntry(name.strip(), target.strip(), _THIS_DISTRIBUTION, __version__)


def _registered_object(entry: PluginEntry) -> Any:
    """Import the registered object, if no other distribution registers the name."""
    if entry.conflicting:
        conflicting = " and by ".join(entry.conflicting)
        raise PluginError(
            f"{entry.kind} {entry.name!r} is registered by {conflicting}; uninstall one of them"
        )
    with plugin_errors(entry, "cannot be imported"):
        return EntryPoint(entry.name, entry.target, entry.kind).load()


@contextmanager
def plugin_errors(plugin: PluginEntry | str, action: str) -> Iterator[None]:
    """Turn an exception of a plugin into a PluginError that names it; send its output to stderr.

    Args:
        plugin: its entry, or the name of an optimizer.
        action: what happened, `failed in step()` or `cannot be imported`.

    Raises:
        PluginError: the plugin raised anything but an error of this package or out of memory.
    """
    try:
        with redirect_stdout(sys.stderr):
            yield
    except (OptimFamilyError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, RuntimeError):
            from optim_family.curvature.memory import out_of_memory

            if out_of_memory(error):
                raise
        owner = entry(plugin) if isinstance(plugin, str) else plugin
        raise named_error(owner, f"{action}: {type(error).__name__}: {one_line(error)}") from error


def named_error(entry: PluginEntry, reason: str) -> PluginError:
    """An error that names plugin, distribution and version."""
    return PluginError(f"{entry.kind} {entry.name!r} of {entry.source} {reason}")
