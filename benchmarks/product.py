"""A Hessian-vector product and a reading, as multiples of a gradient: bn_cnn on 200 digits."""

import statistics

import torch

from benchmarks import seconds
from optim_family.curvature.hessian import Hessian
from optim_family.data import datasets
from optim_family.networks import build
from optim_family.sharpness.probe import Probe
from optim_family.training.objective import Objective

ROUNDS = 15


def main() -> None:
    dataset = datasets.load("digits", limit=200)
    objective = Objective(build.build("bn_cnn", classes=10, channels=1, size=dataset.size), dataset)
    chunks, weights = objective.chunk_losses(), objective.space.tensors
    retained, rebuilt = (Hessian(chunks, weights, mode) for mode in ("retained", "rebuilt"))
    v, probe = torch.randn(objective.space.dim), Probe("spherical")
    sides = {
        "gradient": lambda: objective.gradient(0),
        "product, graph retained": lambda: retained @ v,
        "product, graph rebuilt": lambda: rebuilt @ v,
        "reading": lambda: probe(objective.hessian(), objective.space.weights()),
    }
    for work in sides.values():
        work()
    times = [{name: seconds(work)[0] for name, work in sides.items()} for _ in range(ROUNDS)]
    for name in sides:
        ratio = statistics.median(t[name] / t["gradient"] for t in times)
        print(f"  {name:<24} {ratio:6.2f} gradients (median of {ROUNDS})")
