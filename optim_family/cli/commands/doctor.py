"""`optim-family doctor`: check this machine and the installation."""

from dataclasses import asdict

import rich_click as click

from optim_family.cli import diagnostics
from optim_family.cli.output import Output, common


@click.command("doctor")
@common
@click.pass_obj
def command(output: Output) -> int:
    """Check this machine and the installation; exit 1 if a check fails."""
    findings = list(diagnostics.diagnose())
    if output.json:
        output.data([asdict(finding) for finding in findings])
    else:
        rows = [[f.state, f.subject, f"{f.text} ({f.hint})" if f.hint else f.text] for f in findings]
        output.table(["", "", ""], rows)
    return 1 if any(finding.state == "fail" for finding in findings) else 0
