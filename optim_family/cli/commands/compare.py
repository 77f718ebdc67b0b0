"""`optim-family compare`: several runs in one figure and one table."""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import rich_click as click

from optim_family.analysis import run_summary
from optim_family.cli import compare, run_results
from optim_family.cli.output import FOLDER, PATH, Output, common
from optim_family.errors import UsageError
from optim_family.runs.layout import SPEC
from optim_family.runs.run import find_runs, read_run

_option = partial(click.option, panel="Figure")


@click.command("compare")
@click.argument("runs", nargs=-1, required=True, type=PATH)
@click.option(
    "--out",
    type=FOLDER,
    help="Folder for comparison.svg, .png and .json (default: the one that holds the runs).",
)
@run_results.figure_options
@_option(
    "--seeds",
    type=click.Choice(["each", "median"]),
    default="each",
    show_default=True,
    help="Draw and list each run, or the median of the seeds of a setting and their range.",
)
@_option(
    "--panels",
    metavar="NAMES",
    help="Panels to draw, in this order; the name of a view is a panel with its sharpness (default: "
    "loss,accuracy,sharpness,ratio, and along,rotation if a run measured along its updates).",
)
@_option(
    "--labels", metavar="NAMES", help="Names of the curves, separated by commas, in the order of the runs."
)
@_option("--with-start", is_flag=True, help="Let the axis of the sharpness reach far values at step 0.")
@common
def command(output: Output, runs: tuple[Path, ...], out: Path | None, **options: Any) -> None:
    """Compare several runs in one figure and one table."""
    figure_options = run_results.FigureOptions.from_options(options)
    loaded = [read_run(path) for path in run_folders(runs)]
    if not loaded:
        raise UsageError(f"there is no run in {', '.join(map(str, runs))}; give folders made by `run`")
    folder = out or common_folder([run.path for run in loaded])
    summaries = [run_summary.summary(run) for run in loaded]
    drawing = compare.figure_arguments(loaded, **options)
    figure = run_results.draw(loaded, summaries, folder, "comparison", figure_options, drawing)
    run_results.write_evidence(loaded, summaries, folder / "comparison.json")
    compare.show(loaded, summaries, options["seeds"], figure, output)


def run_folders(paths: Sequence[Path]) -> Iterator[Path]:
    """The runs, in the order of the paths, of which each may be a folder of runs or an earlier comparison."""
    for path in paths:
        if path.name.startswith("comparison."):
            continue
        yield from [path] if (path / SPEC).is_file() or not path.is_dir() else find_runs(path)


def common_folder(runs: Sequence[Path]) -> Path:
    """The innermost folder that holds all runs, relative to the current one if below it; `.` for the root."""
    folder = Path(os.path.commonpath([Path(os.path.abspath(run)).parent for run in runs]))
    if folder == Path(folder.anchor):
        return Path()
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
