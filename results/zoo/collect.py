"""Table, figure and provenance of the runs: python results/zoo/collect.py runs/zoo.

Members without all their runs are left out, and named on stderr.
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
from matplotlib.axes import Axes
from members import MEMBERS, SEEDS, STEPS, TUNING_SEED, Member
from train import FINISHED, slug

from optim_family.runs.run import Run, read_run

HERE = Path(__file__).parent
OWN = ("spherical-preconditioned", "spherical")  # the view that has a threshold of its own
BEGIN, END = "<!-- table: collect.py -->", "<!-- end -->"
# Okabe and Ito's colours, by the kind of metric; and shapes, for grey paper.
COLORS = {"a number": "#0072B2", "diagonal": "#D55E00", "Kronecker": "#009E73", "none": "#777777"}
SHAPES = {"a number": "o", "diagonal": "s", "Kronecker": "D", "none": "^"}


@final
@dataclass(frozen=True)
class Row:
    """Results of three runs of one optimizer; lists have one number for each seed, NaN if it is missing."""

    label: str
    kind: str
    lr: float
    decay: float
    ratio: list[float]
    fitted: list[float]
    late: list[float]
    accuracy: list[float]

    @property
    def reduction(self) -> list[float]:
        """Spherical sharpness at the first record with all training images right, over that of the end."""
        return [a / b for a, b in zip(self.fitted, self.late, strict=True)]


def main(out: Path) -> None:
    """Read, and write beside this file."""
    done = {
        label: found
        for label, m in MEMBERS.items()
        if len(found := measured(out / slug(label))) == len(SEEDS)
    }
    if missing := MEMBERS.keys() - done.keys():
        print(f"left out, not all runs are there: {', '.join(sorted(missing))}", file=sys.stderr)
    rows = [row(label, MEMBERS[label], runs) for label, runs in done.items()]
    with (HERE / "summary.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(cells(rows))
    evidence = {label: [evidence_of(run) for run in runs] for label, runs in done.items()}
    (HERE / "provenance.json").write_text(json.dumps(evidence, indent=1) + "\n", encoding="utf-8")
    readme = HERE / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    readme.write_text(f"{before}{BEGIN}\n{table(rows)}\n{END}{after}", encoding="utf-8")
    draw(rows)


def measured(folder: Path) -> list[Run]:
    """The finished runs that were not for tuning, by seed."""
    runs = [read_run(path.parent) for path in sorted(folder.glob("*/status.json"))]
    runs = [run for run in runs if run.spec["seed"] != TUNING_SEED]
    return sorted((r for r in runs if r.status["status"] in FINISHED), key=lambda r: r.spec["seed"])


def evidence_of(run: Run) -> dict[str, Any]:
    """What the numbers of a run depend on."""
    return {"spec": run.spec, "provenance": run.provenance, "status": run.status}


def row(label: str, member: Member, runs: Sequence[Run]) -> Row:
    """One row of the table."""
    hyper = runs[0].spec["hyper"]
    return Row(
        label=label,
        kind=kind(member, runs[0]),
        lr=hyper["lr"],
        decay=hyper["weight_decay"],
        ratio=[median(ratios(run)) for run in runs],
        fitted=[next(sharpness(run, lambda r: r["train_accuracy"] == 1), math.nan) for run in runs],
        late=[median(sharpness(run, lambda r: r["step"] >= 0.75 * STEPS)) for run in runs],
        accuracy=[100 * r.records[-1]["test_accuracy"] if _ended(r) else math.nan for r in runs],
    )


def _ended(run: Run) -> bool:
    return bool(run.status["status"] == "done")


def kind(member: Member, run: Run) -> str:
    """Of its metric."""
    if not member.metric:
        return "none"
    if member.optimizer == "kron":
        return "Kronecker"
    return "diagonal" if OWN[0] in run.records[0]["views"] else "a number"


def ratios(run: Run) -> Iterator[float]:
    """In the second half, in the member's own metric."""
    for record in run.records:
        view = next((record["views"][name] for name in OWN if name in record["views"]), None)
        if view and view["ratio"] is not None and record["step"] >= STEPS / 2:
            yield view["ratio"]


def sharpness(run: Run, wanted: Callable[[dict[str, Any]], bool]) -> Iterator[float]:
    """The spherical sharpness of the records that are wanted."""
    return (r["views"]["spherical"]["value"] for r in run.records if r["views"] and wanted(r))


def median(values: Iterator[float]) -> float:
    """NaN of nothing."""
    return statistics.median(found) if (found := list(values)) else math.nan


def cells(rows: Sequence[Row]) -> Iterator[list[Any]]:
    """One line for each seed."""
    names = ("ratio", "spherical sharpness at fit", "spherical sharpness at the end", "test accuracy, %")
    yield ["optimizer", "metric", "lr", "weight decay", "seed", *names]
    for r in rows:
        for i, seed in enumerate(SEEDS):
            numbers = (r.ratio[i], r.fitted[i], r.late[i], r.accuracy[i])
            yield [r.label, r.kind, r.lr, r.decay, seed, *(f"{x:.6g}" for x in numbers)]


def table(rows: Sequence[Row]) -> str:
    """Markdown: the median over the seeds, and the lowest and the highest."""
    head = [
        "optimizer",
        "metric",
        "lr",
        "weight decay",
        "ratio",
        "sharpness at fit → end",
        "÷",
        "test accuracy, %",
    ]
    lines = [head, ["---"] * len(head)]
    for r in rows:
        course = f"{spread(r.fitted, '.0f', False)} → {spread(r.late, '.0f', False)}"
        texts = [r.label, r.kind, f"{r.lr:g}", f"{r.decay:.2g}", spread(r.ratio, ".2f"), course]
        lines.append([*texts, spread(r.reduction, ".2f"), spread(r.accuracy, ".1f")])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread(values: Sequence[float], form: str, whole: bool = True) -> str:
    """Median (lowest to highest), or a dash."""
    known = [x for x in values if math.isfinite(x)]
    if not known:
        return "–"
    text = format(statistics.median(known), form)
    return f"{text} ({min(known):{form}} to {max(known):{form}})" if whole else text


def draw(rows: Sequence[Row]) -> None:
    """Everyone at their own edge."""
    plt.rcParams.update(
        {"font.size": 9, "svg.hashsalt": "zoo", "axes.spines.top": False, "axes.spines.right": False}
    )
    figure, axes = plt.subplots(
        1, 3, figsize=(9.5, 0.6 + 0.29 * len(rows)), sharey=True, layout="constrained"
    )
    order = sorted(rows, key=lambda r: (list(COLORS).index(r.kind), -_middle(r.accuracy)))[::-1]
    _dots(axes[0], order, lambda r: r.ratio, "sharpness / own threshold, late", 1.0)
    _dots(axes[1], order, lambda r: r.reduction, "fall of the spherical sharpness", 1.0)
    _dots(axes[2], order, lambda r: r.accuracy, "test accuracy, %", None)
    axes[0].set_yticks(range(len(order)), [r.label for r in order])
    for tick, r in zip(axes[0].get_yticklabels(), order, strict=True):
        tick.set_color(COLORS[r.kind])
    for name, color in COLORS.items():
        label = "no metric" if name == "none" else f"metric: {name}"
        axes[2].plot([], [], SHAPES[name], color=color, label=label)
    figure.legend(*axes[2].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
    for form in ("svg", "png"):
        figure.savefig(HERE / f"edge.{form}", dpi=150, metadata={"Date": None} if form == "svg" else None)


def _middle(values: Sequence[float]) -> float:
    return statistics.median([x for x in values if math.isfinite(x)] or [0.0])


def _dots(
    ax: Axes, rows: Sequence[Row], of: Callable[[Row], list[float]], title: str, line: float | None
) -> None:
    for y, r in enumerate(rows):
        values = sorted(x for x in of(r) if math.isfinite(x))
        if values:
            ax.plot([values[0], values[-1]], [y, y], color=COLORS[r.kind], linewidth=1, alpha=0.5)
            style = {"color": COLORS[r.kind], "markersize": 4.5, "alpha": 0.8}
            ax.plot(values, [y] * len(values), SHAPES[r.kind], **style)
        else:
            at = 1.0 if line is None else line
            ax.annotate(
                "none", (at, y), (4, 0), textcoords="offset points", va="center", color="#777777", fontsize=8
            )
    if line is not None:
        ax.set_xscale("log")
        ax.axvline(line, color="black", linewidth=0.8, linestyle="--", zorder=0)
        ax.xaxis.set_major_locator(plt.matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter(plt.matplotlib.ticker.NullFormatter())
    ax.grid(axis="y", color="#eeeeee", zorder=0)
    ax.set_xlabel(title)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
