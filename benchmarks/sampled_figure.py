"""How a reading from a sample converges, beside Lanczos: draws docs/sampled-reading.png.

A BN CNN on 1,400 digits in 14 ghost batches, trained by SGD for 600 steps. The true value is that of `eigsh`
at 1e-9.
"""

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.linalg import eigh

from benchmarks.reading import Recorded, scipys
from optim_family.curvature.sampled_lanczos import SampledSearch
from optim_family.data import datasets
from optim_family.figures.style import COLOURS, DASHES
from optim_family.networks import build
from optim_family.sharpness.probe import Probe
from optim_family.training.objective import Objective

LR, DECAY, STEPS, GHOST_BATCH, RTOL = 0.2, 5e-3, 600, 100, 1e-3
PATH = "docs/sampled-reading.png"


def trained() -> Objective:
    digits = datasets.load("digits", limit=1400)
    model = build.build("bn_cnn", classes=10, channels=1, size=digits.size)
    objective = Objective(model, digits, ghost_batch=GHOST_BATCH, batch_size=GHOST_BATCH)
    for step in range(STEPS):
        objective.gradient(step)
        w, g = objective.space.weights(), objective.space.gradient()
        objective.space.assign((1 - LR * DECAY) * w - LR * g)
    return objective


def ritz_values(recorded: Recorded) -> np.ndarray:
    """The largest Ritz value after each product."""
    vectors, products = (torch.stack(side).double() for side in (recorded.vectors, recorded.products))
    gram, projection = (vectors @ vectors.T).numpy(), (vectors @ products.T).numpy()
    sizes = range(1, len(gram) + 1)
    return np.array([eigh(projection[:m, :m], gram[:m, :m], eigvals_only=True)[-1] for m in sizes])


def main() -> None:
    torch.set_num_threads(1)
    objective = trained()
    hessian, weights = objective.hessian(), objective.space.weights()
    truth = scipys(hessian, which="LA", ncv=40, tol=1e-9)
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(hessian.dim, generator=generator)
    search = SampledSearch(hessian, start / start.norm(), 1, RTOL, 0, None)
    search.run(generator)
    full, inner, theta, error = map(np.array, zip(*search.history, strict=True))
    recorded = Recorded(hessian)
    Probe("raw", rtol=RTOL)(recorded, weights)
    lanczos = 1 - ritz_values(recorded) / truth
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    cost = full + inner * search.sample_share
    axes.semilogy(cost, error / truth, "o", ls=DASHES[1], color=COLOURS[1], label="from a sample: `error`")
    axes.semilogy(cost, 1 - theta / truth, "o-", color=COLOURS[1], label="from a sample: true error")
    axes.semilogy(1 + np.arange(len(lanczos)), lanczos, "s-", color=COLOURS[0], label="Lanczos: true error")
    axes.axhline(RTOL, color="black", ls=":", lw=1, label="rtol")
    axes.set(
        xlabel="products over all data, those with the sample by its share", ylabel="relative error of λ₁"
    )
    axes.set(ylim=(1e-7, 2), xlim=(0, None))
    axes.legend(frameon=False)
    figure.savefig(PATH, dpi=130, metadata={"Software": None})
    print(f"  sample {search.sample_share:.3f}; products, sample products, true error, `error`:")
    for row in zip(full, inner, 1 - theta / truth, error / truth, strict=True):
        print("  {} {} {:.1e} {:.1e}".format(*row))
    print(f"  Lanczos: {len(lanczos)} products, true error {lanczos[-1]:.1e}; drew {PATH}")
