"""On real data with BN and weight decay, GD moves to flatter minima after 100 % training accuracy.

A network that is exactly scale-invariant, `bn_cnn` on 200 digits, full batch, ½ mean ‖f − y‖², η = 0.5, λ =
0.002, 3000 steps, three seeds. From the first record at 100 % training accuracy on

    with BN and weight decay   S stays near 2/ℓ and falls, and test accuracy rises
    without weight decay       S does not fall, and test accuracy does not rise
    without BN                 λ₁(H) does not fall (η = 0.03, where that network trains)

and the first ends at the best test accuracy. Late numbers are medians over the last quarter of the records.
Without BN test accuracy still rises a little while the loss is being fitted; there the statement only
requires that it ends lower.

Source: K. Lyu, Z. Li, S. Arora, "Understanding the generalization benefit of normalization layers:
sharpness reduction", NeurIPS 2022, for the statement, on other networks and data; the settings are ours.
"""

import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any, Final, final

from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from optim_family import registry
from optim_family.figures.style import GREY
from optim_family.runs.run import Run, column, first_fit_index, read_run
from optim_family.theory.page import dots
from optim_family.theory.verify import NumericCheck
from optim_family.training.spec import RunSpec

SEEDS, STEPS, EVERY = (0, 1, 2), 3000, 50
FULL, NO_DECAY, NO_NORM = "BN and weight decay", "no weight decay", "no BN"
SETTINGS: Final[Mapping[str, Mapping[str, Any]]] = {
    FULL: {"norm": "frozen-affine", "lr": 0.5, "weight_decay": 2e-3},
    NO_DECAY: {"norm": "frozen-affine", "lr": 0.5, "weight_decay": 0.0},
    NO_NORM: {"norm": "none", "lr": 0.03, "weight_decay": 2e-3},
}
LOW, HIGH = 0.9, 1.6  # of the ratio
FLATTER, AS_SHARP, RISE = 0.5, 0.95, 0.01


@final
@dataclass(frozen=True)
class RunTail:
    """The records of a run from the first one at 100 % training accuracy on.

    Attributes:
        sharpness: S, or λ₁ without BN, over its first value.
        accuracy: of the test set, a fraction.
        ratio: the median of sharpness over threshold.
    """

    sharpness: list[float]
    accuracy: list[float]
    ratio: float

    @classmethod
    def of(cls, run: Run) -> "RunTail":
        """The tail of a run; empty if training accuracy never reaches 100 %."""
        view = "raw" if run.spec["norm"] == "none" else "spherical"
        begin = first_fit_index(run)
        fields = f"{view}.value", f"{view}.ratio", "test_accuracy"
        values, ratios, accuracy = ([] if begin is None else column(run, field)[begin:] for field in fields)
        return cls([value / values[0] for value in values], accuracy, median(ratios) if ratios else math.nan)

    @property
    def late(self) -> tuple[float, float]:
        """Sharpness and accuracy, medians over the last quarter; NaN if the tail is empty."""
        if not self.accuracy:
            return math.nan, math.nan
        count = max(1, len(self.accuracy) // 4)
        return median(self.sharpness[-count:]), median(self.accuracy[-count:])

    @property
    def gain(self) -> float:
        """Late test accuracy minus that of the first record."""
        return self.late[1] - self.accuracy[0] if self.accuracy else math.nan


TailsBySetting = dict[str, list[RunTail]]


def observe() -> TailsBySetting:
    """Train every setting with every seed."""
    with tempfile.TemporaryDirectory() as folder:
        return {
            name: [RunTail.of(run(setting, seed, Path(folder) / f"{index}-{seed}")) for seed in SEEDS]
            for index, (name, setting) in enumerate(SETTINGS.items())
        }


def run(setting: Mapping[str, Any], seed: int, folder: Path) -> Run:
    """Train once, as `optim-family run` does."""
    from optim_family.training.loop import train  # imports timm, which listing the cases does not need

    hyper = registry.load("gd").Hyper(lr=setting["lr"], weight_decay=setting["weight_decay"]).model_dump()
    problem: dict[str, Any] = {"model": "bn_cnn", "norm": setting["norm"], "data": "digits", "limit": 200}
    spec = RunSpec(optimizer="gd", hyper=hyper, **problem, steps=STEPS, every=EVERY, seed=seed)
    train(spec, folder)
    return read_run(folder)


def checks(tails: TailsBySetting) -> Iterator[NumericCheck]:
    """The phenomenon with BN and weight decay, and its absence without one of them."""
    for seed, tail in zip(SEEDS, tails[FULL], strict=True):
        yield NumericCheck(f"{FULL}, seed {seed}: median of S / (2/ℓ)", tail.ratio, LOW, HIGH)
    for name, runs in tails.items():
        for seed, tail in zip(SEEDS, runs, strict=True):
            bounds = (-math.inf, FLATTER) if name == FULL else (AS_SHARP, math.inf)
            yield NumericCheck(f"{name}, seed {seed}: sharpness, late / at the fit", tail.late[0], *bounds)
    for name, bounds in ((FULL, (RISE, math.inf)), (NO_DECAY, (-math.inf, RISE))):
        gain = fmean(tail.gain for tail in tails[name])
        yield NumericCheck(f"{name}: gain of test accuracy, mean of the seeds", gain, *bounds)
    for name in (NO_DECAY, NO_NORM):
        pairs = zip(tails[FULL], tails[name], strict=True)
        lead = min(full.late[1] - other.late[1] for full, other in pairs)
        quantity = f"late test accuracy above that with {name}, the least of the seeds"
        yield NumericCheck(quantity, lead, 0.0, math.inf)


def draw(ax: Axes, tails: TailsBySetting) -> None:
    """Sharpness and test accuracy from the fit to the end, one line a run."""
    for index, (name, runs) in enumerate(tails.items()):
        color = dots(index)["color"]
        for tail in runs:
            ax.plot(tail.sharpness, tail.accuracy, color=color, linewidth=0.6, alpha=0.5)
            ax.plot(tail.sharpness[:1], tail.accuracy[:1], **dots(index) | {"mfc": "none"})
            ax.plot(tail.late[0], tail.late[1], **dots(index) | {"markersize": 8})
        ax.plot([], [], label=name, **dots(index))
    ax.plot([], [], "o", color=GREY, mfc="none", markersize=4, label="at 100 % training accuracy")
    ax.plot([], [], "o", color=GREY, markersize=8, label="late median")
    ax.set(xscale="log", xlabel="sharpness / sharpness at 100 % training accuracy", ylabel="test accuracy")
    ax.set_xticks(ticks := (0.2, 0.3, 0.5, 1.0, 1.5), [f"{tick:g}" for tick in ticks])
    ax.xaxis.set_minor_formatter(NullFormatter())
