"""Tune each member on one seed, then measure it on three others: python results/zoo/train.py runs/zoo.

What is finished is not computed again, and what was begun is continued.
"""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from members import EVERY, MEMBERS, RATES, SEEDS, STEPS, SUBJECT, TUNING_SEED, TUNING_STEPS, Member

from optim_family import registry
from optim_family.errors import PluginError
from optim_family.runs.layout import STATUS
from optim_family.runs.run import Run, read_run
from optim_family.training.loop import train
from optim_family.training.spec import RunSpec

FINISHED = ("done", "diverged", "failed")  # failed: numbers beyond float32 in the optimizer


def main(out: Path) -> None:
    """All of them, one after the other."""
    torch.set_num_threads(1)
    for label, member in MEMBERS.items():
        lr = best(out, label, member)
        for seed in SEEDS:
            run = carried_out(out / slug(label), spec(member, lr, seed, STEPS, EVERY))
            print(label, lr, seed, run.status["status"], round(run.status["seconds"]), flush=True)


def best(out: Path, label: str, member: Member) -> float:
    """The rate that ends with the highest test accuracy; the smaller of two that are equal."""
    tried = {lr: spec(member, lr, TUNING_SEED, TUNING_STEPS, TUNING_STEPS) for lr in RATES}
    runs = {lr: carried_out(out / slug(label), tried[lr]) for lr in RATES}
    return max(RATES, key=lambda lr: (runs[lr].records[-1].get("test_accuracy") or 0.0, -lr))


def carried_out(out: Path, run: RunSpec) -> Run:
    """One run, or what is left of it."""
    folder = out / f"lr{run.hyper['lr']:g}-seed{run.seed}"
    if not (folder / STATUS).exists() or read_run(folder).status["status"] not in FINISHED:
        with suppress(PluginError):
            train(run, folder, resume=True)
    return read_run(folder)


def spec(member: Member, lr: float, seed: int, steps: int, every: int) -> RunSpec:
    """Every hyper-parameter said, as `run` does it."""
    hyper = registry.load(member.optimizer).Hyper(**member.values(lr)).model_dump(mode="json")
    more: dict[str, Any] = {"batch_size": member.batch, "ghost_batch": member.batch} if member.batch else {}
    return RunSpec(
        optimizer=member.optimizer,
        hyper=hyper,
        seed=seed,
        steps=steps,
        every=every,
        views=None if member.metric else ("spherical",),
        **SUBJECT,
        **more,
    )


def slug(label: str) -> str:
    """A label as a folder."""
    return "-".join("".join(c if c.isalnum() or c == "." else " " for c in label).split())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
