"""`optim-family verify`: the statements of the theory, checked with the real optimizers and probes."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from optim_family.cli.output import Output, common
from optim_family.runs.atomic_files import replace_atomically

if TYPE_CHECKING:
    from optim_family.theory.verify import Case, CaseResult


@click.command("verify", epilog="docs/theory.md has the statements, and how each is checked.")
@click.option("--only", metavar="NAMES", help="These cases, such as V5,V6; slow ones too.")
@click.option("--slow", is_flag=True, help="V12 as well: nine runs on real data, some minutes.")
@click.option(
    "--report",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the figures, for one page with all of them, and for the numbers as verify.json.",
)
@common
@click.pass_obj
def command(output: Output, only: str | None, slow: bool, report: Path | None) -> int:
    """Check what the theory says: expected, measured, tolerance; exit 1 if a check fails."""
    from optim_family.theory.cases import select

    results = [_run(case, output) for case in select(only, slow)]
    page = _report(results, report) if report else None
    _show(results, page, output)
    return 0 if all(result.holds for result in results) else 1


def _run(case: "Case[Any]", output: Output) -> "CaseResult":
    """Run one case, and print its outcome."""
    from optim_family.theory.verify import run_case

    result = run_case(case)
    outcome = "holds" if result.holds else "fails"
    output.say(f"{case.name} {outcome}, {result.seconds:.1f} s: {result.failure or case.claim}")
    return result


def _report(results: list["CaseResult"], folder: Path) -> Path:
    """The page and its figures, and the numbers as verify.json."""
    from optim_family.theory.page import write

    page = write(results, folder)
    replace_atomically(
        folder / "verify.json", json.dumps(_record(results), indent=2, ensure_ascii=False) + "\n"
    )
    return page


def _record(results: list["CaseResult"]) -> dict[str, Any]:
    from optim_family.cli.flow import environment

    return {"cases": [result.as_record() for result in results], **environment()}


def _show(results: list["CaseResult"], page: Path | None, output: Output) -> None:
    from optim_family.theory.verify import HEADERS, rows

    if output.json:
        return output.data({**_record(results), "page": page and str(page)})
    output.table(HEADERS, rows(results))
    if page:
        print(f"\npage: {page}")
