"""`optim-family compare`: several runs in one figure and one table."""

from pathlib import Path

import rich_click as click

from optim_family.cli.output import Output, common
from optim_family.cli.showing import overlaid


@click.command("compare")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("."),
    help="Folder for comparison.svg, .png and .json (default: the current one).",
)
@overlaid
@common
@click.pass_obj
def command(output: Output, runs: tuple[Path, ...], out: Path, overlay: str | None) -> None:
    """Draw several runs in one figure, and list them in one table."""
    from optim_family.cli.showing import attest, draw, show
    from optim_family.overlays import chosen
    from optim_family.store import read_run

    shown, found = chosen(overlay), [read_run(path) for path in runs]
    figure = draw(found, out, "comparison", shown)
    attest(found, out, "comparison")
    show(found, figure, output)
