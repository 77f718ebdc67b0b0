"""`optim-family export`: runs for TensorBoard, MLflow, Weights & Biases, or as one Parquet file."""

from pathlib import Path

import rich_click as click

from optim_family.analysis.export import PROJECT, TARGETS, export
from optim_family.cli.output import FOLDER, PATH, Output, common
from optim_family.runs.run import find_runs, read_run


@click.command("export")
@click.argument("runs", nargs=-1, required=True, type=PATH)
@click.option(
    "--to", required=True, type=click.Choice(TARGETS), help="Target tool; needs the extra of its name."
)
@click.option(
    "--out", type=FOLDER, help="Folder for tensorboard and parquet (default: exports/ and the tool's name)."
)
@click.option("--project", default=PROJECT, show_default=True, help="Project in W&B, experiment in MLflow.")
@common
def command(output: Output, runs: tuple[Path, ...], to: str, out: Path | None, project: str) -> None:
    """Export runs to another tool; RUNS are run directories or folders that contain them."""
    loaded = [read_run(folder) for path in runs for folder in find_runs(path)]
    places = export(loaded, to, out or Path("exports") / to, project)
    output.result({"to": to, "runs": len(loaded), "places": places}, [""], [[place] for place in places])
