"""Where the model cards and the studies are: inside an installed package, or beside it in a checkout."""

from pathlib import Path
from typing import Literal

from optim_family.errors import OptimFamilyError


def folder(kind: Literal["models", "studies"]) -> Path:
    """The folder that holds the packaged TOML files of one kind.

    Raises:
        OptimFamilyError: neither place exists; the installation is incomplete.
    """
    package = Path(__file__).parent
    places = package / kind, package.parent / kind, package.resolve().parent / kind
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        raise OptimFamilyError(f"{kind}/ is neither in {package} nor beside it; install optim-family again")
    return found
