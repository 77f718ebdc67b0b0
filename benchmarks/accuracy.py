"""How often a reading of λ₁ is wrong along training, compared with other tools.

Networks with and without BatchNorm are trained by four optimizers on digits, and each view is read every few
steps. The true value is the larger of two searches by `eigsh` at 1e-8 from different starts; the share of
pairs that agree is printed. Other tools read the raw view of a loss in one batch, and claim no error.
Runs are stored in runs/accuracy.jsonl; the command resumes after the last stored run.
"""

import json
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from scipy import stats

from benchmarks.reading import Plain, optional_solvers, scipys
from optim_family import registry
from optim_family.sharpness.probe import Probe, view_operator
from optim_family.sharpness.views import VIEWS
from optim_family.training.experiment import Experiment, build_experiment
from optim_family.training.spec import RunSpec

ROWS = Path("runs/accuracy.jsonl")
RTOL, STEPS, FIRST = 1e-3, 1000, 50
RATES = {"gd": 0.1, "sgd": 0.1, "rmsprop": 0.02, "adamw": 0.01}
DECAY = {"gd": 5e-3, "sgd": 5e-3, "rmsprop": 0.05, "adamw": 0.1}
# Model, its normalisation, seeds, and steps between two readings.
NETWORKS = (
    ("bn_mlp", None, 4, 25),
    ("bn_cnn", None, 2, 25),
    ("bn_cnn", "none", 2, 25),
    ("resnet20_narrow", None, 1, 100),
)
EIGSH = "eigsh, which=LA, ncv=8, tol=1e-3"
OURS = "optim-family"


@final
@dataclass(frozen=True)
class Trajectory:
    """One run along which readings are taken."""

    model: str
    norm: str | None
    optimizer: str
    seed: int
    every: int

    def experiment(self) -> Experiment:
        """At its start."""
        hyper = registry.load(self.optimizer).Hyper(
            lr=RATES[self.optimizer], weight_decay=DECAY[self.optimizer]
        )
        batch = {"batch_size": 50, "ghost_batch": 50} if self.optimizer == "sgd" else {"ghost_batch": 100}
        return build_experiment(
            RunSpec(
                optimizer=self.optimizer,
                hyper=hyper.model_dump(mode="json"),
                model=self.model,
                data="digits",
                limit=100,
                seed=self.seed,
                steps=STEPS,
                **({"norm": self.norm} if self.norm else {}),
                **batch,
            )
        )


def trajectories() -> Iterator[Trajectory]:
    for (model, norm, seeds, every), optimizer in product(NETWORKS, RATES):
        for seed in range(seeds):
            yield Trajectory(model, norm, optimizer, seed, every)


def rows(trajectory: Trajectory) -> Iterator[dict[str, Any]]:
    """All readings along one run."""
    experiment = trajectory.experiment()
    objective, others = experiment.objective, optional_solvers()
    views = [VIEWS[name] for name in ("raw", "spherical", "preconditioned", "spherical-preconditioned")]
    if trajectory.norm == "none":
        views = [view for view in views if not view.spherical]
    if trajectory.optimizer in ("gd", "sgd"):
        views = [view for view in views if not view.preconditioned]
    probes = {view.name: Probe(view, rtol=RTOL, seed=trajectory.seed) for view in views}
    for step in range(STEPS):
        if step >= FIRST and step % trajectory.every == 0:
            objective.gradient(step)
            geometry, weights = experiment.geometry(), objective.space.weights()
            for view in views:
                hessian = objective.hessian()
                reading = probes[view.name](hessian, weights, geometry)
                operator = view_operator(view, hessian, weights, geometry)
                scale = float(weights.norm()) ** 2 if view.spherical else 1.0
                truths = [
                    scale * scipys(operator, seed=seed, which="LA", ncv=30, tol=1e-8) for seed in (1, 2)
                ]
                row = {
                    **{"run": str(trajectory), "step": step, "view": view.name, "truths": truths},
                    **{"value": reading.value, "error": reading.error, "bound": reading.bound},
                    **{"converged": reading.converged, "products": reading.products},
                }
                if view.name == "raw" and trajectory.optimizer != "sgd":
                    row[EIGSH] = scipys(Plain(objective), which="LA", ncv=8, tol=1e-3)
                    row |= {name: solver(objective) for name, solver in others.items()}
                yield row
        experiment.optimizer_step(step, objective.gradient(step))


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Lines: per tool, readings, those off by more than the tolerance, with a 95 % bound, and the worst."""
    for row in rows:
        row["truth"], row[OURS] = max(row["truths"]), row["value"]
    agree = [abs(a / b - 1) < 1e-5 for a, b in (row["truths"] for row in rows)]
    yield f"{len(rows)} readings along {len({row['run'] for row in rows})} runs; the two searches for the"
    yield f"true value agree to 1e-5 in {100 * statistics.mean(agree):.2f} %; the larger one counts."
    yield "| tool | readings | off by more than 1e-3 | of 1,000 (95 % interval) | worst |"
    yield "|---|---|---|---|---|"
    tools = [OURS, EIGSH, *optional_solvers()]
    for tool in tools:
        off = np.array([abs(r[tool] / r["truth"] - 1) for r in rows if tool in r and is_claimed(r, tool)])
        wrong = int((off > RTOL).sum())
        low, high = stats.binomtest(wrong, len(off)).proportion_ci(method="exact")
        interval = f"{1000 * wrong / len(off):.1f} ({1000 * low:.1f} to {1000 * high:.1f})"
        yield f"| {tool} | {len(off)} | {wrong} | {interval} | {off.max():.0e} |"
    claimed = [row for row in rows if row["converged"]]
    covered = statistics.mean(abs(r["value"] - r["truth"]) <= r["error"] for r in claimed)
    bounded = statistics.mean(r["truth"] <= r["value"] + r["bound"] for r in claimed)
    yield f"{len(claimed)} of ours converged; `error` is at least the true error in {100 * covered:.2f} %,"
    products = statistics.median(row["products"] for row in rows)
    yield f"`bound` in {100 * bounded:.2f} %; {products:g} products (median)."


def is_claimed(row: dict[str, Any], tool: str) -> bool:
    """Ours says whether it converged; the others always return a value."""
    return tool != OURS or bool(row["converged"])


def main() -> None:
    torch.set_num_threads(1)
    ROWS.parent.mkdir(exist_ok=True)
    done = [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []
    finished = {row["run"] for row in done}
    for trajectory in trajectories():
        if str(trajectory) in finished:
            continue
        new = [*rows(trajectory)]
        with ROWS.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in new)
        done += new
        print(f"  {trajectory}: {len(new)} readings", file=sys.stderr, flush=True)
    for line in table(done):
        print(f"  {line}")
