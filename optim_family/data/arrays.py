"""Read and validate a data set as arrays: images as bytes, channels first, labels from 0."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, final

import numpy as np
import numpy.typing as npt

from optim_family.errors import CorruptError, UsageError, one_line
from optim_family.registry import DATA, load_plugin, plugin_errors

_NAMES = ("x_train", "y_train", "x_test", "y_test")
_MOST_CHANNELS = 4

Pairs = Mapping[str, tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]]


@final
@dataclass(frozen=True, eq=False)
class Arrays:
    """Images x uint8 [n, c, h, w] and labels y int64 [n] in 0 … len(class_names) − 1.

    Attributes:
        further_tests: name → images and labels of another test set.
    """

    x_train: npt.NDArray[np.uint8]
    y_train: npt.NDArray[np.int64]
    x_test: npt.NDArray[np.uint8]
    y_test: npt.NDArray[np.int64]
    class_names: tuple[str, ...]
    further_tests: Pairs = field(default_factory=dict)


def digits() -> Arrays:
    """The 1,797 handwritten digits of scikit-learn, 8×8, of which 360 (36 ± 1 of each) are for testing."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    x = np.rint(bunch.images[:, None] * (255 / 16)).astype(np.uint8)  # 0 … 16 → 0 … 255
    y = bunch.target.astype(np.int64)
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=360, stratify=y, random_state=0)
    return Arrays(x_train, y_train, x_test, y_test, tuple(map(str, range(10))))


def npz(path: Path) -> Arrays:
    """Read an .npz file with the arrays of `validate_arrays`, without pickle.

    Raises:
        UsageError: there is no such file.
        CorruptError: it is no such archive, or its arrays are inconsistent.
    """
    require_file(path)
    with path.open("rb") as file:  # numpy leaves a damaged file open
        archive = _archive(path, file)
        if missing := [name for name in _NAMES if name not in archive]:
            present = ", ".join(archive) or "nothing"
            raise CorruptError(f"{path} has no {', '.join(missing)}; it holds {present}")
        further = [name for name in archive if name.startswith(("x_test_", "y_test_"))]
        arrays = {name: _member(path, archive, name) for name in (*_NAMES, *further)}
    return validate_arrays(str(path), arrays)


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
        raise CorruptError(f"{path} holds a single array; an .npz file with {', '.join(_NAMES)} is needed")
    return archive


def _member(path: Path, archive: Mapping[str, Any], name: str) -> npt.NDArray[Any]:
    try:
        array = archive[name]
    except Exception as error:
        raise CorruptError(f"{path}: {name} cannot be read: {one_line(error)}") from error
    if not isinstance(array, np.ndarray):  # a zip member of that name in another format
        raise CorruptError(f"{path}: {name} is not an array; write the file with numpy.savez")
    return array


def validate_arrays(
    source: str, arrays: Mapping[str, npt.NDArray[Any]], class_names: tuple[str, ...] | None = None
) -> Arrays:
    """Validate arrays, and bring them to one form.

    Args:
        source: their name in an error.
        arrays: x_train, x_test uint8 [n, h, w, c], [n, c, h, w] (c ≤ 4) or [n, h, w]; y_train, y_test integer
            [n]; x_test_NAME, y_test_NAME likewise, for each further test set.
        class_names: one for each label; if None, the labels of y_train, which must be 0 … classes − 1.

    Raises:
        CorruptError: a shape, a type, a count or a label is wrong.
    """
    parts = sorted({name[2:] for name in arrays}, key=lambda part: (part != "train", part))
    if missing := [f"{axis}_{part}" for part in parts for axis in "xy" if f"{axis}_{part}" not in arrays]:
        raise CorruptError(f"{source} has no {', '.join(missing)}")
    x = {part: _images(source, f"x_{part}", arrays[f"x_{part}"]) for part in parts}
    labels = {part: _labels(source, f"y_{part}", arrays[f"y_{part}"]) for part in parts}
    for part in parts:
        if len(x[part]) != len(labels[part]):
            counts = f"x_{part} has {len(x[part])} images and y_{part} {len(labels[part])} labels"
            raise CorruptError(f"{source}: {counts}")
        if x[part].shape[1:] != x["train"].shape[1:]:
            shapes = f"{list(x['train'].shape)} for training and {list(x[part].shape)} for testing"
            raise CorruptError(f"{source}: images are {shapes}; they must be of one size")
    if class_names is None:
        class_names = tuple(map(str, range(_count_classes(source, labels["train"]))))
    for part, y in labels.items():
        if outside := sorted({int(label) for label in np.unique(y)} - set(range(len(class_names)))):
            raise CorruptError(
                f"{source}: y_{part} holds the label {outside[0]}; y_train has 0 … {len(class_names) - 1}"
            )
    pairs = {part: (x[part], labels[part].astype(np.int64)) for part in parts}
    further = {part.removeprefix("test_"): pairs[part] for part in parts if part.startswith("test_")}
    return Arrays(*pairs["train"], *pairs["test"], class_names, further)


def _images(source: str, name: str, x: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """[n, h, w], [n, h, w, c] or [n, c, h, w] → [n, c, h, w], a view."""
    if x.dtype != np.uint8:
        raise CorruptError(f"{source}: {name} is {x.dtype}; images must be uint8, 0 … 255")
    if x.ndim not in (3, 4) or 0 in x.shape:
        raise CorruptError(
            f"{source}: {name} is {list(x.shape)}; images must be [n, h, w, c], [n, c, h, w] or [n, h, w]"
        )
    if x.ndim == 3:
        return x[:, None]
    first, last = x.shape[1] <= _MOST_CHANNELS, x.shape[3] <= _MOST_CHANNELS
    if first == last:
        which = "either axis could be" if first else "neither axis can be"
        raise CorruptError(f"{source}: {name} is {list(x.shape)}; {which} the channels, 1 to 4 of them")
    return x if first else x.transpose(0, 3, 1, 2)


def _labels(source: str, name: str, y: npt.NDArray[Any]) -> npt.NDArray[np.integer[Any]]:
    if y.dtype.kind not in "iu":
        raise CorruptError(f"{source}: {name} is {y.dtype}; labels must be integers")
    if y.ndim != 1:
        raise CorruptError(f"{source}: {name} is {list(y.shape)}; labels must be [n]")
    return y


def _count_classes(source: str, y_train: npt.NDArray[np.integer[Any]]) -> int:
    labels = {int(label) for label in np.unique(y_train)}
    needed = set(range(len(labels)))
    if beyond := sorted(labels - needed):
        raise CorruptError(
            f"{source}: y_train has the label {beyond[0]} but not {min(needed - labels)}; "
            "labels must be 0 … classes − 1, without a gap"
        )
    if len(labels) < 2:
        raise CorruptError(f"{source}: y_train has a single class; two are needed")
    return len(labels)


def digest(class_names: tuple[str, ...], *arrays: npt.NDArray[np.generic]) -> str:
    """SHA-256 of class names, shapes and values."""
    sha256 = hashlib.sha256(json.dumps([class_names, [a.shape for a in arrays]]).encode())
    for array in arrays:
        sha256.update(array.ravel().data)
    return sha256.hexdigest()


def plugin_arrays(name: str) -> Arrays:
    """The images and labels that a plugin loads.

    Raises:
        PluginError: it fails, or an array is missing.
        CorruptError: a shape, a type, a count or a label is wrong.
    """
    entry, load = load_plugin(DATA, name)
    with plugin_errors(entry, "cannot be loaded"):
        data = dict(load())
        names, arrays = data.pop("class_names", None), {key: data[key] for key in _NAMES}
    return validate_arrays(f"{name} of {entry.source}", arrays, names and tuple(map(str, names)))
