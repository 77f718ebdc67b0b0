"""Finished runs: the table on the screen, the figure and the evidence of the figure."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import rich_click as click

from optim_family.analysis import run_summary
from optim_family.cli.output import Output, by_suffix, joined, write_json
from optim_family.figures import overlays
from optim_family.runs.run import Run

overlay_option = click.option(
    "--overlay",
    "overlays",
    metavar="NAMES",
    callback=lambda ctx, option, text: None if text is None else overlays.parse_overlays(text),
    help=f"Predictions to draw: any of {','.join(overlays.NAMES)}, or all, or none (default: all).",
)


def draw(runs: Sequence[Run], folder: Path, stem: str, names: Collection[str] | None) -> list[Path]:
    """Draw the runs with these overlays, or all if None, as STEM.svg and STEM.png; return both paths."""
    from optim_family.figures import run_figure, style

    folder.mkdir(parents=True, exist_ok=True)
    figure = run_figure.figure(runs, overlays=overlays.NAMES if names is None else names)
    return style.save(figure, folder, stem)


def write_evidence(runs: Sequence[Run], summaries: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write specification, provenance and summary of the runs in a figure."""
    evidence = [
        {"run": run.path.name, "spec": run.spec, "provenance": run.provenance, "summary": summary}
        for run, summary in zip(runs, summaries, strict=True)
    ]
    write_json(path, evidence)


def show(
    runs: Sequence[Run], summaries: Sequence[Mapping[str, Any]], figure: Sequence[Path], output: Output
) -> None:
    """Print the summaries and the paths of the figure."""
    values = [{"path": str(run.path), **each} for run, each in zip(runs, summaries, strict=True)]
    value = {"runs": values, "figure": by_suffix(figure)}
    output.result(value, *run_summary.summary_rows(runs, summaries))
    if not output.json:
        print(f"\nfigure: {joined(figure)}")
