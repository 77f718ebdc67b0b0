"""`optim-family verify`: the statements of the theory, checked with the real optimizers and probes."""

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from optim_family.cli.output import FOLDER, Output, common, write_json

if TYPE_CHECKING:
    from optim_family.theory.verify import Case, CaseResult


@click.command("verify", epilog="docs/theory.md has the statements and the method of each check.")
@click.option("--only", metavar="NAMES", help="Check only these cases, for example V5,V6; slow ones too.")
@click.option("--slow", is_flag=True, help="Check V12 too: nine runs on real data, some minutes.")
@click.option(
    "--report",
    type=FOLDER,
    help="Folder for the figures, a page with all of them, and the numbers as verify.json.",
)
@common
def command(output: Output, only: str | None, slow: bool, report: Path | None) -> int:
    """Check the statements of the theory and print the measured values; exit 1 if a check fails."""
    from optim_family.cli.flow import environment
    from optim_family.theory import page
    from optim_family.theory.cases import select
    from optim_family.theory.verify import HEADERS, rows

    results = [_run(case, output) for case in select(only, slow)]
    record = {"cases": [result.as_record() for result in results], **environment()}
    path = page.write(results, report) if report else None
    if report:
        write_json(report / "verify.json", record)
    output.result({**record, "page": path and str(path)}, HEADERS, rows(results))
    if path and not output.json:
        print(f"\npage: {path}")
    return 0 if all(result.holds for result in results) else 1


def _run(case: "Case", output: Output) -> "CaseResult":
    """Run one case, and print whether it holds."""
    from optim_family.theory.verify import run_case

    result = run_case(case)
    outcome = "holds" if result.holds else "fails"
    output.say(f"{case.name} {outcome}, {result.seconds:.1f} s: {result.failure or case.claim}")
    return result
