"""Load a data set by name: shuffled once, with its statistics, as bytes or floats on the device that trains.

    x̂ = (x/255 − μ_c) / σ_c        μ, σ: exact statistics of the training images in use, for each channel

Float images are not divided by 255: x̂ is the same for every range of them.

The seed determines the order of the training images, with or without a limit: a folder is sorted by class,
and consecutive images share batch statistics. A limit keeps the first images of each class in that order;
the counts of the classes differ by at most one, unless a class has too few. The test images are complete, in
the order of their source. Listing imports nothing heavy.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, final

from optim_family import registry
from optim_family.data import torchvision_sets
from optim_family.errors import UsageError, unknown

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch
    from torch import Tensor

    from optim_family.data.arrays import Arrays


@final
@dataclass(frozen=True)
class DatasetInfo:
    """A data set that is known by name; `size` is height and width in pixels."""

    name: str
    train_images: int
    test_images: int
    size: tuple[int, int]
    channels: int
    classes: int
    description: str
    present: bool = True


_CATALOGUE = (
    DatasetInfo("digits", 1437, 360, (8, 8), 1, 10, "handwritten digits, comes with scikit-learn"),
    DatasetInfo("cifar10", 50_000, 10_000, (32, 32), 3, 10, "photographs of animals and vehicles"),
    DatasetInfo("cifar100", 50_000, 10_000, (32, 32), 3, 100, "photographs of a hundred kinds of things"),
    DatasetInfo("svhn", 73_257, 26_032, (32, 32), 3, 10, "house numbers in street views"),
    DatasetInfo("mnist", 60_000, 10_000, (28, 28), 1, 10, "handwritten digits"),
    DatasetInfo("fashion-mnist", 60_000, 10_000, (28, 28), 1, 10, "pieces of clothing"),
)
NAMES = tuple(info.name for info in _CATALOGUE)
FORMS = (*NAMES, "npz:PATH", "folder:PATH")


def catalogue(root: Path | None = None) -> list[DatasetInfo]:
    """The sets known by name; `present` says whether this machine has them (`root` as for `load`)."""
    folder = root or torchvision_sets.data_root()
    absent = {name for name in torchvision_sets.SETS if not torchvision_sets.present(name, folder)}
    return [replace(info, present=info.name not in absent) for info in _CATALOGUE]


def registered_datasets() -> dict[str, registry.PluginEntry]:
    """The sets of other distributions; the names of `NAMES` are reserved."""
    return {name: entry for name, entry in registry.entries(registry.DATA).items() if name not in NAMES}


def fetch(name: str, root: Path | None = None) -> Path:
    """Download a data set of torchvision; return its folder.

    Args:
        name: one of `NAMES` except digits.
        root: the folder; by default $OPTIM_FAMILY_DATA, else ~/.cache/optim-family/data.

    Raises:
        UsageError: the name is not one of torchvision's, or the download fails.
    """
    if name in torchvision_sets.SETS:
        return torchvision_sets.fetch(name, root or torchvision_sets.data_root())
    if name in NAMES or name.startswith(("npz:", "folder:")):
        raise UsageError(
            f"{name} is read from this machine, there is nothing to fetch; use it with --data {name}"
        )
    raise UsageError(unknown("data set", name, torchvision_sets.SETS))


@final
@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and labels of one task, with the statistics that normalise them.

    Attributes:
        name: the argument of `load`.
        x_train, x_test: uint8 or float32 [n, c, h, w].
        y_train, y_test: int64 [n], in 0 … classes − 1.
        class_names: in the order of the labels.
        further_tests: name → x, y of another test set, which is evaluated too.
        mean, std: float64 [c], of the training images in use, bytes scaled to [0, 1]; a constant channel has
            std 1.
        sha256: of the images, labels and class names in use, in their order.
        notice: one line about the form of the images in a file of the user; empty for other sets.
    """

    name: str
    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    class_names: tuple[str, ...]
    mean: Tensor
    std: Tensor
    sha256: str
    further_tests: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    notice: str = ""

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    @property
    def channels(self) -> int:
        """1 for grey, 3 for colour."""
        return self.x_train.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, in pixels."""
        return self.x_train.shape[2], self.x_train.shape[3]

    def to(self, device: torch.device | str) -> Dataset:
        """The same data on `device`: one byte for each pixel and channel, or four for floats."""
        names = ("x_train", "y_train", "x_test", "y_test", "mean", "std")
        tensors = {name: getattr(self, name).to(device) for name in names}
        further = {name: (x.to(device), y.to(device)) for name, (x, y) in self.further_tests.items()}
        return replace(self, further_tests=further, **tensors)

    def images(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """The input of a network: (x/255 − mean)/std, of floats (x − mean)/std; [n, c, h, w] in dtype."""
        mean, std = (s.to(dtype)[:, None, None] for s in (self.mean, self.std))  # [c, 1, 1]
        images = x.to(dtype, copy=True)
        if not self.x_train.is_floating_point():
            images.div_(255)
        return images.sub_(mean).div_(std)


def load(name: str, *, limit: int | None = None, seed: int = 0, root: Path | None = None) -> Dataset:
    """Read a data set.

    Args:
        name: one of `NAMES`, of a plugin, npz:PATH (arrays x_train, y_train, x_test, y_test), or folder:PATH
            (images train/CLASS/*.png, .jpg or .jpeg and test/…, in a folder or a .tar, .tar.gz, … file).
        limit: number of training images, balanced over the classes; all if None.
        seed: of the order of the training images, and so of those that a limit keeps.
        root: folder of torchvision's sets; by default $OPTIM_FAMILY_DATA, else ~/.cache/optim-family/data.

    Raises:
        UsageError: no such set, not on this machine, or an impossible limit.
        CorruptError: the data are damaged or inconsistent.
    """
    import numpy as np
    import torch

    from optim_family.data.arrays import digest

    source = _read(name, root)
    images, classes = len(source.y_train), len(source.class_names)
    if limit is not None and not classes <= limit <= images:
        raise UsageError(
            f"{name} has {images} training images of {classes} classes: a limit of {limit} cannot be met; "
            f"choose {classes} to {images}"
        )
    order = select(source.y_train, limit, seed)
    train = np.ascontiguousarray(source.x_train[order]), source.y_train[order]
    test = np.array(source.x_test, order="C"), np.array(source.y_test)
    further = {key: (np.array(x, order="C"), y) for key, (x, y) in source.further_tests.items()}
    others = [array for key in sorted(further) for array in further[key]]
    x_train, y_train, x_test, y_test = (torch.from_numpy(array) for array in (*train, *test))
    mean, std = statistics(x_train)
    return Dataset(
        name,
        *(x_train, y_train, x_test, y_test),
        class_names=source.class_names,
        mean=mean,
        std=std,
        sha256=digest(source.class_names, *train, *test, *others),
        further_tests={key: (torch.from_numpy(x), torch.from_numpy(y)) for key, (x, y) in further.items()},
        notice=source.notice,
    )


def _read(name: str, root: Path | None) -> Arrays:
    from optim_family.data import arrays, image_folder, npz_file

    kind, colon, _ = name.partition(":")
    readable = {"npz": npz_file.npz, "folder": image_folder.folder}
    if kind in readable and colon:
        return readable[kind](_path(name))
    if name in torchvision_sets.SETS:
        return torchvision_sets.read(name, root or torchvision_sets.data_root())
    if name == "digits":
        return arrays.digits()
    if name in registered_datasets():
        return arrays.plugin_arrays(name)
    raise unknown_dataset(name)


def check_name(name: str) -> None:
    """Check that a data set has this name, or the form of a file or folder, without reading it.

    Raises:
        UsageError: there is no such data set.
    """
    if name not in {*NAMES, *registered_datasets()} and not name.startswith(("npz:", "folder:")):
        raise unknown_dataset(name)


def check_source(name: str) -> None:
    """Check the name of a data set, and that its file or folder exists, without reading it.

    Raises:
        UsageError: there is no such data set, file or folder.
        CorruptError: the file is empty.
    """
    check_name(name)
    if name.startswith("npz:"):
        from optim_family.data.npz_file import require_file

        require_file(_path(name))
    if name.startswith("folder:"):
        from optim_family.data.image_folder import require_source

        require_source(_path(name))


def train_images(name: str) -> int | None:
    """The number of training images of a set of the catalogue; None for every other set."""
    return next((info.train_images for info in _CATALOGUE if info.name == name), None)


def _path(name: str) -> Path:
    """The path in npz:PATH or folder:PATH."""
    kind, _, path = name.partition(":")
    if not path:
        raise UsageError(f"{name!r} names no file; write {kind}:PATH")
    return Path(os.path.expanduser(path))


def unknown_dataset(name: str) -> UsageError:
    """The error for a name that is no data set; a file or a folder of this name needs a prefix."""
    path = Path(os.path.expanduser(name))
    images = path.is_dir() or ".tar" in path.suffixes
    prefix = "folder" if images else "npz" if path.is_file() or path.suffix == ".npz" else ""
    near = f"{prefix}:{name}" if prefix else None
    return UsageError(unknown("data set", name, [*registered_datasets(), *FORMS], near))


def select(labels: npt.NDArray[np.int64], limit: int | None, seed: int) -> npt.NDArray[np.int64]:
    """Select training images in random order, balanced over the classes.

    Args:
        labels: [n], in 0 … classes − 1.
        limit: number of images; all if None.
        seed: of the order; a smaller limit selects a subset.

    Returns:
        Positions in `labels`, [limit].
    """
    import numpy as np

    order = np.random.default_rng(seed).permutation(len(labels))
    turn = np.empty_like(order)  # number of earlier images of the same class
    for label in np.unique(labels):
        mine = np.flatnonzero(labels[order] == label)
        turn[mine] = np.arange(len(mine))
    return order[np.sort(np.argsort(turn, kind="stable")[:limit])]


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of x/255 for each channel, from exact counts of the 256 values.

    Those of floats are of x itself, in double precision.

    Args:
        x: uint8 or float32 [n, c, h, w].

    Returns:
        float64 [c] and [c]; a channel that is constant has standard deviation 1.
    """
    import torch

    if x.is_floating_point():
        each = [channel.double() for channel in x.unbind(1)]
        mean = torch.stack([channel.mean() for channel in each])
        std = torch.stack([channel.std(correction=0) for channel in each])
        constant = torch.tensor([bool(channel.min() == channel.max()) for channel in each])
        return mean, torch.where(constant, 1.0, std)
    channels = [torch.bincount(channel.flatten(), minlength=256) for channel in x.unbind(1)]
    counts = torch.stack(channels)  #                                       [c, 256]
    share = counts.double() / counts.sum(1, keepdim=True)
    value = torch.arange(256, dtype=torch.float64) / 255
    mean = share @ value  #                                                 [c, 256] · [256] → [c]
    variance = (share * (value - mean[:, None]) ** 2).sum(1)
    constant = (counts > 0).sum(1) == 1
    return mean, torch.where(constant, 1.0, variance.sqrt())
