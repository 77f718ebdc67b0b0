"""Runs that look like real ones, made without training: what the tests of the readers read."""

import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from optim_family.runs.columns import Columns
from optim_family.runs.run import Run
from optim_family.runs.store import RunStore
from optim_family.training.spec import RunSpec

GD = {"lr": 0.2, "weight_decay": 0.005, "momentum": 0.0}
RMSPROP = {
    "lr": 0.01,
    "weight_decay": 0.05,
    "beta2": 0.99,
    "eps": 1e-8,
    "moment": "diagonal",
    "norm": "global",
    "preconditioning": "scale-invariant",
}


def run_spec(
    optimizer: str = "rmsprop", hyper: dict[str, Any] | None = None, **fields: Any
) -> dict[str, Any]:
    """The specification of a run, with these changes of the usual hyper-parameters."""
    usual = GD if optimizer == "gd" else RMSPROP
    whole = RunSpec(optimizer=optimizer, hyper=usual | (hyper or {}), **fields)
    return whole.model_dump(mode="json")


def make_run(
    optimizer: str = "gd",
    hyper: dict[str, Any] | None = None,
    *,
    records: int = 60,
    every: int = 10,
    status: str = "done",
    seed: int = 0,
    edge_at: float = 0.25,
    path: str = "runs/a",
    **spec: Any,
) -> Run:
    """A run that reaches its edge of stability after a part `edge_at` of its records."""
    whole = run_spec(optimizer, hyper, steps=max(1, records) * every, every=every, seed=seed, **spec)
    noise = random.Random(seed)
    log = [record(i, records, every, optimizer, whole["hyper"], edge_at, noise) for i in range(records)]
    state = {"status": status, "step": log[-1]["step"], "seconds": 12.5} if log else {"status": status}
    return holding(Run(Path(path), whole, state, {}, Columns([]), list), log)


def holding(run: Run, records: list[dict[str, Any]]) -> Run:
    """The run, with other records, which may be changed until a column is looked at."""
    return replace(run, columns=Columns([records]), read=lambda: records)


def record(
    i: int,
    records: int,
    every: int,
    optimizer: str,
    hyper: dict[str, Any],
    edge_at: float,
    noise: random.Random,
) -> dict[str, Any]:
    """Progressive sharpening to the threshold, then a slow fall with oscillation; fitted on the way."""
    shrink = hyper["lr"] * hyper["weight_decay"]
    step, t = i * every, i / max(records - 1, 1)
    at_edge = max(0.0, t - edge_at)
    ratio = math.exp(-4 * max(0.0, 1 - t / edge_at) ** 1.5) if t < edge_at else 1.08 + noise.gauss(0, 0.12)
    norm = 10 * math.exp(0.3 * at_edge)
    effective = hyper["lr"] / ((1 - shrink) * norm**2)
    loss = 0.45 * math.exp(-14 * t) + 2e-4 * (t >= edge_at) * (1 + 0.6 * noise.random()) + 1e-5
    train = min(1.0, round(1 - 0.9 * math.exp(-16 * t), 2)) if t < edge_at * 1.3 else 1.0
    plain = ratio * 2 / effective if optimizer == "gd" else 900 * math.exp(-1.2 * t) * (0.3 + min(1, 4 * t))
    views = {"spherical": reading(plain, 2 / effective if optimizer == "gd" else None, noise)}
    if optimizer != "gd":
        views["spherical-preconditioned"] = reading(ratio * 2 / effective, 2 / effective, noise)
    return {
        "step": step,
        "tau": shrink * step,
        "train_loss": loss,
        "peak_loss": loss * (1 + 2 * noise.random() * (t >= edge_at)),
        "train_accuracy": train,
        "test_accuracy": 0.1 + 0.72 * (1 - math.exp(-12 * t)) + 0.1 * at_edge + noise.gauss(0, 0.004),
        "weight_norm": norm,
        "gradient_norm": 0.1 * math.sqrt(loss),
        "effective_lr": effective,
        "lr": hyper["lr"],
        "elapsed": 0.3 * i,
        "views": views,
    }


def reading(value: float, threshold: float | None, noise: random.Random) -> dict[str, Any]:
    """One reading, good to a thousandth; every thirtieth or so has not converged and is good to a tenth."""
    good = noise.random() > 0.03
    return {
        "value": value,
        "threshold": threshold,
        "ratio": None if threshold is None else value / threshold,
        "residual": 0.03 * value,
        "error": (1e-3 if good else 0.1) * abs(value),
        "bound": (5e-2 if good else 1.0) * abs(value),
        "products": 7 if good else 200,
        "seconds": 0.1,
        "converged": good,
    }


def with_along(run):
    """The run, measured along its updates from its second record on; one update did not descend."""
    for i, each in enumerate(run.records[1:]):
        ratio = 0.9 + 0.01 * i
        each["along"] = {
            **{"curvature": 3.0 + i, "smoothness": 2.5 + i, "smoothness_ratio": ratio + 0.05},
            **{"critical": 2 * ratio / each["lr"], "critical_ratio": ratio},
            **{"rotation": 0.02 + 0.001 * i, "equilibrium_rotation": 0.03},
            **{"loss_change": -0.1, "forward_passes": 9},
        }
    run.records[2]["along"] |= {"critical": None, "critical_ratio": None, "smoothness_ratio": None}
    return run


def with_batches(run, beta=0.9):
    """The run, measured along mini-batch gradients, between the plateaus of momentum β."""
    share = (1 - beta) / (1 + beta)
    for each in run.records:
        for view, one in list(each["views"].items()):
            small = {} if one["threshold"] is None else {"small_batch_threshold": share * one["threshold"]}
            ratio = {"small_batch_ratio": 0.3 / share} if small else {}
            value = {"value": 0.3 * one["threshold"], "ratio": 0.3} if small else {}
            each["views"][f"{view}-batch"] = {**one, **value, **small, **ratio, "converged": True}
    return run


def in_norm(run, threshold=True):
    """The run of a normalised step: the view in the optimizer's norm, with or without a threshold."""
    for each in run.records:
        each["views"]["spherical"] |= {"threshold": None, "ratio": None}
        limit = (2 - each["lr"] * run.spec["hyper"]["weight_decay"]) / each["lr"] if threshold else None
        each["views"]["generalized"] = {
            **each["views"]["spherical"],
            **{"value": 9.0, "threshold": limit, "ratio": limit and 9.0 / limit, "dual": 3.0},
        }
    return run


def stored(folder, run):
    """A run directory that holds this run."""
    with RunStore.open(folder, run.spec) as store:
        for each in run.records:
            store.append(each)
        store.write("status.json", run.status)
