"""Products of a sampled reading of λ₁ against the size of the sample.

`vgg11_narrow` on 5,000 CIFAR-10 images in 20 ghost batches of 250, trained by SGD with weight decay as in
`reading_cifar`. The unit is a product over all images. Needs ../shared/data/cifar10-5k.npz.
"""

import sys

import torch

from benchmarks.reading_cifar import sgd_step
from benchmarks.sampled import DATA
from optim_family.curvature.hessian import Hessian
from optim_family.curvature.sampled_lanczos import sampled_top_eigenpairs
from optim_family.data import datasets
from optim_family.networks import build
from optim_family.training.objective import Objective

GHOST_BATCH, POINTS, SIZES, SEEDS = 250, (200, 400), (1, 2, 3, 4, 6), (0, 1)


def show(step: int, full: Objective) -> None:
    """A row for each size and seed; a search that does not converge is followed by Lanczos."""
    hessian = Hessian(full.chunk_losses(), full.space.tensors)
    for size in SIZES:
        for seed in SEEDS:
            pairs = sampled_top_eigenpairs(hessian, full.space.weights(), seed=seed, size=size)
            total = pairs.products + pairs.sample_products * pairs.sample_share
            products = f"{pairs.products} + {pairs.sample_products} × {pairs.sample_share:.2f} | {total:.1f}"
            print(f"  | {step} | {size} | {seed} | {products} | {pairs.converged} |", flush=True)


def main() -> None:
    if not DATA.exists():
        print(f"  {DATA} is missing: nothing to measure", file=sys.stderr)
        return
    torch.set_num_threads(1)
    data = datasets.load(f"npz:{DATA}")
    network = build.build("vgg11_narrow", classes=10, channels=3, size=data.size)
    batches = Objective(network, data, ghost_batch=GHOST_BATCH, batch_size=GHOST_BATCH)
    full = Objective(network, data, ghost_batch=GHOST_BATCH)
    print("  | step | ghost batches in the sample | seed | products | cost | converged |")
    print("  |---|---|---|---|---|---|")
    for step in range(POINTS[-1] + 1):
        if step in POINTS:
            show(step, full)
        sgd_step(batches, step)
