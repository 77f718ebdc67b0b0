"""`optim-family doctor`: check this machine and the installation."""

from dataclasses import asdict

import rich_click as click

from optim_family.cli import doctor
from optim_family.cli.output import Output, common


@click.command("doctor")
@common
def command(output: Output) -> int:
    """Check this machine and the installation; exit 1 if a check fails."""
    results = list(doctor.diagnose())
    rows = [[r.state, r.subject, f"{r.text} ({r.hint})" if r.hint else r.text] for r in results]
    output.result([asdict(result) for result in results], ["", "", ""], rows)
    return 1 if any(result.state == "fail" for result in results) else 0
