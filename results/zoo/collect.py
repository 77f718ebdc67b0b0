"""Table, figure and provenance of the runs of zoo.toml: python results/zoo/collect.py runs/zoo.

Seeds and members whose runs are missing are left out, and named on stderr.
"""

import csv
import json
import math
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from members import MEMBERS, SEEDS, STEPS

from optim_family import registry
from optim_family.analysis.study_table import own_view
from optim_family.geometry import UnknownMetric
from optim_family.runs.layout import STATUS
from optim_family.runs.run import Run, first_fit_index, read_run, series
from optim_family.sharpness.views import BATCH
from optim_family.study.execution import jobs
from optim_family.study.spec import load

HERE = Path(__file__).parent
BEGIN, END = "<!-- table: collect.py -->", "<!-- end -->"
# Okabe and Ito's colours, by the geometry; and shapes, for grey paper.
LOOKS = {
    "P = c I": ("#0072B2", "o"),
    "diagonal": ("#D55E00", "s"),
    "Kronecker": ("#009E73", "D"),
    "norm": ("#CC79A7", "^"),
    "none": ("#777777", "v"),
}
COLUMNS = {
    "ratio": "ratio",
    "small": "ratio to the plateau of small batches",
    "critical": "critical sharpness / (2/η)",
    "fitted": "spherical sharpness at fit",
    "late": "spherical sharpness at the end",
    "accuracy": "test accuracy, %",
    "loss": "training loss",
}


@final
@dataclass(frozen=True)
class Row:
    """Results of the runs of one optimizer; lists have one number for each seed, NaN if it is missing.

    Attributes:
        geometry: a key of LOOKS.
        reason: why there is no ratio; empty if there is one.
        numbers: by key of COLUMNS.
    """

    label: str
    geometry: str
    reason: str
    runs: Sequence[Run]
    numbers: dict[str, list[float]]

    @property
    def reduction(self) -> list[float]:
        """Spherical sharpness at the first record with all training images right, over that of the end."""
        return [a / b for a, b in zip(self.numbers["fitted"], self.numbers["late"], strict=True)]


def main(out: Path) -> None:
    """Read, and write beside this file."""
    rows = list(_rows(out))
    with (HERE / "summary.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(cells(rows))
    evidence = {r.label: [_evidence(run) for run in r.runs] for r in rows}
    (HERE / "provenance.json").write_text(json.dumps(evidence, indent=1) + "\n", encoding="utf-8")
    readme = HERE / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    readme.write_text(f"{before}{BEGIN}\n{table(rows)}\n{END}{after}", encoding="utf-8")
    draw(rows)


def _rows(out: Path) -> Iterator[Row]:
    study = load(str(HERE / "zoo.toml"))
    folders = jobs(study, out)
    for i, label in enumerate(MEMBERS):
        seeds = folders[i * len(SEEDS) :][: len(SEEDS)]
        ended = [job.out for job in seeds if (job.out / STATUS).exists()]
        runs = [run for run in map(read_run, ended) if run.status["status"] != "running"]
        if len(runs) < len(SEEDS):
            print(f"{label}: {len(SEEDS) - len(runs)} of {len(SEEDS)} runs are missing", file=sys.stderr)
        if runs:
            yield row(label, runs)


def row(label: str, runs: Sequence[Run]) -> Row:
    """One row of the table."""
    geometry, reason = geometry_of(runs[0])
    late = [series(run, "step") >= STEPS / 2 for run in runs]
    last = [series(run, "step") >= 0.75 * STEPS for run in runs]
    views = [own_view(run) + (BATCH if run.spec["batch_size"] else "") for run in runs]
    numbers = {
        "ratio": _medians(runs, late, [f"{view}.ratio" for view in views]),
        "small": _medians(runs, late, [f"{view}.small_batch_ratio" for view in views]),
        "critical": _medians(runs, late, ["along.critical_ratio"] * len(runs)),
        "fitted": list(map(_fitted, runs)),
        "late": _medians(runs, last, ["spherical.value"] * len(runs)),
        "accuracy": [100 * series(r, "test_accuracy")[-1] if _done(r) else math.nan for r in runs],
        "loss": [series(r, "train_loss")[-1] if _done(r) else math.nan for r in runs],
    }
    return Row(label, geometry, reason, runs, numbers)


def geometry_of(run: Run) -> tuple[str, str]:
    """Kind of the geometry, and why there is no threshold; empty if there is one."""
    w = torch.nn.Parameter(torch.ones(3, 2))
    optimizer = registry.load(run.spec["optimizer"])([w], **run.spec["hyper"])
    w.grad = torch.tensor([[1.0, 2.0], [-1.0, 0.5], [0.3, 1.0]])
    geometry = optimizer.geometry()
    if geometry.norm is not None:
        return "norm", geometry.no_threshold
    if isinstance(geometry.metric, UnknownMetric):
        return "none", geometry.metric.reason.rpartition("has none, for ")[2]
    if run.spec["optimizer"] == "kron":
        return "Kronecker", ""
    return "P = c I" if geometry.metric.scale is not None else "diagonal", ""


def _medians(runs: Sequence[Run], masks: Sequence[Any], names: Sequence[str]) -> list[float]:
    """The median of a quantity where the mask holds, of each run."""
    values = [series(run, name)[mask] for run, mask, name in zip(runs, masks, names, strict=True)]
    known = [each[np.isfinite(each)] for each in values]
    return [float(np.median(each)) if each.size else math.nan for each in known]


def _fitted(run: Run) -> float:
    at = first_fit_index(run)
    return math.nan if at is None else float(series(run, "spherical.value")[at])


def _done(run: Run) -> bool:
    return bool(run.status["status"] == "done")


def _evidence(run: Run) -> dict[str, Any]:
    """What the numbers of a run depend on."""
    return {"spec": run.spec, "provenance": run.provenance, "status": run.status}


def cells(rows: Sequence[Row]) -> Iterator[list[Any]]:
    """One line for each seed."""
    yield ["optimizer", "geometry", "lr", "weight decay", "seed", *COLUMNS.values()]
    for r in rows:
        for i, run in enumerate(r.runs):
            hyper, numbers = run.spec["hyper"], [r.numbers[name][i] for name in COLUMNS]
            yield [r.label, r.geometry, hyper["lr"], hyper["weight_decay"], run.spec["seed"]] + [
                f"{x:.6g}" for x in numbers
            ]


def table(rows: Sequence[Row]) -> str:
    """Markdown: the median over the seeds, and the lowest and the highest."""
    head = ["optimizer", "geometry", "lr", "weight decay", "ratio", "critical", "sharpness at fit → end"]
    lines = [[*head, "÷", "test accuracy, %"], ["---"] * (len(head) + 2)]
    for r in rows:
        hyper, n = r.runs[0].spec["hyper"], r.numbers
        bound = "≥ " if r.geometry == "norm" else ""
        ratio = f"none: {r.reason}" if r.reason else bound + spread(n["ratio"], ".2f")
        if any(map(math.isfinite, n["small"])):
            ratio += f" of 2(1 + β)/η; {spread(n['small'], '.2f')} of 2(1 − β)/η"
        course = f"{spread(n['fitted'], '.0f', False)} → {spread(n['late'], '.0f', False)}"
        texts = [r.label, r.geometry, f"{hyper['lr']:g}", f"{hyper['weight_decay']:.2g}", ratio]
        texts += [spread(n["critical"], ".2f", False), course]
        lines.append([*texts, spread(r.reduction, ".2f"), spread(n["accuracy"], ".1f")])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread(values: Sequence[float], form: str, whole: bool = True) -> str:
    """Median (lowest to highest), or a dash."""
    known = [x for x in values if math.isfinite(x)]
    if not known:
        return "–"
    text = format(statistics.median(known), form)
    return f"{text} ({min(known):{form}} to {max(known):{form}})" if whole and len(known) > 1 else text


def draw(rows: Sequence[Row]) -> None:
    """All members: the ratio in the own geometry, the fall of the spherical sharpness, the test accuracy."""
    style = {"font.size": 9, "svg.hashsalt": "zoo", "axes.spines.top": False, "axes.spines.right": False}
    plt.rcParams.update(style)
    size = (10.5, 1.0 + 0.27 * len(rows))
    figure, axes = plt.subplots(1, 3, figsize=size, sharey=True, layout="constrained", width_ratios=(5, 3, 3))
    order = sorted(rows, key=lambda r: list(LOOKS).index(r.geometry))[::-1]
    _draw_ratios(axes[0], order)
    _draw_dots(axes[1], order, lambda r: r.reduction)
    axes[1].set_xlabel("fall of the spherical sharpness")
    _draw_dots(axes[2], order, lambda r: r.numbers["accuracy"])
    axes[2].set_xlabel("test accuracy, %")
    _log_axis(axes[0], (1, 2, 5))
    _log_axis(axes[1], (1, 3))
    axes[0].set_yticks(range(len(order)), [r.label for r in order])
    for tick, r in zip(axes[0].get_yticklabels(), order, strict=True):
        tick.set_color(LOOKS[r.geometry][0])
    figure.legend(handles=_handles(rows), loc="outside upper center", ncols=4, frameon=False)
    for form in ("svg", "png"):
        figure.savefig(HERE / f"edge.{form}", dpi=150, metadata={"Date": None} if form == "svg" else None)


def _draw_ratios(ax: Axes, rows: Sequence[Row]) -> None:
    """The ratio; to both plateaus with mini-batches and momentum; without a threshold the critical one."""
    _draw_dots(ax, rows, lambda r: [] if r.reason else r.numbers["ratio"])
    hollow = {"markerfacecolor": "white", "linewidth": 1}
    _draw_dots(ax, rows, lambda r: [] if r.reason else r.numbers["small"], **hollow)
    for y, r in enumerate(rows):
        values = [x for x in r.numbers["critical"] if math.isfinite(x)] if r.reason else []
        ax.plot(values, [y] * len(values), "x", color="#777777", markersize=5)
        both = [x for name in ("ratio", "small") for x in r.numbers[name] if math.isfinite(x)]
        if len(both) > len(r.runs):
            ax.plot([min(both), max(both)], [y, y], color=LOOKS[r.geometry][0], linewidth=0.8, linestyle=":")
    ax.set_xlabel("sharpness / own threshold, in the own geometry")


def _draw_dots(ax: Axes, rows: Sequence[Row], of: Callable[[Row], list[float]], **style: Any) -> None:
    for y, r in enumerate(rows):
        color, shape = LOOKS[r.geometry]
        values = sorted(x for x in of(r) if math.isfinite(x))
        ax.plot(values, [y] * len(values), color=color, linewidth=1, alpha=0.5)
        ax.plot(values, [y] * len(values), shape, color=color, markersize=4.5, alpha=0.8, **style)
    ax.grid(axis="y", color="#eeeeee", zorder=0)


def _log_axis(ax: Axes, ticks: Sequence[int]) -> None:
    ax.set_xscale("log")
    ax.axvline(1, color="black", linewidth=0.8, linestyle="--", zorder=0)
    ax.xaxis.set_major_locator(plt.matplotlib.ticker.LogLocator(subs=ticks))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(plt.matplotlib.ticker.NullFormatter())


def _handles(rows: Sequence[Row]) -> list[Line2D]:
    names = {"norm": "norm: lower bound", "none": "no geometry", "P = c I": "metric: a number"}
    used = [name for name in LOOKS if name in {r.geometry for r in rows}]
    looks = {names.get(name, f"metric: {name}"): LOOKS[name] for name in used}
    handles = [Line2D([], [], linestyle="", color=c, marker=m, label=name) for name, (c, m) in looks.items()]
    hollow = {"color": LOOKS["P = c I"][0], "marker": "o", "markerfacecolor": "white"}
    return [
        *handles,
        Line2D([], [], linestyle="", **hollow, label="to the plateau of small batches"),
        Line2D(
            [],
            [],
            linestyle="",
            color="#777777",
            marker="x",
            label="no threshold: critical sharpness / (2/η)",
        ),
    ]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
