"""Read a data set into arrays, and say in one line what is wrong with one that cannot be read.

Every source ends in `Arrays`: images as bytes, channels first, labels counted from 0.
"""

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
    """What a source holds: x uint8 [n, c, h, w], y int64 [n] in 0 … len(class_names) − 1.

    Attributes:
        further_tests: name → images and labels of a test set that is evaluated next to the first.
    """

    x_train: npt.NDArray[np.uint8]
    y_train: npt.NDArray[np.int64]
    x_test: npt.NDArray[np.uint8]
    y_test: npt.NDArray[np.int64]
    class_names: tuple[str, ...]
    further_tests: Pairs = field(default_factory=dict)


def digits() -> Arrays:
    """The 1,797 handwritten digits of scikit-learn, 8×8, 360 of them (36 ± 1 of each) for testing."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    x = np.rint(bunch.images[:, None] * (255 / 16)).astype(np.uint8)  # 0 … 16 → 0 … 255
    y = bunch.target.astype(np.int64)
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=360, stratify=y, random_state=0)
    return Arrays(x_train, y_train, x_test, y_test, tuple(map(str, range(10))))


def npz(path: Path) -> Arrays:
    """The arrays x_train, y_train, x_test, y_test of an .npz file, which is never unpickled.

    Images are uint8 [n, h, w, c], [n, c, h, w] (c ≤ 4) or [n, h, w]; labels are integers 0 … classes − 1, and
    y_train has each of them. Arrays x_test_NAME and y_test_NAME are a further test set.

    Raises:
        UsageError: there is no such file.
        CorruptError: it is not such an archive, or its arrays do not fit together.
    """
    require_file(path)
    with path.open("rb") as file:  # numpy leaves a damaged file open
        archive = _archive(path, file)
        if missing := [name for name in _NAMES if name not in archive]:
            there = ", ".join(archive) or "nothing"
            raise CorruptError(f"{path} has no {', '.join(missing)}; it holds {there}")
        further = [name for name in archive if name.startswith(("x_test_", "y_test_"))]
        arrays = {name: _member(path, archive, name) for name in (*_NAMES, *further)}
    return validate_arrays(str(path), arrays)


def require_file(path: Path) -> None:
    """Check that `path` is a file with something in it.

    Raises:
        UsageError: there is no such file, or it may not be opened.
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
    except Exception as error:  # zip, zlib and header readers speak up in many ways about a damaged file
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
    """Arrays as files hold them, brought to one form or refused.

    Args:
        source: what to call them in an error.
        arrays: x_train, x_test uint8 [n, h, w, c], [n, c, h, w] or [n, h, w]; y_train, y_test integer [n];
            x_test_NAME, y_test_NAME likewise, for each further test set.
        class_names: one a label; if None, the labels in y_train, which must be 0 … classes − 1.

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
            raise CorruptError(
                f"{source}: x_{part} has {len(x[part])} images and y_{part} {len(labels[part])} labels"
            )
        if x[part].shape[1:] != x["train"].shape[1:]:
            shapes = f"{_shape(x['train'])} for training and {_shape(x[part])} for testing"
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
            f"{source}: {name} is {_shape(x)}; images must be [n, h, w, c], [n, c, h, w] or [n, h, w]"
        )
    if x.ndim == 3:
        return x[:, None]
    first, last = x.shape[1] <= _MOST_CHANNELS, x.shape[3] <= _MOST_CHANNELS
    if first == last:
        which = "either axis could be" if first else "neither axis can be"
        raise CorruptError(
            f"{source}: {name} is {_shape(x)}; {which} the channels, of which there are 1 to 4"
        )
    return x if first else x.transpose(0, 3, 1, 2)


def _labels(source: str, name: str, y: npt.NDArray[Any]) -> npt.NDArray[np.integer[Any]]:
    if y.dtype.kind not in "iu":
        raise CorruptError(f"{source}: {name} is {y.dtype}; labels must be integers")
    if y.ndim != 1:
        raise CorruptError(f"{source}: {name} is {_shape(y)}; labels must be [n]")
    return y


def _count_classes(source: str, y_train: npt.NDArray[np.integer[Any]]) -> int:
    there = {int(label) for label in np.unique(y_train)}
    classes = len(there)
    if strays := sorted(there - set(range(classes))):
        missing = min(set(range(classes)) - there)
        raise CorruptError(
            f"{source}: y_train holds the label {strays[0]} but none that is {missing}; "
            "labels must be 0 … classes − 1, without a gap"
        )
    if classes < 2:
        raise CorruptError(f"{source}: y_train knows a single class; two are needed")
    return classes


def _shape(array: npt.NDArray[Any]) -> str:
    return f"[{', '.join(map(str, array.shape))}]"


def digest(class_names: tuple[str, ...], *arrays: npt.NDArray[np.generic]) -> str:
    """SHA-256 of class names, shapes and values."""
    found = hashlib.sha256(json.dumps([class_names, [a.shape for a in arrays]]).encode())
    for array in arrays:
        found.update(array.ravel().data)
    return found.hexdigest()


def plugin_arrays(name: str) -> Arrays:
    """The images and labels that a plugin loads.

    Raises:
        PluginError: it fails, or an array is missing.
        CorruptError: a shape, a type, a count or a label is wrong.
    """
    entry, load = load_plugin(DATA, name)
    with plugin_errors(entry, "cannot be loaded"):
        found = dict(load())
        names = found.pop("class_names", None)
        wanted = {key: found[key] for key in ("x_train", "y_train", "x_test", "y_test")}
    return validate_arrays(f"{name} of {entry.source}", wanted, names and tuple(map(str, names)))
