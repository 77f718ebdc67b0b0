"""The names of all models as SOURCE/NAME, and which of them a command selects.

A source is imported when its names are needed, since that takes seconds.
"""

import difflib
import importlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, Protocol, cast, final

from optim_family.errors import UsageError, unknown

if TYPE_CHECKING:
    from optim_family.networks.families.example import Example

# Sources, which are modules of this package, and the package that each needs.
PACKAGES: Final = {
    "torch": "torch",
    "transformers": "transformers",
    "timm": "timm",
    "torchvision": "torchvision",
    "detection": "torchvision",
}
_LIST: Final = "`optim-family models check --sweep --dry-run` lists the models"


class Source(Protocol):
    """What a module of this package has."""

    def names(self) -> list[str]:
        """The models of the sweep."""

    def all_names(self) -> list[str]:
        """All models that `build` knows."""

    def build(self, name: str) -> "Example":
        """A model, its loss and a batch."""


@final
@dataclass(frozen=True)
class Selection:
    """The models that a command selects.

    Attributes:
        models: as SOURCE/NAME, in the order of the sweep or of the request.
        missing: packages that their sources need and that are not installed.
    """

    models: list[str]
    missing: list[str]


def build(model: str) -> "Example":
    """Build SOURCE/NAME; its random numbers are those of torch's global generator."""
    source, _, name = model.partition("/")
    return _load(source).build(name)


def select(patterns: Sequence[str], on_search: Callable[[str], object]) -> Selection:
    """The models of the sweep that match a pattern, and those that are named in full, of the sweep or not.

    Args:
        patterns: SOURCE/NAME, or with the wildcards `*`, `?` and `[…]`; all models of the sweep if empty.
        on_search: called with a line before a source is listed, which takes a minute for timm.

    Raises:
        UsageError: nothing has such a name; says the nearest ones.
    """

    @cache
    def lists(source: str) -> list[str]:
        on_search(f"{source}: listing its models …")
        return _labels(source, _load(source).names())

    models, missing = dict[str, None](), dict[str, None]()
    for pattern in patterns or ["*"]:
        sources = _sources(pattern)
        present = [source for source in sources if is_installed(source)]
        missing |= dict.fromkeys(PACKAGES[source] for source in sources if source not in present)
        if sources and not present:
            continue
        if not _is_wild(pattern):
            models[_named_in_full(pattern, present)] = None
            continue
        full = pattern if "/" in pattern else f"*/{pattern}"
        matches = [each for s in present for each in lists(s) if fnmatchcase(each, full)]
        if not matches and present == sources:
            raise UsageError(f"no model of the sweep matches {pattern!r}; {_LIST}")
        models |= dict.fromkeys(matches)
    return Selection(list(models), list(missing))


def is_installed(source: str) -> bool:
    """Whether the package of a source is installed, without importing it."""
    return find_spec(PACKAGES[source]) is not None


def _labels(source: str, names: Iterable[str]) -> list[str]:
    """SOURCE/NAME of each name."""
    return [f"{source}/{name}" for name in names]


def _sources(pattern: str) -> list[str]:
    """The sources that a pattern may match."""
    head, slash, _ = pattern.partition("/")
    if not slash:
        return list(PACKAGES)
    sources = [source for source in PACKAGES if fnmatchcase(source, head)]
    if not sources and not _is_wild(head):
        raise UsageError(unknown("source of models", head, PACKAGES))
    return sources


def _is_wild(pattern: str) -> bool:
    return any(character in pattern for character in "*?[")


def _named_in_full(model: str, sources: Sequence[str]) -> str:
    known = [each for source in sources for each in _labels(source, _load(source).all_names())]
    if model in known:
        return model
    near = difflib.get_close_matches(model, known, n=3)
    hint = f"the nearest are {', '.join(near)}; " if near else ""
    raise UsageError(f"there is no model {model!r}; {hint}{_LIST}")


def _load(source: str) -> Source:
    return cast(Source, importlib.import_module(f"optim_family.networks.families.{source}"))
