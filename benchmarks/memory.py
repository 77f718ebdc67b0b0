"""Memory: what a hundred readings leave behind (target: nothing), and what more data costs.

Graphs rebuilt for each product, 4 times the data should take at most 1.1 times the peak beyond the data
themselves; with graphs retained it is about 4 times. Each peak is that of a process of its own.
"""

import gc
import statistics
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from threading import Event, Thread
from typing import Literal

import psutil
import torch
from torch import nn

from optim_family import backbones, data, measure
from optim_family.objective import Objective
from optim_family.sharpness import Probe

READINGS, EDGE = 100, 10
CHUNK, CHUNKS, ROUNDS = 64, 2, 3


def resident() -> float:
    """MiB of this process."""
    return float(psutil.Process().memory_info().rss) / 2**20


def tensors() -> int:
    return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())


def readings() -> None:
    dataset = data.load("digits", limit=200)
    model = backbones.build("bn_cnn", classes=10, channels=1, size=dataset.size)
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


def peak(mode: Literal["retained", "rebuilt"], chunks: int) -> float:
    """MiB that one reading takes beyond model and data."""
    model = backbones.build("bn_cnn", classes=10, channels=3, size=(32, 32)).train()
    pairs = [(torch.randn(CHUNK, 3, 32, 32), torch.randint(10, (CHUNK,))) for _ in range(chunks)]
    before, seen, done = resident(), [0.0], Event()

    def watch() -> None:
        while not done.wait(0.001):
            seen.append(resident())

    watcher = Thread(target=watch)
    watcher.start()
    measure(model, nn.functional.cross_entropy, pairs, views=("raw",), mode=mode)
    done.set()
    watcher.join()
    return max(seen) - before


def growth() -> None:
    for mode in ("rebuilt", "retained"):
        peaks: dict[int, list[float]] = {CHUNKS: [], 4 * CHUNKS: []}
        for _ in range(ROUNDS):
            for chunks, found in peaks.items():
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
                    found.append(fresh.submit(peak, mode, chunks).result())
        small, large = (statistics.median(found) for found in peaks.values())
        print(
            f"  peak, {mode:<12} {small:7.1f} MiB at {CHUNK * CHUNKS} images, {large:7.1f} MiB at "
            f"{4 * CHUNK * CHUNKS}: ratio {large / small:.2f}   (median of {ROUNDS} processes)"
        )


def main() -> None:
    readings()
    growth()
