"""Validate a data set as arrays: images as bytes or floats, channels first, labels from 0."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import numpy.typing as npt

from optim_family.errors import CorruptError
from optim_family.registry import DATA, load_plugin, plugin_errors

NAMES = ("x_train", "y_train", "x_test", "y_test")
_MOST_CHANNELS = 4
_FIRST, _LAST = "[n, c, h, w] (channels first)", "[n, h, w, c] (channels last)"
# Two sets of float images whose deviations differ by more than this factor are not of one scale.
_SCALES = 50.0

Images = npt.NDArray[np.uint8 | np.float32]
Pairs = Mapping[str, tuple[Images, npt.NDArray[np.int64]]]


@final
@dataclass(frozen=True, eq=False)
class Arrays:
    """Images x uint8 or float32 [n, c, h, w] and labels y int64 [n] in 0 … len(class_names) − 1.

    Attributes:
        further_tests: name → images and labels of another test set.
        notice: one line with layout, size, range and type of the images; empty if nothing is ambiguous.
    """

    x_train: Images
    y_train: npt.NDArray[np.int64]
    x_test: Images
    y_test: npt.NDArray[np.int64]
    class_names: tuple[str, ...]
    further_tests: Pairs = field(default_factory=dict)
    notice: str = ""


def digits() -> Arrays:
    """The 1,797 handwritten digits of scikit-learn, 8×8, of which 360 (36 ± 1 of each) are for testing."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    x = np.rint(bunch.images[:, None] * (255 / 16)).astype(np.uint8)  # 0 … 16 → 0 … 255
    y = bunch.target.astype(np.int64)
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=360, stratify=y, random_state=0)
    return Arrays(x_train, y_train, x_test, y_test, tuple(map(str, range(10))))


def validate_arrays(
    source: str, arrays: Mapping[str, npt.NDArray[Any]], class_names: tuple[str, ...] | None = None
) -> Arrays:
    """Validate arrays, and bring them to one form.

    Args:
        source: their name in an error.
        arrays: x_train, x_test uint8 or float [n, h, w, c], [n, c, h, w] (c ≤ 4) or [n, h, w]; y_train,
            y_test integer [n]; x_test_NAME, y_test_NAME likewise, for each further test set.
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
        _require_one_scale(source, f"x_{part}", x[part], x["train"])
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


def _images(source: str, name: str, x: npt.NDArray[Any]) -> Images:
    """[n, h, w], [n, h, w, c] or [n, c, h, w] → [n, c, h, w]: bytes as a view, floats as float32."""
    if x.dtype != np.uint8 and x.dtype.kind != "f":
        raise CorruptError(
            f"{source}: {name} is {x.dtype}; images must be uint8, 0 … 255, or floats: {name}.astype('uint8')"
        )
    if x.ndim not in (3, 4) or 0 in x.shape:
        raise CorruptError(
            f"{source}: {name} is {list(x.shape)}; images must be [n, h, w, c], [n, c, h, w] or [n, h, w]"
        )
    axes = layout(x)
    if not axes:
        either = x.shape[1] <= _MOST_CHANNELS
        which = "either axis could be" if either else "neither axis can be"
        way_out = "; images need more than 4 rows or columns" if either else ""
        raise CorruptError(
            f"{source}: {name} is {list(x.shape)}; {which} the channels, 1 to 4 of them{way_out}"
        )
    if x.dtype.kind == "f":
        with np.errstate(over="ignore"):
            x = x.astype(np.float32)
        if not np.isfinite(x).all():
            raise CorruptError(f"{source}: {name} holds numbers that are not finite in float32")
    if x.ndim == 3:
        return x[:, None]
    return x.transpose(0, 3, 1, 2) if axes == _LAST else x


def layout(x: npt.NDArray[Any]) -> str:
    """The axes of images; empty if both positions could be the channels, or neither."""
    if x.ndim == 3:
        return "[n, h, w]"
    first, last = x.shape[1] <= _MOST_CHANNELS, x.shape[3] <= _MOST_CHANNELS
    return "" if first == last else _FIRST if first else _LAST


def _require_one_scale(source: str, name: str, x: Images, train: Images) -> None:
    """Refuse float images next to bytes, and floats in another range than the training images."""
    if x.dtype != train.dtype:
        raise CorruptError(
            f"{source}: {name} is {x.dtype} and x_train {train.dtype}; both must be of one type"
        )
    if x.dtype == np.uint8:
        return
    deviations = [float(each.std(dtype=np.float64)) for each in (x, train)]
    if min(deviations) > 0 and max(deviations) > _SCALES * min(deviations):
        texts = [f"from {each.min():.4g} to {each.max():.4g}" for each in (x, train)]
        raise CorruptError(
            f"{source}: {name} is {texts[0]} and x_train {texts[1]}; images must be of one scale"
        )


def _labels(source: str, name: str, y: npt.NDArray[Any]) -> npt.NDArray[np.integer[Any]]:
    if y.dtype.kind not in "iu":
        way_out = (
            f"{name}.astype('int64')" if y.dtype.kind == "f" else f"np.unique({name}, return_inverse=True)[1]"
        )
        raise CorruptError(f"{source}: {name} is {y.dtype}; labels must be integers from 0: {way_out}")
    if y.ndim != 1:
        one_hot = y.ndim == 2 and y.shape[1] > 1
        way_out = (
            f": {name}.argmax(1), if they are one-hot" if one_hot else f": {name}.ravel()" * (y.ndim > 1)
        )
        raise CorruptError(f"{source}: {name} is {list(y.shape)}; labels must be [n]{way_out}")
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
        names, arrays = data.pop("class_names", None), {key: data[key] for key in NAMES}
    return validate_arrays(f"{name} of {entry.source}", arrays, names and tuple(map(str, names)))
