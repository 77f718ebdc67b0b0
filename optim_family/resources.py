"""Installed versions, and the TOML files of models and studies, inside the package or next to it."""

import importlib.util
import re
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from optim_family.errors import OptimFamilyError, UsageError


def version(distribution: str) -> str | None:
    """The version of an installed distribution; None if it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def defined_names(package: str, files: str, pattern: str) -> list[str]:
    """The names that the sources of an installed package define, read without importing it.

    Args:
        package: at the top level, `timm`.
        files: a glob inside the package, `models/*.py`.
        pattern: a regular expression whose group is the name, for whole files.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return []
    sources = (path.read_text(encoding="utf-8") for path in sorted(Path(spec.origin).parent.glob(files)))
    return [name for source in sources for name in re.findall(pattern, source, re.MULTILINE)]


def folder(kind: Literal["models", "studies"]) -> Path:
    """The folder that holds the packaged TOML files of one kind.

    Raises:
        OptimFamilyError: neither place exists; the installation is incomplete.
    """
    package = Path(__file__).parent
    places = package / kind, package.parent / kind, package.resolve().parent / kind
    existing = next((place for place in places if place.is_dir()), None)
    if existing is None:
        raise OptimFamilyError(f"{kind}/ is neither in {package} nor next to it; install optim-family again")
    return existing


def toml_names(kind: Literal["models", "studies"]) -> list[str]:
    """The names of the packaged TOML files of one kind, sorted."""
    return sorted(path.stem for path in folder(kind).glob("*.toml"))


def read_toml(path: Path, subject: str) -> tuple[dict[str, Any], str]:
    """Read a TOML file; return its table and its text.

    Raises:
        UsageError: it cannot be read, or is not TOML; the message begins with the subject and the path.
    """
    try:
        text = path.read_text(encoding="utf-8")
        return tomllib.loads(text), text
    except OSError as error:
        raise UsageError(f"{subject} {path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # of syntax, UTF-8, enormous numbers and nesting
        raise UsageError(f"{subject} {path} is not valid TOML: {error}") from None
