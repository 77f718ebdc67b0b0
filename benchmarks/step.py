"""A training step, as a multiple of the same step written as a bare torch loop (target: at most 1.05).

Both train bn_cnn on 200 digits with the full batch, in blocks of steps that take turns; the ratio is the
median over the blocks.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from optim_family.data import datasets
from optim_family.networks import build
from optim_family.runs.store import RunStore
from optim_family.training.experiment import build_experiment
from optim_family.training.loop import Trainer
from optim_family.training.objective import half_squared_error
from optim_family.training.progress import ProgressListener
from optim_family.training.spec import RunSpec
from optim_family.training.stop_signal import StopSignal

BLOCKS, STEPS = 40, 25
LR, DECAY, LIMIT = 0.5, 2e-3, 200


def ours(folder: str) -> Callable[[], object]:
    hyper = {"lr": LR, "weight_decay": DECAY}
    spec = RunSpec(optimizer="gd", hyper=hyper, limit=LIMIT, steps=10**9, every=10**9)
    store = RunStore.open(Path(folder), spec.model_dump(mode="json"))
    trainer = Trainer(build_experiment(spec), store, ProgressListener(), StopSignal())
    return trainer.step


def bare(dataset: datasets.Dataset) -> Callable[[], object]:
    model = build.build("bn_cnn", classes=10, channels=1, size=dataset.size)
    weights = [p for p in model.parameters() if p.requires_grad]
    x, y = dataset.images(dataset.x_train, torch.float32), dataset.y_train

    def step() -> None:
        for w in weights:
            w.grad = None
        loss = half_squared_error(model(x), y, 10)
        loss.backward()
        loss.item()
        with torch.no_grad():
            for w in weights:
                w.mul_(1 - LR * DECAY).sub_(w.grad, alpha=LR)

    return step


def seconds(step: Callable[[], object]) -> float:
    begin = time.perf_counter()
    for _ in range(STEPS):
        step()
    return (time.perf_counter() - begin) / STEPS


def main() -> None:
    dataset = datasets.load("digits", limit=LIMIT)
    folder = TemporaryDirectory()
    sides = {"bare torch loop": bare(dataset), "optim-family": ours(folder.name)}
    for step in sides.values():
        seconds(step)
    times = [{name: seconds(step) for name, step in sides.items()} for _ in range(BLOCKS)]
    for name in sides:
        print(f"  {name:<18} {1e3 * statistics.median(t[name] for t in times):7.2f} ms a step")
    ratios = sorted(t["optim-family"] / t["bare torch loop"] for t in times)
    middle = f"{ratios[BLOCKS // 4]:.3f} to {ratios[-BLOCKS // 4]:.3f}"
    print(
        f"  ratio              {statistics.median(ratios):7.3f}   (middle half of {BLOCKS} blocks: {middle})"
    )
