"""Choose the learning rate of each member, and write the study.

    python results/zoo/choose_rates.py runs/zoo-rates

The rate is that of the lowest training loss at the end of a run of another seed; test images have no part in
it. What is finished is not computed again.
"""

import csv
import math
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from members import (
    BEYOND,
    CHOICE_SEED,
    CHOICE_STEPS,
    DATA,
    EVERY,
    MEMBERS,
    RATES,
    SEEDS,
    STEPS,
    Member,
)

from optim_family.errors import PluginError
from optim_family.runs.layout import STATUS
from optim_family.runs.run import column, read_run
from optim_family.study.grid import Mistake, expand
from optim_family.training.loop import train
from optim_family.training.spec import RunSpec

HERE = Path(__file__).parent
ENDED = ("done", "diverged", "failed")  # failed: numbers beyond float32 in the optimizer
QUESTION = "Does every optimizer train at its own edge of stability, in its own geometry?"
SHARED = {
    "data": DATA,
    "train": {"model": "bn_cnn", "batch_size": "full", "steps": STEPS, "seeds": list(SEEDS)},
    "measure": {"every": EVERY, "rtol": 1e-2, "along": True, "budget": 50},
}


def main(out: Path) -> None:
    """All members, one after the other."""
    torch.set_num_threads(1)
    losses = {label: tried(out, member) for label, member in MEMBERS.items()}
    rates = sorted({rate for each in losses.values() for rate in each})
    with (HERE / "rates.csv").open("w", newline="", encoding="utf-8") as file:
        rows = (
            [label, *(f"{each.get(rate, math.nan):.4g}" for rate in rates)] for label, each in losses.items()
        )
        csv.writer(file, lineterminator="\n").writerows([["optimizer", *rates], *rows])
    (HERE / "zoo.toml").write_text(
        study({label: best(each) for label, each in losses.items()}), encoding="utf-8"
    )


def tried(out: Path, member: Member) -> dict[float, float]:
    """The final training loss at each rate; also at rates beyond the first six while an end is the best."""
    losses = {rate: final_loss(out, member, rate) for rate in RATES}
    more = sorted((*RATES, *BEYOND))
    while (at := more.index(best(losses))) not in (0, len(more) - 1):
        missing = [rate for rate in (more[at - 1], more[at + 1]) if rate not in losses]
        if not missing:
            break
        losses |= {rate: final_loss(out, member, rate) for rate in missing}
    return losses


def best(losses: Mapping[float, float]) -> float:
    """The rate of the lowest loss."""
    return min(losses, key=lambda rate: losses[rate])


def final_loss(out: Path, member: Member, rate: float) -> float:
    """The training loss at the end of one run, ∞ if it did not reach it."""
    spec = run_spec(member, rate)
    folder = out / spec.title
    if not (folder / STATUS).exists() or read_run(folder).status["status"] not in ENDED:
        with suppress(PluginError):
            train(spec, folder, resume=True)
    run = read_run(folder)
    loss = column(run, "train_loss")[-1] if run.status["status"] == "done" else math.inf
    print(f"{spec.optimizer} lr {rate:g}: {loss:.4g}", flush=True)
    return loss if math.isfinite(loss) else math.inf


def run_spec(member: Member, rate: float) -> RunSpec:
    """The run of a rate: the study's, but shorter, of another seed, and measured at its ends only."""
    data = {"data": DATA["name"], "limit": DATA["limit"], "ghost_batch": DATA["ghost_batch"]}
    ends = {"steps": CHOICE_STEPS, "every": CHOICE_STEPS, "seeds": CHOICE_SEED, "views": ["spherical"]}
    grid = {key: value for key, value in member.grid(rate).items() if key != "batch_sharpness"}
    shared = {**SHARED["train"], **data, **ends, "rtol": 1e-2, "device": "cpu"}
    (spec,) = expand(shared, grid)
    if isinstance(spec, Mistake):
        raise ValueError(f"{member.optimizer}: {spec.text}")
    return spec


def study(rates: Mapping[str, float]) -> str:
    """The study as TOML, a grid for each member."""
    lines = ["# Written by choose_rates.py.", f'question = "{QUESTION}"']
    lines += ['claims = ["edge", "sharpness-falls"]', ""]
    lines += [f"{name} = {{ {', '.join(_pairs(values))} }}" for name, values in SHARED.items()]
    for label, rate in rates.items():
        lines += ["", f"[[grid]]  # {label}", *_pairs(MEMBERS[label].grid(rate))]
    return "\n".join(lines) + "\n"


def _pairs(values: Mapping[str, Any]) -> list[str]:
    return [f"{key} = {_toml(value)}" for key, value in values.items()]


def _toml(value: Any) -> str:
    return (
        f'"{value}"'
        if isinstance(value, str)
        else str(value).lower()
        if isinstance(value, bool)
        else f"{value}"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
