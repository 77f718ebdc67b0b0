"""`optim-family verify`: the statements of the theory, checked with the real optimizers and probes."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from optim_family.cli.output import Output, common
from optim_family.runs.atomic_files import replace_atomically

if TYPE_CHECKING:
    from optim_family.theory.verify import Case, Verdict


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
    """Check what the theory says: expected, measured, tolerance; exit 1 if anything falls short."""
    from optim_family.theory.cases import chosen

    verdicts = [_judged(case, output) for case in chosen(only, slow)]
    page = _report(verdicts, report) if report else None
    _show(verdicts, page, output)
    return 0 if all(verdict.holds for verdict in verdicts) else 1


def _judged(case: "Case[Any]", output: Output) -> "Verdict":
    """Run one case, and say how it ended."""
    from optim_family.theory.verify import judge

    verdict = judge(case)
    outcome = "holds" if verdict.holds else "falls short"
    output.say(f"{case.name} {outcome}, {verdict.seconds:.1f} s: {verdict.failure or case.claim}")
    return verdict


def _report(verdicts: list["Verdict"], folder: Path) -> Path:
    """The page and its figures, and the numbers as verify.json."""
    from optim_family.theory.page import write

    page = write(verdicts, folder)
    replace_atomically(
        folder / "verify.json", json.dumps(_record(verdicts), indent=2, ensure_ascii=False) + "\n"
    )
    return page


def _record(verdicts: list["Verdict"]) -> dict[str, Any]:
    from optim_family.cli.flow import made_with

    return {"cases": [verdict.as_record() for verdict in verdicts], **made_with()}


def _show(verdicts: list["Verdict"], page: Path | None, output: Output) -> None:
    from optim_family.theory.verify import HEADERS, rows

    if output.json:
        return output.data({**_record(verdicts), "page": page and str(page)})
    output.table(HEADERS, rows(verdicts))
    if page:
        print(f"\npage: {page}")
