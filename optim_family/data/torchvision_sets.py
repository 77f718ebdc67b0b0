"""The data sets that torchvision downloads, verifies and reads."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, final

from optim_family.errors import CorruptError, OptimFamilyError, UsageError, one_line

if TYPE_CHECKING:
    from optim_family.data.arrays import Arrays

_TIMEOUT = 30.0  # seconds without a byte from the network


@final
@dataclass(frozen=True)
class TorchvisionDataset:
    """The names that torchvision uses for a data set.

    Attributes:
        home: the class in torchvision.datasets.
        files: below the data root.
        splits: the arguments that select training and test images.
        labels: the attribute with the labels.
    """

    home: str
    files: tuple[str, ...]
    splits: tuple[dict[str, Any], dict[str, Any]] = ({"train": True}, {"train": False})
    labels: str = "targets"

    def top_level_paths(self, root: Path) -> str:
        """The files and folders of this set directly below `root`, in words."""
        return " and ".join(sorted({str(root / PurePosixPath(file).parts[0]) for file in self.files}))


def _below(folder: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{folder}/{name}" for name in names)


_CIFAR10 = (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch", "batches.meta")
_MNIST = tuple(
    f"{half}-{part}-ubyte" for half in ("train", "t10k") for part in ("images-idx3", "labels-idx1")
)
SETS = {
    "cifar10": TorchvisionDataset("CIFAR10", _below("cifar-10-batches-py", *_CIFAR10)),
    "cifar100": TorchvisionDataset("CIFAR100", _below("cifar-100-python", "train", "test", "meta")),
    "svhn": TorchvisionDataset(
        "SVHN",
        ("train_32x32.mat", "test_32x32.mat"),
        splits=({"split": "train"}, {"split": "test"}),
        labels="labels",
    ),
    "mnist": TorchvisionDataset("MNIST", _below("MNIST/raw", *_MNIST)),
    "fashion-mnist": TorchvisionDataset("FashionMNIST", _below("FashionMNIST/raw", *_MNIST)),
}


def data_root() -> Path:
    """$OPTIM_FAMILY_DATA, else ~/.cache/optim-family/data; for a user without a home, a temporary folder."""
    if folder := os.environ.get("OPTIM_FAMILY_DATA"):
        return Path(os.path.expanduser(folder))
    if (home := os.path.expanduser("~")) != "~":
        return Path(home, ".cache", "optim-family", "data")
    import tempfile

    return Path(tempfile.gettempdir(), "optim-family", "data")


def present(name: str, root: Path) -> bool:
    """Whether every file of the set is below `root`, without a look at its content."""
    return all((root / file).is_file() for file in SETS[name].files)


def read(name: str, root: Path) -> Arrays:
    """Read the training and test images of a data set.

    Raises:
        UsageError: it is not below `root`.
        CorruptError: torchvision cannot read it, or reads no valid images and labels.
    """
    import numpy as np

    from optim_family.data.arrays import validate_arrays

    paths = SETS[name].top_level_paths(root)
    if not present(name, root):
        raise UsageError(
            f"{name} is not on this machine (no {paths}); get it with: optim-family data fetch {name}"
        )
    try:
        halves = dict(zip(("train", "test"), _train_and_test(SETS[name], root, download=False), strict=True))
        arrays = {f"x_{part}": np.asarray(half.data) for part, half in halves.items()}
        arrays |= {f"y_{part}": np.asarray(getattr(half, SETS[name].labels)) for part, half in halves.items()}
        class_names = tuple(getattr(halves["train"], "classes", map(str, range(10))))  # SVHN's are the digits
    except OptimFamilyError:
        raise
    except Exception as error:  # a damaged file raises many types: pickle, zlib, torch, assertions
        raise CorruptError(
            f"{name} is damaged ({one_line(error)}); delete {paths} and run: optim-family data fetch {name}"
        ) from error
    return validate_arrays(f"{name} in {root}", arrays, class_names)


def fetch(name: str, root: Path) -> Path:
    """Download a data set into `root`; return `root`.

    Raises:
        UsageError: the network or the file system fails.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT)  # a silent network is an error after the timeout
    try:
        _train_and_test(SETS[name], root, download=True)
    except OptimFamilyError:
        raise
    except Exception as error:  # of the network, the disk, the archive
        raise UsageError(
            f"{name} cannot be fetched into {root}: {one_line(error)}; check the network, "
            f"and delete {SETS[name].top_level_paths(root)} if an earlier download broke off"
        ) from error
    finally:
        socket.setdefaulttimeout(before)
    return root


def _train_and_test(dataset: TorchvisionDataset, root: Path, *, download: bool) -> list[Any]:
    try:
        from torchvision import datasets
    except (ImportError, RuntimeError) as error:
        raise OptimFamilyError(
            f"torchvision cannot be imported ({one_line(error)}); see: optim-family doctor"
        ) from error
    make = getattr(datasets, dataset.home)
    return [make(root, download=download, **split) for split in dataset.splits]
