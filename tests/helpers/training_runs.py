"""Small runs of the training loop, and what is compared of them."""

import hashlib

import numpy as np

from optim_family.errors import Stopped
from optim_family.training import checkpoint
from optim_family.training.spec import RunSpec
from optim_family.training.stop_signal import StopSignal

HYPER = {
    "gd": {"lr": 0.3, "weight_decay": 1e-2, "momentum": 0.5},
    "sgd": {"lr": 0.1, "weight_decay": 1e-2, "momentum": 0.9, "nesterov": True},
    "rmsprop": {"lr": 0.02, "weight_decay": 0.05},
    "adamw": {"lr": 0.01, "weight_decay": 0.1},
}
TIMINGS = ("elapsed", "seconds")


def spec(optimizer="gd", **changes):
    """A run of a few seconds at most, with these changes of its fields."""
    settings = {
        "model": "bn_mlp",
        "limit": 40,
        "steps": 8,
        "every": 2,
        "hyper": HYPER.get(optimizer, {}),
        "rtol": 1e-2,
    }
    return RunSpec(optimizer=optimizer, **(settings | changes))


def untimed(value):
    """The value without its timings."""
    if isinstance(value, dict):
        return {k: untimed(v) for k, v in value.items() if k not in TIMINGS}
    return value


def write_images(path, side) -> str:
    """Write random images; returns the name of the data set."""
    generator = np.random.default_rng(0)
    arrays = {}
    for part, size in (("train", 40), ("test", 20)):
        arrays[f"x_{part}"] = generator.integers(0, 256, (size, side, side, 3), dtype=np.uint8)
        arrays[f"y_{part}"] = np.arange(size) % 4
    np.savez(path, **arrays)
    return f"npz:{path}"


def weights_hash(path):
    _, tree = checkpoint.load_latest(path / "checkpoints", print)
    joined = b"".join(t.numpy().tobytes() for t in tree["model"].values())
    return hashlib.sha256(joined).hexdigest()


class StopAfter(StopSignal):
    """Says stop at the n-th time it is asked, which is before a step or before a Hessian product."""

    def __init__(self, n):
        super().__init__()
        self.left = n

    def check(self):
        self.left -= 1
        if self.left == 0:
            raise Stopped("stopped by a test")
