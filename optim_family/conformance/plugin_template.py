"""Write a distribution with one optimizer from `templates/plugin`, as a start for its author.

Names and texts of the template contain the placeholders NAME, PACKAGE (the importable name) and CLASS.
"""

import re
from pathlib import Path
from typing import Final

from optim_family.errors import UsageError

_TEMPLATE: Final = Path(__file__).parent / "templates" / "plugin"
_NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def write(name: str, folder: Path) -> list[Path]:
    """Write the distribution NAME into a new folder.

    Args:
        name: lower-case words joined by hyphens, as `my-lion`.
        folder: which must not exist yet, or be empty.

    Returns:
        The files.

    Raises:
        UsageError: the name is invalid, or the folder is not empty or cannot be made.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot be a name; use lower-case words joined by hyphens, as my-lion")
    words = {"NAME": name, "PACKAGE": name.replace("-", "_") + "_optimizer"}
    words["CLASS"] = "".join(word.capitalize() for word in name.split("-"))
    sources = sorted(path for path in _TEMPLATE.rglob("*") if path.is_file())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UsageError(f"{folder} is not empty; choose another folder with --out")
        return [_write_file(path, folder, words) for path in sources]
    except OSError as error:
        raise UsageError(
            f"{error.filename} cannot be written ({error.strerror}); choose another folder with --out"
        ) from error


def _write_file(source: Path, folder: Path, words: dict[str, str]) -> Path:
    """Write one file; the suffix .txt keeps Python files of the template out of this package."""
    path = folder / _fill(str(source.relative_to(_TEMPLATE)).removesuffix(".txt"), words)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_fill(source.read_text(encoding="utf-8"), words), encoding="utf-8")
    return path


def _fill(text: str, words: dict[str, str]) -> str:
    return re.sub("NAME|PACKAGE|CLASS", lambda match: words[match[0]], text)
