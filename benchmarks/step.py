"""A training step, as a multiple of the same step written as a bare torch loop (target: at most 1.05).

Gradient descent on the full batch: bn_cnn on 200 digits, and vgg11_narrow on 250 images of noise, 32×32. The
bare loop runs in both memory layouts, and the faster one counts. Blocks of steps take turns; the ratio is the
median over the blocks.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
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

BLOCKS = 40
SETTINGS = (
    ("bn_cnn", "digits", 200, 25),
    ("vgg11_narrow", "noise", 250, 5),
)  # model, data, images, steps a block
LAYOUTS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
LR, DECAY = 0.5, 2e-3
OURS = "optim-family"


def ours(model: str, data: str, limit: int, folder: Path) -> Callable[[], object]:
    hyper = {"lr": LR, "weight_decay": DECAY}
    spec = RunSpec(optimizer="gd", hyper=hyper, model=model, data=data, limit=limit, steps=10**9, every=10**9)
    out = folder / f"run-{model}"
    store = RunStore.open(out, spec.model_dump(mode="json"))
    trainer = Trainer(build_experiment(spec), out, store, ProgressListener(), StopSignal())
    return trainer.step


def bare(model: str, dataset: datasets.Dataset, layout: torch.memory_format) -> Callable[[], object]:
    channels = dataset.x_train.shape[1]
    network = build.build(model, classes=10, channels=channels, size=dataset.size).to(memory_format=layout)
    weights = [p for p in network.parameters() if p.requires_grad]
    x, y = dataset.images(dataset.x_train, torch.float32).contiguous(memory_format=layout), dataset.y_train

    def step() -> None:
        for w in weights:
            w.grad = None
        loss = half_squared_error(network(x), y, 10)
        loss.backward()
        loss.item()
        with torch.no_grad():
            for w in weights:
                w.mul_(1 - LR * DECAY).sub_(w.grad, alpha=LR)

    return step


def seconds(step: Callable[[], object], steps: int) -> float:
    begin = time.perf_counter()
    for _ in range(steps):
        step()
    return (time.perf_counter() - begin) / steps


def noise(path: Path) -> str:
    """The name of a data set of 250 images of noise, 32×32 in three colours."""
    draw = np.random.default_rng(0)
    x, y = draw.integers(0, 256, (250, 32, 32, 3), dtype=np.uint8), np.arange(250) % 10
    np.savez(path, x_train=x, y_train=y, x_test=x[:10], y_test=y[:10])
    return f"npz:{path}"


def compare(model: str, data: str, limit: int, steps: int, folder: Path) -> None:
    name = noise(folder / "noise.npz") if data == "noise" else data
    dataset = datasets.load(name, limit=limit)
    sides = {f"bare, {key}": bare(model, dataset, layout) for key, layout in LAYOUTS.items()}
    sides[OURS] = ours(model, name, limit, folder)
    for step in sides.values():
        seconds(step, steps)
    times = [{key: seconds(step, steps) for key, step in sides.items()} for _ in range(BLOCKS)]
    medians = {key: statistics.median(t[key] for t in times) for key in sides}
    print(f"  {model}, {limit} images of {data}")
    for key, median in medians.items():
        print(f"    {key:<22} {1e3 * median:8.2f} ms a step")
    fastest = min(medians.keys() - {OURS}, key=medians.__getitem__)
    ratios = sorted(t[OURS] / t[fastest] for t in times)
    middle = f"{ratios[BLOCKS // 4]:.3f} to {ratios[-BLOCKS // 4]:.3f}"
    print(f"    ratio to {fastest:<13} {statistics.median(ratios):8.3f}   (middle half: {middle})")


def main() -> None:
    with TemporaryDirectory() as folder:
        for setting in SETTINGS:
            compare(*setting, Path(folder))
