"""The parts of `python -m benchmarks.gpu`; each is executed in its own process and writes one JSON file."""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from benchmarks import reading
from optim_family.curvature.precision import deterministic, full_precision
from optim_family.data import datasets
from optim_family.errors import Stopped, UsageError
from optim_family.runs.run import read_run
from optim_family.sharpness.probe import Probe
from optim_family.training.experiment import build_experiment
from optim_family.training.loop import train
from optim_family.training.record import library_versions
from optim_family.training.spec import RunSpec
from optim_family.training.stop_signal import StopSignal

NOT_FINISHED = 75  # exit code: the same command goes on
MARGIN = 60.0  # seconds before the end of a part in which the study writes its checkpoint
LIBRARIES = (
    "optim-family",
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "scipy",
    "pyhessian",
    "curvlinops-for-pytorch",
)
ROUNDS = 3


@final
@dataclass(frozen=True)
class Setting:
    """Where a part runs, and how large it is."""

    folder: Path
    device: str
    small: bool
    seconds: float

    def spec(self, model: str, images: int, **changes: Any) -> RunSpec:
        """Gradient descent on the first images, in ghost batches of 500."""
        fields = {
            "optimizer": "gd",
            "hyper": {"lr": 0.1, "weight_decay": 5e-3, "momentum": 0.0},
            "model": model,
            "data": self.data,
            "limit": images,
            "ghost_batch": 20 if self.small else 500,
            "device": self.device,
        }
        return RunSpec(**(fields | changes))

    @property
    def data(self) -> str:
        """CIFAR-10 if this machine has it; else images of noise of its size, which cost the same."""
        try:
            if not self.small:
                datasets.load("cifar10", limit=500)
                return "cifar10"
        except UsageError:
            pass
        path, generator = self.folder / "noise.npz", np.random.default_rng(0)
        if not path.exists():
            sizes = {"train": 40, "test": 20} if self.small else {"train": 50_000, "test": 10_000}
            side = 8 if self.small else 32
            arrays = {f"y_{part}": np.arange(n) % 10 for part, n in sizes.items()}
            shapes = {f"x_{part}": (n, side, side, 3) for part, n in sizes.items()}
            arrays |= {
                key: generator.integers(0, 256, shape, dtype=np.uint8) for key, shape in shapes.items()
            }
            np.savez(path, **arrays)
        return f"npz:{path}"


def environment(setting: Setting) -> dict[str, Any]:
    """The machine, its card and the libraries."""
    doctor = subprocess.run([sys.executable, "-m", "optim_family", "doctor"], capture_output=True, text=True)
    card: dict[str, Any] = {"name": platform.processor() or platform.machine()}
    if setting.device != "cpu":
        properties = torch.cuda.get_device_properties(torch.device(setting.device))
        card = {"name": properties.name, "bytes": properties.total_memory}
        card |= {"capability": [properties.major, properties.minor], "cuda": torch.version.cuda}
        card["cudnn"] = torch.backends.cudnn.version()
    versions = {"python": platform.python_version(), **library_versions(LIBRARIES)}
    return {
        "card": card,
        "versions": versions,
        "doctor": doctor.stdout,
        "data": setting.data.partition(":")[0],
    }


def tests(setting: Setting) -> dict[str, Any]:
    """The tests that need a card: their last line, and those that failed."""
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "tests/gpu"]
    done = subprocess.run(command, capture_output=True, text=True)
    print(done.stdout, done.stderr)
    lines = done.stdout.splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return {"summary": lines[-1] if lines else "", "failed": failed, "code": done.returncode}


def cost(setting: Setting, model: str, images: int) -> dict[str, Any]:
    """Seconds of a gradient, a product, a reading and an evaluation, and the peak memory."""
    objective = build_experiment(setting.spec(model, images)).objective
    probe, products = Probe("raw"), []
    hessian = objective.hessian()
    v = torch.ones(hessian.dim, device=objective.device)

    def read() -> None:
        products.append(probe(objective.hessian(), objective.space.weights()).products)

    times = {
        "gradient": _seconds(partial(objective.gradient, 0), objective.device),
        "product": _seconds(partial(hessian.__matmul__, v), objective.device),
        "evaluation": _seconds(objective.evaluate, objective.device),
    }
    del hessian
    times["reading"] = _seconds(read, objective.device)
    return {
        "model": model,
        "images": images,
        "weights": objective.space.dim,
        "mode": objective.hvp,
        "seconds": times,
        "products": statistics.median(products),
        "images_per_second": images / times["gradient"],
        "peak_bytes": _peak(objective.device),
    }


def training(
    setting: Setting, model: str, images: int, precision: str, layout: str, graphs: bool = False
) -> dict[str, Any]:
    """Steps with mini-batches a second, without measuring, as CUDA graphs or not."""
    batch = 20 if setting.small else 500
    changes = {"optimizer": "sgd", "hyper": {"lr": 0.1}, "batch_size": batch, "precision": precision}
    fields = setting.spec(model, images, **changes)
    graphs = graphs and setting.device != "cpu"  # a rehearsal times the same without
    experiment = build_experiment(fields, memory_format=layout, cuda_graphs=graphs)
    steps, replay = 4 if setting.small else 50, experiment.objective.replay

    def block() -> None:
        for step in range(steps):
            experiment.optimizer_step(step, experiment.objective.gradient(step))

    seconds = _seconds(block, experiment.objective.device) / steps
    state = replay.state if replay else "without"
    row = {"model": model, "images": images, "precision": precision, "layout": layout, "graphs": state}
    return row | {"step_seconds": seconds, "images_per_second": batch / seconds}


def peers(setting: Setting, model: str, images: int) -> dict[str, Any]:
    """A reading of one batch by each tool: seconds, and the relative difference from `eigsh` at 1e-6."""
    objective = build_experiment(setting.spec(model, images, ghost_batch=images)).objective
    for step in range(10):
        objective.gradient(step)
        w, g = objective.space.weights(), objective.space.gradient()
        objective.space.assign(w - 0.1 * g)
    truth = reading.scipys(objective.hessian(), which="LA", ncv=20, tol=1e-6)
    rows = {}
    for name, solver in reading.solvers().items():
        values: list[float] = []
        try:
            seconds = _seconds(
                lambda solver=solver, values=values: values.append(solver(objective)), objective.device
            )
            rows[name] = {"seconds": seconds, "error": abs(values[-1] / truth - 1)}
        except Exception as error:  # of another package, on this card
            rows[name] = {"failed": f"{type(error).__name__}: {error}"[:300]}
    gradient = _seconds(partial(objective.gradient, 0), objective.device)
    return {"model": model, "images": images, "gradient_seconds": gradient, "tools": rows}


def study(setting: Setting) -> dict[str, Any]:
    """The first run of `bn-cifar10`, resumed until it is done: steps a second with and without records."""
    steps, every = (6, 3) if setting.small else (1000, 50)
    model, images = ("bn_mlp", 40) if setting.small else ("resnet20", 5000)
    hyper = {"lr": 0.4, "weight_decay": 5e-3, "momentum": 0.0}
    fields = setting.spec(model, images, hyper=hyper, steps=steps, every=every)
    folder = setting.folder / "study"
    train(fields, folder, resume=True, stop=Deadline(max(setting.seconds - MARGIN, 1.0)))
    run = read_run(folder)
    readings = [view["seconds"] for record in run.records for view in record["views"].values()]
    return {
        "steps": steps,
        "records": len(run.records),
        "seconds": run.status["seconds"],
        "reading_seconds": sum(readings),
        "status": run.status["status"],
        "device": run.provenance["device"],
    }


@final
class Deadline(StopSignal):
    """Requests a stop some seconds after its construction."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.end = time.monotonic() + seconds

    def check(self) -> None:
        """Raise Stopped once the time is over."""
        super().check()
        if time.monotonic() > self.end:
            raise Stopped("the time of this part is over; the same command goes on")


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """The median of some repetitions, after a warm-up; waits for the device before and after each."""

    def once() -> float:
        _wait(device)
        begin = time.perf_counter()
        work()
        _wait(device)
        return time.perf_counter() - begin

    return statistics.median([once() for _ in range(1 + ROUNDS)][1:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak(device: torch.device) -> int | None:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def _all(small: bool) -> dict[str, Callable[[Setting], dict[str, Any]]]:
    """Each part, by name, in order."""
    models, sizes = (
        (("bn_mlp",), (20, 40)) if small else (("resnet18", "vgg11_bn", "resnet20"), (5_000, 50_000))
    )
    layouts = ("contiguous", "channels-last")
    precisions = ("float32",) if small else ("float32", "tf32")
    found: dict[str, Callable[[Setting], dict[str, Any]]] = {"environment": environment, "tests": tests}
    for model in models:
        for images in sizes:
            found[f"cost-{model}-{images}"] = partial(cost, model=model, images=images)
        for precision in precisions:
            for layout in layouts:
                options = {"images": sizes[0], "precision": precision, "layout": layout}
                found[f"training-{model}-{precision}-{layout}"] = partial(training, model=model, **options)
            options = {"images": sizes[0], "precision": precision, "layout": layouts[0], "graphs": True}
            found[f"training-{model}-{precision}-graphs"] = partial(training, model=model, **options)
        found[f"peers-{model}"] = partial(peers, model=model, images=20 if small else 1000)
    return found | {"study": study}


def names(small: bool) -> list[str]:
    """The names of all parts, in order."""
    return [*_all(small)]


def main(arguments: list[str]) -> int:
    """Execute one part and write its result; returns the exit code."""
    parser = argparse.ArgumentParser()
    for name in ("name", "folder", "device"):
        parser.add_argument(name)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--seconds", type=float, default=600.0)
    options = parser.parse_args(arguments)
    setting = Setting(Path(options.folder), options.device, options.small, options.seconds)
    try:
        with full_precision(), deterministic():
            result = _all(options.small)[options.name](setting)
    except Stopped:
        return NOT_FINISHED
    path = setting.folder / "parts" / f"{options.name}.json"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(result, indent=1, ensure_ascii=False), encoding="utf-8")
    temporary.replace(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
