"""Read the arrays of a data set from an .npz file, without pickle."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from optim_family.data.arrays import NAMES, Arrays, Images, layout, validate_arrays
from optim_family.errors import CorruptError, UsageError, one_line


def npz(path: Path) -> Arrays:
    """Read an .npz file with the arrays of `validate_arrays`, without pickle.

    Raises:
        UsageError: there is no such file.
        CorruptError: it is no such archive, or its arrays are inconsistent.
    """
    require_file(path)
    with path.open("rb") as file:  # numpy leaves a damaged file open
        archive = _archive(path, file)
        if missing := [name for name in NAMES if name not in archive]:
            present = ", ".join(archive) or "nothing"
            raise CorruptError(f"{path} has no {', '.join(missing)}; it holds {present}")
        further = [name for name in archive if name.startswith(("x_test_", "y_test_"))]
        arrays = {name: _member(path, archive, name) for name in (*NAMES, *further)}
    checked = validate_arrays(str(path), arrays)
    return replace(checked, notice=_notice(path, arrays["x_train"], checked.x_train))


def _notice(path: Path, stored: npt.NDArray[Any], images: Images) -> str:
    """Layout, type and range of the training images, as they were read."""
    size = "×".join(map(str, (*images.shape[2:], images.shape[1])))
    kind = stored.dtype.name + (", used without a division by 255" if stored.dtype.kind == "f" else "")
    return (
        f"{path}: images {layout(stored)} of {size} from {images.min():.4g} to {images.max():.4g}, "
        f"{kind}; each channel is brought to mean 0 and deviation 1"
    )


def require_file(path: Path) -> None:
    """Check that `path` is a file that is not empty.

    Raises:
        UsageError: there is no such file, or it cannot be opened.
        CorruptError: it is empty.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder, not a file; folder:{path} reads a folder of images")
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise UsageError(f"{path} cannot be opened: {error.strerror}") from error
    if empty:
        raise CorruptError(f"{path} is empty (0 bytes)")


def _archive(path: Path, file: BinaryIO) -> Mapping[str, Any]:
    try:
        archive = np.load(file, allow_pickle=False)
    except Exception as error:  # a damaged file raises many types: zip, zlib, headers
        raise CorruptError(f"{path} is not a whole .npz file; write it again with numpy.savez") from error
    if not isinstance(archive, Mapping):
        raise CorruptError(f"{path} holds a single array; an .npz file with {', '.join(NAMES)} is needed")
    return archive


def _member(path: Path, archive: Mapping[str, Any], name: str) -> npt.NDArray[Any]:
    try:
        array = archive[name]
    except Exception as error:
        if "allow_pickle" in str(error):
            raise CorruptError(
                f"{path}: {name} holds Python objects; an array of numbers is needed"
            ) from error
        raise CorruptError(f"{path}: {name} cannot be read: {one_line(error)}") from error
    if not isinstance(array, np.ndarray):  # a zip member of that name in another format
        raise CorruptError(f"{path}: {name} is not an array; write the file with numpy.savez")
    return array
