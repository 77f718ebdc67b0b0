"""How often a sampled reading of λ₁ is wrong along training, and what it costs, beside Lanczos.

Networks are trained by four optimizers on CIFAR-10 images, averaged over 4 × 4 pixels but for VGG-11, in 20
ghost batches of 250 or 8 of 125. The true value is the largest of three: `eigsh` at 1e-7, Lanczos, and the
sampled reading; none is above λ₁. Needs ../shared/data/cifar10-5k.npz. Readings are stored in
runs/sampled.jsonl; the command resumes after the last one.
"""

import json
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from benchmarks.reading import scipys
from optim_family import registry
from optim_family.curvature.sampled_lanczos import sampled_top_eigenpairs
from optim_family.data import datasets
from optim_family.data.datasets import Dataset
from optim_family.networks import build
from optim_family.sharpness.probe import Probe, view_operator
from optim_family.sharpness.views import VIEWS
from optim_family.training.objective import Objective

DATA, ROWS = Path("../shared/data/cifar10-5k.npz"), Path("runs/sampled.jsonl")
RTOL, STEPS, FIRST = 1e-3, 300, 60
RATES = {"gd": 0.3, "sgd": 0.1, "rmsprop": 0.01, "adamw": 0.005}
UNNORMALISED = 0.1  # factor of the rates without normalisation, where they would diverge
DECAY = {"gd": 2e-3, "sgd": 5e-3, "rmsprop": 0.05, "adamw": 0.1}
# Model, its normalisation, images, ghost batch, averaged pixels, and steps between two readings.
SETTINGS = (
    ("bn_cnn", "frozen-affine", 1000, 125, 4, 60),
    ("bn_cnn", "none", 1000, 125, 4, 60),
    ("bn_cnn", "frozen-affine", 5000, 250, 4, 120),
    ("resnet20_narrow", "frozen-affine", 1000, 125, 4, 120),
    ("vgg11_narrow", "frozen-affine", 1000, 125, 1, 240),
)


@final
@dataclass(frozen=True)
class Trajectory:
    """One run along which readings are taken."""

    model: str
    norm: str
    images: int
    ghost_batch: int
    pixels: int
    every: int
    optimizer: str


def averaged(data: Dataset, pixels: int) -> Dataset:
    """The same images, averaged over squares of so many pixels."""

    def average(images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(images.float(), pixels).round().to(torch.uint8)

    return replace(data, x_train=average(data.x_train), x_test=average(data.x_test))


def rows(trajectory: Trajectory, done: set[tuple[str, int, str]]) -> Iterator[dict[str, Any]]:
    """The readings along one run that are not done."""
    data = averaged(datasets.load(f"npz:{DATA}", limit=trajectory.images), trajectory.pixels)
    torch.manual_seed(0)
    model = build.build(trajectory.model, classes=10, channels=3, size=data.size, norm=trajectory.norm)
    batch = trajectory.ghost_batch if trajectory.optimizer == "sgd" else None
    objective = Objective(model, data, ghost_batch=trajectory.ghost_batch, batch_size=batch)
    name = trajectory.optimizer
    lr = RATES[name] * (UNNORMALISED if trajectory.norm == "none" else 1)
    optimizer = registry.load(name)(objective.space.tensors, lr=lr, weight_decay=DECAY[name])
    views = ["raw"] if name in ("gd", "sgd") else ["raw", "preconditioned"]
    probes = {view: Probe(view, rtol=RTOL) for view in views}
    for step in range(STEPS + 1):
        objective.gradient(step)
        if step >= FIRST and step % trajectory.every == FIRST % trajectory.every:
            for view in views:
                if (str(trajectory), step, view) not in done:
                    yield row(trajectory, step, objective, optimizer.geometry(), probes[view])
        optimizer.step()


def row(
    trajectory: Trajectory, step: int, objective: Objective, geometry: Any, probe: Probe
) -> dict[str, Any]:
    """Three values of λ₁ at one point, with their evidence."""
    weights, hessian = objective.space.weights(), objective.hessian()
    operator = view_operator(VIEWS[probe.view.name], hessian, weights, geometry)
    sampled = sampled_top_eigenpairs(operator, weights, rtol=RTOL, seed=step)
    lanczos = probe.eigenpairs(hessian, weights, geometry)
    reference = scipys(operator, which="LA", ncv=20, tol=1e-7)
    return {
        **{"run": str(trajectory), "model": trajectory.model, "images": trajectory.images},
        **{"step": step, "view": probe.view.name},
        **{"reference": reference, "lanczos": lanczos.values[0], "lanczos_error": lanczos.errors[0]},
        **{"lanczos_products": lanczos.products, "converged": sampled.converged},
        "sampled": sampled.values[0] if sampled.converged else None,
        "error": sampled.errors[0] if sampled.converged else None,
        **{"products": sampled.products, "sample_products": sampled.sample_products},
        "sample_share": sampled.sample_share,
    }


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Lines: per network and number of images, readings, errors and products of both searches."""
    yield (
        "| network | n | search | converged | off by more than 1e-3 | worst | `error` too small "
        "| products, median (worst) |"
    )
    yield "|" + "---|" * 8
    for model, images in dict.fromkeys((row["model"], row["images"]) for row in rows):
        part = [row for row in rows if (row["model"], row["images"]) == (model, images)]
        for row in part:
            row["truth"] = max(row["reference"], row["lanczos"], row["sampled"] or -np.inf)
        sampled = [row for row in part if row["converged"]]
        cost = [row["products"] + row["sample_products"] * row["sample_share"] for row in part]
        yield f"| {model} | {images:,} | sampled | {cells(sampled, 'sampled', 'error', cost)}"
        cost = [row["lanczos_products"] for row in part]
        yield f"| {model} | {images:,} | Lanczos | {cells(part, 'lanczos', 'lanczos_error', cost)}"


def cells(rows: list[dict[str, Any]], value: str, error: str, cost: list[float]) -> str:
    """Of the converged readings, and of the cost of all."""
    off = np.array([abs(row[value] / row["truth"] - 1) for row in rows])
    # eigsh is right to 1e-7, float32 to about as much
    small = sum(row[error] < row["truth"] - row[value] - 1e-6 * row["truth"] for row in rows)
    costs = f"{statistics.median(cost):.1f} ({max(cost):.1f})"
    return f"{len(rows)} of {len(cost)} | {(off > RTOL).sum()} | {off.max():.0e} | {small} | {costs} |"


def main() -> None:
    if not DATA.exists():
        print(f"  {DATA} is missing: nothing to measure", file=sys.stderr)
        return
    torch.set_num_threads(1)
    ROWS.parent.mkdir(exist_ok=True)
    stored = [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []
    done = {(row["run"], row["step"], row["view"]) for row in stored}
    for setting, optimizer in product(SETTINGS, RATES):
        for new in rows(Trajectory(*setting, optimizer), done):
            with ROWS.open("a") as file:
                file.write(json.dumps(new) + "\n")
            stored.append(new)
    for text in table(stored):
        print(f"  {text}")
