"""A training step, as a multiple of the same step written as a bare torch loop (target: at most 1.05).

Both train bn_cnn on 200 digits with the full batch, in blocks of steps that take turns; the ratio is the
median over the blocks.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from optim_family import backbones, data
from optim_family.objective import Objective, half_squared_error
from optim_family.optimizers.gd import GD

BLOCKS, STEPS = 40, 25
LR, DECAY = 0.5, 2e-3


def network(dataset: data.Dataset) -> nn.Module:
    return backbones.build("bn_cnn", classes=10, channels=1, size=dataset.size)


def ours(dataset: data.Dataset) -> Callable[[], None]:
    objective = Objective(network(dataset), dataset)
    optimizer = GD(objective.space.tensors, lr=LR, weight_decay=DECAY)

    def step() -> None:
        float(objective.gradient(0))
        optimizer.step()

    return step


def bare(dataset: data.Dataset) -> Callable[[], None]:
    model = network(dataset)
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


def seconds(step: Callable[[], None]) -> float:
    begin = time.perf_counter()
    for _ in range(STEPS):
        step()
    return (time.perf_counter() - begin) / STEPS


def main() -> None:
    dataset = data.load("digits", limit=200)
    sides = {"bare torch loop": bare(dataset), "optim-family": ours(dataset)}
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
