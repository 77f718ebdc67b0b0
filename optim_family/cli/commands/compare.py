"""`optim-family compare`: several runs in one figure and one table."""

import os
from collections.abc import Sequence
from pathlib import Path

import rich_click as click

from optim_family.cli.output import Output, common
from optim_family.cli.run_results import overlay_option


@click.command("compare")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for comparison.svg, .png and .json (default: the one that holds the runs).",
)
@overlay_option
@common
@click.pass_obj
def command(output: Output, runs: tuple[Path, ...], out: Path | None, overlay: str | None) -> None:
    """Compare several runs in one figure and one table."""
    from optim_family.cli.run_results import attest, draw, show
    from optim_family.figures.overlays import parse_overlays
    from optim_family.runs.run import read_run

    shown, found = parse_overlays(overlay), [read_run(path) for path in runs]
    folder = out or beside(runs)
    figure = draw(found, folder, "comparison", shown)
    attest(found, folder, "comparison")
    show(found, figure, output)


def beside(runs: Sequence[Path]) -> Path:
    """The innermost folder that holds all runs, as it is called from here; here, if only the root does."""
    folder = Path(os.path.commonpath([Path(os.path.abspath(run)).parent for run in runs]))
    if folder == Path(folder.anchor):
        return Path()
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
