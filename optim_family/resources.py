"""Installed versions, the limit of threads, and the TOML files of models and studies."""

import importlib.util
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Literal, final

from optim_family.errors import OptimFamilyError, UsageError


@final
@dataclass(frozen=True)
class ExternalPackage:
    """A package whose optimizers are available as PREFIX:NAME.

    Attributes:
        distribution: its name for pip.
        module: its name in Python.
        files: a glob of the sources of the optimizer NAME; {} stands for NAME in small letters.
        extra: of this project that installs it; empty if it is always installed.
        small: whether its names have small letters, as those of timm's registry.
    """

    distribution: str
    module: str
    files: str
    extra: str = ""
    small: bool = False


EXTERNAL_PACKAGES: Final[Mapping[str, ExternalPackage]] = {
    "torch": ExternalPackage("torch", "torch", "optim/*{}.py"),
    "timm": ExternalPackage("timm", "timm", "optim/{}.py", small=True),
    "schedulefree": ExternalPackage("schedulefree", "schedulefree", "*.py", extra="schedulefree"),
    "kozistr": ExternalPackage(
        "pytorch-optimizer", "pytorch_optimizer", "optimizer/**/*.py", extra="kozistr"
    ),
}


def external_name(name: str) -> str | None:
    """`torch:Adam` for `adam`, `timm:lamb` for `Lamb`; None if no package has an optimizer of this name.

    Reads sources and imports nothing.
    """
    if not name.isidentifier():
        return None
    for prefix, package in EXTERNAL_PACKAGES.items():
        files = package.files.format(name.lower())
        for class_name in defined_names(package.module, files, r"^class (\w+)\([\w.]*(?:Optimizer|SGD)\b"):
            if class_name.lower() == name.lower():
                return f"{prefix}:{class_name.lower() if package.small else class_name}"
    return None


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


def thread_limit() -> int | None:
    """OMP_NUM_THREADS; None if it is not set to a number."""
    setting = os.environ.get("OMP_NUM_THREADS", "")
    return int(setting) or None if setting.isdecimal() else None
