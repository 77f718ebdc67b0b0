"""Finished runs on the screen: their table, and where their figure is."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path

import rich_click as click

from optim_family.analysis import run_summary
from optim_family.cli.output import Output
from optim_family.figures import overlays
from optim_family.runs.atomic_files import replace_atomically
from optim_family.runs.run import Run

FORMS = ("svg", "png")

overlay_option = click.option(
    "--overlay",
    metavar="NAMES",
    help=f"Predictions over the curves, of {', '.join(overlays.NAMES)}; all or none (default: all).",
)


def draw(runs: Sequence[Run], folder: Path, stem: str, shown: Collection[str]) -> list[Path]:
    """Draw the figure of these runs with some overlays as STEM.svg and STEM.png; returns both paths."""
    from optim_family.figures import run_figure, style

    folder.mkdir(parents=True, exist_ok=True)
    return style.save(run_figure.figure(runs, overlays=shown), folder, stem)


def attest(runs: Sequence[Run], folder: Path, stem: str) -> None:
    """Write what the figure was drawn from, as STEM.json."""
    evidence = [
        {
            "run": run.path.name,
            "spec": run.spec,
            "provenance": run.provenance,
            "summary": run_summary.summary(run),
        }
        for run in runs
    ]
    replace_atomically(folder / f"{stem}.json", json.dumps(evidence, indent=2, ensure_ascii=False) + "\n")


def paths(folder: Path, stem: str) -> list[Path]:
    """Where the figure is."""
    return [folder / f"{stem}.{form}" for form in FORMS]


def show(runs: Sequence[Run], figure: Sequence[Path], output: Output) -> None:
    """The summary and the paths of the figure."""
    if output.json:
        found = [{"path": str(run.path), **run_summary.summary(run)} for run in runs]
        output.data({"runs": found, "figure": {path.suffix[1:]: str(path) for path in figure}})
        return
    output.table(*run_summary.summary_rows(runs))
    print(f"\nfigure: {'  '.join(map(str, figure))}")
