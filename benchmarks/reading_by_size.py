"""The cost of a reading of λ₁ against the number of images: draws results/benchmarks/reading_by_size.png.

VGG-11 narrow is trained by SGD on 5,000 images of the JPEG copy of CIFAR-10. At the same weights the loss
over the first n of 20,000 images is measured, in ghost batches of 250. All tools run in one process, in
turn; times are processor times of one thread, divided by that of a gradient over the same n images.
Readings are stored in runs/reading_by_size.jsonl; the command goes on after the last one. Needs
../shared/data/cifar10-jpeg.tar.xz.
"""

import json
import resource
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from benchmarks.reading_cifar import EIGSH, rows, sgd_step
from optim_family.data import datasets
from optim_family.data.datasets import Dataset
from optim_family.figures.style import COLOURS
from optim_family.networks import build
from optim_family.training.objective import Objective

DATA, STORE = Path("../shared/data/cifar10-jpeg.tar.xz"), Path("runs/reading_by_size.jsonl")
PATH = "results/benchmarks/reading_by_size.png"
GHOST_BATCH, TRAINED_ON, STEPS = 250, 5000, 400
SIZES = (500, 1000, 2000, 5000, 10_000, 20_000)
LABELS = {"lanczos": "Lanczos", "sampled": "from a sample", EIGSH: "tuned eigsh"}


def first(data: Dataset, images: int) -> Dataset:
    return replace(data, x_train=data.x_train[:images], y_train=data.y_train[:images])


def trained(data: Dataset) -> Objective:
    network = build.build("vgg11_narrow", classes=10, channels=3, size=data.size)
    objective = Objective(network, first(data, TRAINED_ON), ghost_batch=GHOST_BATCH, batch_size=GHOST_BATCH)
    for step in range(STEPS):
        sgd_step(objective, step)
    return objective


def measured(objective: Objective, data: Dataset, images: int) -> dict[str, Any]:
    """The costs of all tools at one size, and the most memory that the process has taken."""
    full = Objective(objective.model, first(data, images), ghost_batch=GHOST_BATCH)
    costs = rows(full, k=1)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"images": images, "rows": costs, "GiB": memory}


def draw(results: list[dict[str, Any]]) -> None:
    figure = Figure(figsize=(5.5, 3.6), layout="constrained")
    axes = figure.subplots()
    for position, (name, label) in enumerate(LABELS.items()):
        points = [(result["images"], result["rows"][name][0]) for result in results]
        axes.loglog(*zip(*points, strict=True), "o-", color=COLOURS[position], label=label)
    axes.set(xlabel="images, in ghost batches of 250", ylabel="a reading, in gradients over the images")
    axes.set_xticks(SIZES, [f"{size:,}" for size in SIZES])
    axes.set_yticks([5, 10, 20, 50, 100], ["5", "10", "20", "50", "100"])
    axes.minorticks_off()
    axes.legend(frameon=False)
    figure.savefig(PATH, dpi=130, metadata={"Software": None})


def main() -> None:
    if not DATA.exists():
        print(f"  {DATA} is missing: nothing to measure", file=sys.stderr)
        return
    torch.set_num_threads(1)
    STORE.parent.mkdir(exist_ok=True)
    results = [json.loads(line) for line in STORE.read_text().splitlines()] if STORE.exists() else []
    left = [size for size in SIZES if size not in {result["images"] for result in results}]
    if left:
        data = datasets.load(f"folder:{DATA}", limit=max(SIZES))
        objective = trained(data)
        for size in left:
            results.append(measured(objective, data, size))
            with STORE.open("a") as file:
                file.write(json.dumps(results[-1]) + "\n")
    print("  | images | search | gradients a reading | products | relative error | peak memory, GiB |")
    print("  |---|---|---|---|---|---|")
    for result in results:
        truth = max(values[0] for _, values, _ in result["rows"].values())
        for name, (cost, values, products) in result["rows"].items():
            cells = f"{name} | {cost:.1f} | {products} | {1 - values[0] / truth:.0e} | {result['GiB']:.1f}"
            print(f"  | {result['images']:,} | {cells} |")
    draw(results)
    print(f"  drew {PATH}")
