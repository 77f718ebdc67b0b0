"""The answer of a study as files: one HTML page, the same as Markdown and CSV, and every figure.

report.html        question, verdicts, tables, figures, every run, provenance, and the data inside
summary.md         verdicts and tables
summary.csv        one row a run; groups.csv: a group of seeds, differences.csv: two arms, readings.csv
sharpness.svg …    the figures of the page, as SVG and PNG
provenance.json    what the numbers depend on
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from optim_family.analysis import run_summary
from optim_family.analysis.study_results import Answer, Cell, Table, difference_table, group_tables, verdicts
from optim_family.figures import html, run_figure, study_figure, style
from optim_family.runs import readings_table
from optim_family.runs.atomic_files import replace_atomically, writing
from optim_family.runs.labels import compact
from optim_family.runs.run import Run
from optim_family.study.spec import StudySpec

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

# So many runs are drawn one by one, at about a second each; of more the page has facts and common figures.
_DRAWN: Final = 100
_CLASSES: Final = {"holds": "good", "does not hold": "bad", "cannot tell": "open"}


def write(study: StudySpec, given: Answer, folder: Path) -> Path:
    """Write all files into a folder, the same bytes every time.

    Args:
        study: what was asked.
        given: what its runs say.
        folder: made if it does not exist.

    Returns:
        The path of the HTML page.

    Raises:
        CorruptError: the folder cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    drawn = dict(figures(given))
    for stem, (_, figure) in drawn.items():
        style.save(figure, folder, stem)
    texts = {f"{name}.csv": frame.to_csv(index=False, float_format="%.6g") for name, frame in data(given)}
    replace_atomically(folder / "provenance.json", json.dumps(_provenance(given.runs), indent=2) + "\n")
    replace_atomically(folder / "summary.md", markdown(study, given))
    for name, text in texts.items():
        replace_atomically(folder / name, text)
    page = folder / "report.html"
    replace_atomically(page, report_html(study, given, drawn, texts))
    return page


def figures(given: Answer) -> Iterator[tuple[str, tuple[str, "Figure"]]]:
    """File stem → caption and figure: the small multiples, and for each setting its optimizers in one."""
    arms, settings = given.rows["arm"].tolist(), given.rows["setting"].tolist()
    yield (
        "sharpness",
        (
            "Sharpness against threshold, a column for each optimizer",
            study_figure.sharpness_multiples(given.runs, arms, settings),
        ),
    )
    yield (
        "accuracy",
        (
            "Test accuracy, a column for each optimizer",
            study_figure.accuracy_multiples(given.runs, arms, settings),
        ),
    )
    for number, setting in enumerate(dict.fromkeys(settings), 1):
        chosen, what = _overlaid(given, setting)
        runs, names = [given.runs[i] for i in chosen], [arms[i] for i in chosen]
        title = f"{setting}: {what}"
        yield f"overlay-{number}", (title, run_figure.figure(runs, title=title, names=names))


def _overlaid(given: Answer, setting: str) -> tuple[list[int], str]:
    """Positions of the runs of a setting, of its first seed; with weight decay, if several arms have it."""
    rows = given.rows[given.rows["setting"] == setting]
    decaying = rows[rows["weight_decay"] > 0]
    comparable = decaying["arm"].nunique() > 1
    rows = decaying if comparable else rows
    seed = rows["seed"].min()
    what = "optimizers with weight decay" if comparable else "optimizers"
    return rows.index[rows["seed"] == seed].tolist(), f"{what}, seed {compact(seed)}"


def report_html(
    study: StudySpec,
    given: Answer,
    drawn: Mapping[str, tuple[str, "Figure"]],
    texts: Mapping[str, str],
) -> str:
    """The page."""
    return html.render(
        "report.html",
        study=study,
        state=_state(study, given),
        verdicts=verdicts(given),
        classes=_CLASSES,
        tables=group_tables(given),
        differences=difference_table(given),
        figures=[
            (caption, html.inline_svg(figure, f"f{number}"))
            for number, (caption, figure) in enumerate(drawn.values())
        ],
        runs=list(_sections(given)),
        provenance=json.dumps(_provenance(given.runs), indent=2, ensure_ascii=False),
        downloads={name: html.download(text) for name, text in texts.items()},
    )


def _sections(given: Answer) -> Iterator[dict[str, Any]]:
    """What the page says of each run."""
    rows, drawn = given.rows.to_dict("records"), len(given.runs) <= _DRAWN
    for number, (run, row) in enumerate(zip(given.runs, rows, strict=True)):
        yield {
            "title": f"{row['arm']}; {row['setting']}; seed {compact(row['seed'])}",
            "status": row["status"],
            "facts": run_summary.summary_rows([run])[1],
            "spec": json.dumps(run.spec, indent=2, ensure_ascii=False),
            "figure": html.inline_svg(run_figure.figure([run]), f"r{number}") if drawn else "",
        }


def markdown(study: StudySpec, given: Answer) -> str:
    """Question, verdicts and tables."""
    found = [
        Table(
            statement,
            ["", "verdict", "numbers"],
            [[Cell(f.subject), Cell(f.verdict), Cell(f.evidence)] for f in findings],
        )
        for statement, findings in verdicts(given).values()
    ]
    parts = [f"# {study.name}", study.question, _state(study, given)]
    for table in [*found, *group_tables(given), difference_table(given)]:
        parts += [f"## {table.heading}", _markdown_table(table)]
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: Table) -> str:
    lines = [
        table.headers,
        ["---"] * len(table.headers),
        *([cell.text for cell in row] for row in table.rows),
    ]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _state(study: StudySpec, given: Answer) -> str:
    """How much of the study there is: `11 runs: 10 done, 1 diverged`."""
    counts = given.rows["status"].value_counts(sort=False).to_dict()
    missing = len(study.runs) - len(given.runs)
    told = [f"{count} {status}" for status, count in counts.items()] + [f"{missing} not begun"] * (
        missing > 0
    )
    return f"{len(study.runs)} runs: {', '.join(told)}"


def data(given: Answer) -> Iterator[tuple[str, "pandas.DataFrame"]]:
    """Name and table of everything that is written as CSV."""
    yield "summary", given.rows
    yield "groups", given.groups
    yield "differences", given.differences
    yield "readings", readings_table.readings(given.runs)


def _provenance(runs: Sequence[Run]) -> dict[str, Any]:
    return {run.path.name: {"spec": run.spec, **run.provenance} for run in runs}
