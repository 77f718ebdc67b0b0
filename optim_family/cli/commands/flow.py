"""`optim-family flow`: the sharpness-reduction flow compared with gradient descent."""

from functools import partial
from pathlib import Path

import rich_click as click

from optim_family.cli.output import FOLDER, PATH, Output, common

_number_option = partial(click.option, type=click.IntRange(2), show_default=True)


@click.command("flow", epilog="DEMO is sphere, regression, completion, valley or convergence.")
@click.argument("demo", required=False)
@click.option(
    "--run",
    type=PATH,
    help="Repeat this run of gradient descent with weight decay, and compare it with the flow past the edge.",
)
@_number_option("--checkpoints", default=8, help="With --run: number of comparisons.")
@_number_option(
    "--removed",
    default=40,
    help="With --run: number of top eigenvectors to remove from ∇ log λ₁ "
    "(they count as normal to the minimisers).",
)
@click.option(
    "--out",
    type=FOLDER,
    default=Path("."),
    help="Folder for the figure (.svg, .png), its numbers (.json), a film (.gif) and a page (.html) "
    "(default: this folder).",
)
@common
def command(
    output: Output, demo: str | None, run: Path | None, checkpoints: int, removed: int, out: Path
) -> None:
    """Compare the sharpness-reduction flow with gradient descent: on the sphere, on toys, or on a run."""
    from optim_family.cli.flow import compare_run, run_demo, write

    result = compare_run(demo, run, checkpoints, removed, output) if run else run_demo(demo, output)
    write(result, out, output)
