"""Memory that a hundred readings leave behind (target: none)."""

import gc
import statistics

import psutil
import torch

from optim_family import backbones, data
from optim_family.objective import Objective
from optim_family.sharpness import Probe

READINGS, EDGE = 100, 10


def tensors() -> int:
    return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())


def main() -> None:
    dataset = data.load("digits", limit=200)
    model = backbones.build("bn_cnn", classes=10, channels=1, size=dataset.size)
    objective, probe, process = Objective(model, dataset), Probe("spherical"), psutil.Process()
    resident, alive = [], []
    for _ in range(READINGS):
        probe(objective.hessian(), objective.space.weights())
        gc.collect()
        resident.append(process.memory_info().rss / 2**20)
        alive.append(tensors())
    early, late = statistics.median(resident[:EDGE]), statistics.median(resident[-EDGE:])
    print(f"  resident memory    {early:7.1f} MiB, then {late:7.1f} MiB, after {READINGS} readings")
    print(f"  tensors alive      {alive[0]:7d}      then {alive[-1]:7d}")
