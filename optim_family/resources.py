"""Installed versions, and the folders of model cards and studies, inside the package or next to it."""

from importlib import metadata
from pathlib import Path
from typing import Literal

from optim_family.errors import OptimFamilyError


def version(distribution: str) -> str | None:
    """The version of an installed distribution; None if it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


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
