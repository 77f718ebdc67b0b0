"""Seconds of training and of measuring in a run of the study case-1-case-2-cifar10, by the kind of reading.

The first 600 of its 4,000 steps of SGD with weight decay, with a record every 100, on 5,000 images in 20
ghost batches. Needs ../shared/data/cifar10-5k.npz.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.sampled import DATA
from optim_family.runs.run import read_run
from optim_family.training.loop import train
from optim_family.training.spec import RunSpec

RUN: dict[str, Any] = {
    **{"optimizer": "sgd", "hyper": {"lr": 0.5, "weight_decay": 1e-3}, "model": "vgg11_narrow"},
    **{"data": f"npz:{DATA}", "batch_size": 250, "ghost_batch": 250, "schedule": "warmup:steps=200"},
    **{"limit": 5000, "steps": 600, "every": 100},
}


def row(reading: str, out: Path) -> str:
    """Train, and add up the seconds of the readings."""
    train(RunSpec(**RUN, reading=reading), out)
    records = read_run(out).records
    readings = [reading for record in records for reading in record["views"].values()]
    measuring = sum(reading["seconds"] for reading in readings)
    training = records[-1]["elapsed"] - measuring
    sampled = sum(reading.get("method") == "sampled" for reading in readings)
    seconds = f"{training:.0f} | {measuring:.0f} | {measuring / training:.1f}"  # the ratio without the load
    return f"| {reading} | {seconds} | {sampled} of {len(readings)} |"


def main() -> None:
    if not DATA.exists():
        print(f"  {DATA} is missing: nothing to measure", file=sys.stderr)
        return
    torch.set_num_threads(1)
    print("  | reading | training and evaluation, s | measuring, s | measuring / training | from a sample |")
    print("  |---|---|---|---|---|")
    for reading in ("lanczos", "auto"):
        with TemporaryDirectory() as folder:
            print(f"  {row(reading, Path(folder) / 'run')}", flush=True)
