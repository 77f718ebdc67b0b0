"""Memory: whether a hundred readings leave any behind (target: none), and how the peak grows with the data.

With graphs rebuilt for each product, 4 times the data should take at most 1.1 times the peak beyond the data
themselves; with retained graphs it takes about 4 times the peak. torch's profiler counts the tensors; the
memory that the allocator keeps beyond them is not counted and varies from run to run. The last rows are a
whole reading of VGG-11 narrow on 5,000 images, by Lanczos and from a sample.
"""

import gc
import statistics
from collections.abc import Callable
from functools import partial
from itertools import accumulate, product
from typing import Any

import psutil
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from optim_family import measure
from optim_family.data import datasets
from optim_family.networks import build
from optim_family.sharpness.probe import Probe
from optim_family.training.objective import Objective

READINGS, EDGE = 100, 10
CHUNK, CHUNKS = 64, 2
ROUGH = 0.3  # rtol: the first product has the peak already
MANY, GHOST_BATCH = 20, 250


def resident() -> float:
    """MiB of this process."""
    return float(psutil.Process().memory_info().rss) / 2**20


def tensors() -> int:
    return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())


def readings() -> None:
    dataset = datasets.load("digits", limit=200)
    model = build.build("bn_cnn", classes=10, channels=1, size=dataset.size)
    objective, probe = Objective(model, dataset), Probe("spherical")
    memory, alive = [], []
    for _ in range(READINGS):
        probe(objective.hessian(), objective.space.weights())
        gc.collect()
        memory.append(resident())
        alive.append(tensors())
    early, late = statistics.median(memory[:EDGE]), statistics.median(memory[-EDGE:])
    print(f"  resident memory    {early:7.1f} MiB, then {late:7.1f} MiB, after {READINGS} readings")
    print(f"  tensors alive      {alive[0]:7d}      then {alive[-1]:7d}")


def pairs(chunks: int, size: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(torch.randn(size, 3, 32, 32), torch.randint(10, (size,))) for _ in range(chunks)]


def peak(work: Callable[[], object]) -> float:
    """MiB of tensors that the work has at once, beyond those from before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    changes = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    return max(accumulate(e.nbytes() for e in sorted(changes, key=lambda e: e.start_ns()))) / 2**20


def reading_peak(model: str, data: Any, rtol: float, **options: Any) -> float:
    """MiB of tensors that one reading has at once, beyond model and data."""
    network = build.build(model, classes=10, channels=3, size=(32, 32)).train()
    loss = nn.functional.cross_entropy
    return peak(partial(measure, network, loss, data, views=("raw",), rtol=rtol, **options))


def growth() -> None:
    for mode in ("rebuilt", "retained"):
        small, large = (
            reading_peak("bn_cnn", pairs(chunks, CHUNK), ROUGH, hvp=mode) for chunks in (CHUNKS, 4 * CHUNKS)
        )
        print(
            f"  peak, {mode:<12} {small:7.1f} MiB at {CHUNK * CHUNKS} images, {large:7.1f} MiB at "
            f"{4 * CHUNK * CHUNKS}: ratio {large / small:.2f}"
        )


def whole_readings() -> None:
    data = pairs(MANY, GHOST_BATCH)
    for reading, hvp in product(("lanczos", "sampled"), ("rebuilt", "retained")):
        mebibytes = reading_peak("vgg11_narrow", data, 1e-3, hvp=hvp, reading=reading)
        print(f"  peak of a reading, {reading:<7}, {hvp:<8} {mebibytes:7.1f} MiB", flush=True)


def main() -> None:
    readings()
    growth()
    whole_readings()
