"""What this machine can do, and what is wrong with it: one finding a line, with a hint where there is one."""

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, final

import psutil

from optim_family import registry, resources
from optim_family.data import datasets, torchvision_sets
from optim_family.errors import OptimFamilyError, one_line

State = Literal["ok", "warn", "fail"]

LIBRARIES: Final = (
    *("torch", "torchvision", "timm", "numpy", "scipy", "matplotlib", "pandas", "pydantic"),
    *("safetensors", "scikit-learn", "click", "rich"),
)
_LITTLE_MEMORY: Final = 2.0  # GiB
_LITTLE_DISK: Final = 1.0  # GiB


@final
@dataclass(frozen=True)
class Diagnosis:
    """One thing that was looked at."""

    subject: str
    state: State
    text: str
    hint: str = ""


def diagnose() -> Iterator[Diagnosis]:
    """Look at everything, the quick things first."""
    yield Diagnosis("python", "ok", f"{platform.python_version()} on {platform.platform()}")
    yield from _libraries()
    yield _torch()
    yield _torchvision()
    yield from _devices()
    yield from _room()
    yield from _plugins()
    yield _packaged()
    yield _data()
    yield _writable("data folder", torchvision_sets.data_root(), "set OPTIM_FAMILY_DATA to a folder of yours")
    yield _writable("current folder", Path("runs").absolute(), "give run an --out elsewhere")


def _libraries() -> Iterator[Diagnosis]:
    versions = {name: resources.version(name) for name in LIBRARIES}
    found = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    yield Diagnosis("libraries", "ok", found)
    for name in (name for name, version in versions.items() if not version):
        yield Diagnosis(name, "fail", "not installed", f"pip install {name}")


def _torch() -> Diagnosis:
    try:
        import torch
    except Exception as error:
        hint = "install it again: pip install --force-reinstall torch torchvision"
        return Diagnosis("torch", "fail", f"cannot be imported: {_reason(error)}", hint)
    build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for the CPU"
    return Diagnosis("torch", "ok", f"imports, {build}")


def _torchvision() -> Diagnosis:
    """The compiled operators of torchvision work with one release of torch only."""
    try:
        import torch
        import torchvision

        torchvision.ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5)
    except Exception as error:
        hint = (
            "torch and torchvision must be of matching releases, from one index: "
            "pip install --upgrade --force-reinstall torch torchvision"
        )
        return Diagnosis("torchvision", "fail", f"its operators do not match torch: {_reason(error)}", hint)
    return Diagnosis("torchvision", "ok", "its operators match torch")


def _devices() -> Iterator[Diagnosis]:
    try:
        import torch
    except Exception:
        return
    yield Diagnosis("cpu", "ok", f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads")
    for index in range(torch.cuda.device_count()):
        free, total = (size / 2**30 for size in torch.cuda.mem_get_info(index))
        name = torch.cuda.get_device_name(index)
        yield Diagnosis(f"cuda:{index}", "ok", f"{name}, {free:.1f} of {total:.1f} GiB free")
    if not torch.cuda.is_available():
        yield _no_cuda(torch.version.cuda)


def _no_cuda(built_for: str | None) -> Diagnosis:
    if shutil.which("nvidia-smi") is None:
        return Diagnosis("cuda", "ok", "no device; runs use the CPU")
    text = "an NVIDIA driver is installed, but torch sees no device"
    hint = f"is the driver too old for CUDA {built_for}?" if built_for else "this torch is built for the CPU"
    return Diagnosis("cuda", "warn", text, f"{hint} See nvidia-smi and pytorch.org/get-started")


def _room() -> Iterator[Diagnosis]:
    memory = psutil.virtual_memory().available / 2**30
    disk = shutil.disk_usage(".").free / 2**30
    yield _enough("memory", memory, _LITTLE_MEMORY, "take a smaller model, --limit or --ghost-batch")
    yield _enough("disk", disk, _LITTLE_DISK, "make room, or give run an --out elsewhere")


def _enough(subject: str, free: float, little: float, hint: str) -> Diagnosis:
    if free < little:
        return Diagnosis(subject, "warn", f"only {free:.1f} GiB free", hint)
    return Diagnosis(subject, "ok", f"{free:.1f} GiB free")


def _plugins() -> Iterator[Diagnosis]:
    loaded = []
    for name in registry.entries():
        try:
            registry.load(name)
            loaded.append(name)
        except OptimFamilyError as error:
            yield Diagnosis(name, "fail", str(error), "mend or uninstall the distribution that registers it")
    yield Diagnosis("optimizers", "ok" if loaded else "fail", ", ".join(loaded) or "none loads")


def _packaged() -> Diagnosis:
    try:
        return Diagnosis("models", "ok", str(resources.folder("models")))
    except OptimFamilyError as error:
        return Diagnosis("models", "fail", str(error))


def _data() -> Diagnosis:
    present = [entry.name for entry in datasets.catalogue() if entry.present]
    hint = "more with: optim-family data fetch NAME"
    return Diagnosis("data", "ok", f"{', '.join(present)} on this machine", hint)


def _writable(subject: str, folder: Path, hint: str) -> Diagnosis:
    """Whether the folder can be made, or written to if it is there."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return Diagnosis(subject, "ok", f"{folder} can be written")
    return Diagnosis(subject, "warn", f"{folder} cannot be written", hint)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error)}"
