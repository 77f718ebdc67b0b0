"""`optim-family serve`: runs in the browser while they train."""

from pathlib import Path

import rich_click as click

from optim_family.cli.output import FOLDER, Output, common


@click.command("serve")
@click.argument("folders", nargs=-1, type=FOLDER)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; another one lets other machines read the runs.",
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="0 takes a free one."
)
@common
def command(output: Output, folders: tuple[Path, ...], host: str, port: int) -> None:
    """Show the runs in a folder (default: runs) in the browser, with new records while they train."""
    from optim_family.cli.serve import serve

    serve(folders or (Path("runs"),), host, port, output)
