"""Execute `optim-family doctor`: one result a line, with a hint for each problem."""

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, final

import psutil

from optim_family import registry, resources
from optim_family.cli.threads import busy_warning
from optim_family.data import datasets, torchvision_sets
from optim_family.errors import OptimFamilyError, one_line

LIBRARIES: Final = (
    *("torch", "torchvision", "timm", "numpy", "scipy", "matplotlib", "pandas", "pydantic"),
    *("safetensors", "scikit-learn", "click", "rich"),
)


@final
@dataclass(frozen=True)
class Diagnosis:
    """The result of one check."""

    subject: str
    state: Literal["ok", "warn", "fail"]
    text: str
    hint: str = ""


def diagnose() -> Iterator[Diagnosis]:
    """Check everything, the quick things first."""
    yield Diagnosis("python", "ok", f"{platform.python_version()} on {platform.platform()}")
    yield from _libraries()
    yield from _torch()
    memory, disk = psutil.virtual_memory().available, shutil.disk_usage(".").free
    yield _enough("memory", memory / 2**30, 2.0, "use a smaller model, --limit or --ghost-batch")
    yield _enough("disk", disk / 2**30, 1.0, "free some, or choose another folder with --out")
    yield from _plugins()
    try:
        yield Diagnosis("models", "ok", str(resources.folder("models")))
    except OptimFamilyError as error:
        yield Diagnosis("models", "fail", str(error))
    present = ", ".join(entry.name for entry in datasets.catalogue() if entry.present)
    yield Diagnosis("data", "ok", f"{present} on this machine", "more with: optim-family data fetch NAME")
    yield _writable("data folder", torchvision_sets.data_root(), "set OPTIM_FAMILY_DATA to a folder of yours")
    yield _writable("current folder", Path("runs").absolute(), "choose another folder with --out")


def _libraries() -> Iterator[Diagnosis]:
    versions = {name: resources.version(name) for name in LIBRARIES}
    installed = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    yield Diagnosis("libraries", "ok", installed)
    for name in (name for name, version in versions.items() if not version):
        yield Diagnosis(name, "fail", "not installed", f"pip install {name}")


def _torch() -> Iterator[Diagnosis]:
    """torch, torchvision (its compiled operators need one release of torch) and the devices."""
    try:
        import torch
    except Exception as error:
        hint = "install it again: pip install --force-reinstall torch torchvision"
        yield Diagnosis(
            "torch", "fail", f"cannot be imported: {type(error).__name__}: {one_line(error)}", hint
        )
        return
    build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for the CPU"
    yield Diagnosis("torch", "ok", f"imports, {build}")
    try:
        import torchvision

        torchvision.ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5)
        yield Diagnosis("torchvision", "ok", "its operators match torch")
    except Exception as error:
        text = f"its operators do not match torch: {type(error).__name__}: {one_line(error)}"
        hint = (
            "torch and torchvision must be of matching releases, from one index: "
            "pip install --upgrade --force-reinstall torch torchvision"
        )
        yield Diagnosis("torchvision", "fail", text, hint)
    warning, threads = busy_warning(), f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads"
    yield Diagnosis("cpu", "warn" if warning else "ok", threads, warning or "")
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


def _enough(subject: str, free: float, needed: float, hint: str) -> Diagnosis:
    """Whether so many GiB are free."""
    if free < needed:
        return Diagnosis(subject, "warn", f"only {free:.1f} GiB free", hint)
    return Diagnosis(subject, "ok", f"{free:.1f} GiB free")


def _plugins() -> Iterator[Diagnosis]:
    names = []
    for name in registry.entries():
        try:
            registry.load(name)
            names.append(name)
        except OptimFamilyError as error:
            yield Diagnosis(
                name, "fail", str(error), "repair or uninstall the distribution that registers it"
            )
    yield Diagnosis("optimizers", "ok" if names else "fail", ", ".join(names) or "none loads")


def _writable(subject: str, folder: Path, hint: str) -> Diagnosis:
    """Whether the folder can be made, or, if it exists, written to."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        return Diagnosis(subject, "ok", f"{folder} can be written")
    return Diagnosis(subject, "warn", f"{folder} cannot be written", hint)
