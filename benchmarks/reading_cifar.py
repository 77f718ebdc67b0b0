"""A reading of λ₁ on many ghost batches, as multiples of a gradient: Lanczos, a sample, tuned `eigsh`.

VGG-11 and ResNet-20 narrow on 1,000 and 5,000 CIFAR-10 images in ghost batches of 125 and 250, trained by SGD
with weight decay; for VGG-11 on 5,000 images also the four largest eigenvalues. All tools run in one process,
in turn; times are processor times of one thread. Of all values the largest counts as the true one, since none
is above λ₁; the error is that of the last eigenvalue. Needs ../shared/data/cifar10-5k.npz.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from benchmarks.reading import Plain, scipys
from benchmarks.sampled import DATA
from optim_family.curvature.hessian import Hessian
from optim_family.data import datasets
from optim_family.networks import build
from optim_family.sharpness.probe import Probe, Reading
from optim_family.training.objective import Objective

LR, DECAY = 0.1, 5e-3
# Model, images, ghost batch, eigenvalues, points in steps.
SETTINGS = (
    ("vgg11_narrow", 1000, 125, (1,), (100, 200, 300)),
    ("vgg11_narrow", 5000, 250, (1, 4), (200, 400)),
    ("resnet20_narrow", 1000, 125, (1,), (200,)),
    ("resnet20_narrow", 5000, 250, (1,), (200,)),
)
EIGSH = "eigsh, which=LA, ncv=8, tol=1e-3"


def processor_seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.process_time()
    result = work()
    return time.process_time() - begin, result


def sgd_step(objective: Objective, step: int) -> None:
    """With the weight decay decoupled from the gradient."""
    objective.gradient(step)
    w, g = objective.space.weights(), objective.space.gradient()
    objective.space.assign((1 - LR * DECAY) * w - LR * g)


def our_reading(objective: Objective, probe: Probe) -> Reading:
    hessian = Hessian(objective.chunk_losses(), objective.space.tensors)  # its plan is part of the cost
    return probe(hessian, objective.space.weights())


def rows(full: Objective, k: int) -> dict[str, tuple[float, tuple[float, ...], str]]:
    """Time in gradients, the k values, and the products of each tool at the present weights."""
    gradient, _ = min(processor_seconds(partial(full.gradient, 0)) for _ in range(3))
    result: dict[str, tuple[float, tuple[float, ...], str]] = {}
    for method in ("lanczos", "sampled"):
        seconds, reading = processor_seconds(partial(our_reading, full, Probe("raw", k=k, reading=method)))
        products = f"{reading.products} + {reading.sample_products} × {reading.sample_share:.3f}"
        result[method] = seconds / gradient, reading.top, products
    if k == 1:
        seconds, value = processor_seconds(partial(scipys, Plain(full), which="LA", ncv=8, tol=1e-3))
        result[EIGSH] = seconds / gradient, (value,), "–"
    return result


def compare(model: str, images: int, ghost_batch: int, ks: tuple[int, ...], points: tuple[int, ...]) -> None:
    data = datasets.load(f"npz:{DATA}", limit=images)
    network = build.build(model, classes=10, channels=3, size=data.size)
    objective = Objective(network, data, ghost_batch=ghost_batch, batch_size=ghost_batch)
    full = Objective(network, data, ghost_batch=ghost_batch)
    print(f"\n  {model}, D = {full.space.dim:,}, n = {images:,}, {images // ghost_batch} ghost batches")
    print("  | step | eigenvalues | search | gradients a reading | products | relative error |")
    print("  |---|---|---|---|---|---|")
    for step in range(points[-1] + 1):
        for k in ks if step in points else ():
            results = rows(full, k)
            truth = max(values[-1] for _, values, _ in results.values())
            for name, (cost, values, products) in results.items():
                error = f"{1 - values[-1] / truth:.0e}"
                print(f"  | {step} | {k} | {name} | {cost:.1f} | {products} | {error} |", flush=True)
        sgd_step(objective, step)


def main() -> None:
    if not DATA.exists():
        print(f"  {DATA} is missing: nothing to measure", file=sys.stderr)
        return
    torch.set_num_threads(1)
    for setting in SETTINGS:
        compare(*setting)
