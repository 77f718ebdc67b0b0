"""Write the results of a study: one HTML page, its tables as Markdown and CSV, and its figures.

report.html        question, verdicts, figures, tables, a card for each run, and the data inside
summary.md         verdicts and tables
summary.csv        one row a run; groups.csv: a group of seeds, differences.csv: two arms, readings.csv
sharpness.svg …    the figures of the page, as SVG and PNG
provenance.json    what the numbers depend on
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from optim_family.analysis.seed_medians import seed_medians
from optim_family.analysis.study_results import Cell, StudyResults, Table
from optim_family.figures import html, run_figure, run_page, study_figure, style
from optim_family.runs import layout, readings_table
from optim_family.runs.atomic_files import make_folder, replace_atomically
from optim_family.runs.labels import compact
from optim_family.runs.run import Run, with_test_set
from optim_family.study.spec import StudySpec

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

_INLINE: Final = 500_000  # characters of a table inside the page; a longer one lies beside it only
_SETTINGS: Final = 12  # that have a figure of their own; one takes a second
_DRAWN: Final = 300  # runs: with more, the static figures lie beside the page only
_CLASSES: Final = {"holds": "good", "does not hold": "bad", "cannot tell": "open"}


def write(study: StudySpec, results: StudyResults, folder: Path) -> Path:
    """Write all files into a folder, the same bytes every time.

    Args:
        study: its question, claims and runs.
        results: of its runs, with its test set in the place of the first.
        folder: made if it does not exist.

    Returns:
        The path of the HTML page.

    Raises:
        UsageError: the user may not write the folder.
        CorruptError: the folder cannot be written.
    """
    make_folder(folder)
    captioned_figures = dict(figures(results))
    for stem, (_, figure) in captioned_figures.items():
        style.save(figure, folder, stem)
    tables = {
        "summary": results.rows,
        "groups": results.groups,
        "differences": results.differences,
        "readings": readings_table.readings([_as_recorded(run, study.test_set) for run in results.runs]),
    }
    texts = {f"{name}.csv": table.to_csv(index=False, float_format="%.6g") for name, table in tables.items()}
    replace_atomically(folder / layout.PROVENANCE, json.dumps(_provenance(results.runs), indent=2) + "\n")
    replace_atomically(folder / "summary.md", markdown(study, results))
    for name, text in texts.items():
        replace_atomically(folder / name, text)
    page = folder / "report.html"
    replace_atomically(page, report_html(study, results, captioned_figures, texts))
    return page


def figures(results: StudyResults) -> Iterator[tuple[str, tuple[str, "Figure"]]]:
    """File stem, caption and figure: the small multiples, and one figure each for the first settings."""
    arms, settings = _names(results)
    for stem, name, draw in (
        ("sharpness", "Sharpness against threshold", study_figure.sharpness_small_multiples),
        ("accuracy", "Test accuracy", study_figure.accuracy_small_multiples),
    ):
        yield stem, (f"{name}, by setting and optimizer", draw(results.runs, arms, settings))
    for number, setting in enumerate(list(dict.fromkeys(settings))[:_SETTINGS], 1):
        runs, names, ends, title = _comparable_runs(results, setting)
        yield f"overlay-{number}", (title, run_figure.figure(runs, title=title, names=names, ends=ends))


def _comparable_runs(
    results: StudyResults, setting: str
) -> tuple[list[Run], list[str], list[tuple[Run, Run] | None], str]:
    """Runs with their arms, their ranges, and a title; only those with decay if several arms have it.

    If every arm has three seeds or more, the runs are their medians; otherwise those of the first seed.
    """
    rows = results.rows[results.rows["setting"] == setting]
    decaying = rows[rows["weight_decay"] > 0]
    comparable = decaying["arm"].nunique() > 1
    rows = decaying if comparable else rows
    what = f"{setting}: {'optimizers with weight decay' if comparable else 'optimizers'}"
    arms, counts = rows["arm"].drop_duplicates().tolist(), rows["arm"].value_counts()
    if counts.min() >= study_figure.FEWEST and "diverged" not in rows["status"].tolist():
        medians = seed_medians([results.runs[i] for i in rows.index])
        seeds = f"median and range of {_span(counts)} seeds"
        return [m.median for m in medians], arms, [m.ends for m in medians], f"{what}, {seeds}"
    first = rows[rows["seed"] == rows["seed"].min()]
    runs = [results.runs[i] for i in first.index]
    return runs, first["arm"].tolist(), [None] * len(runs), f"{what}, seed {compact(first['seed'].iloc[0])}"


def _span(counts: "pandas.Series") -> str:
    low, high = counts.min(), counts.max()
    return f"{low}" if low == high else f"{low} to {high}"


def report_html(
    study: StudySpec,
    results: StudyResults,
    captioned_figures: Mapping[str, tuple[str, "Figure"]],
    texts: Mapping[str, str],
) -> str:
    """The HTML page."""
    drawn = captioned_figures.values() if len(results.runs) <= _DRAWN else ()
    inline_figures = [(caption, html.inline_svg(f, f"f{i}")) for i, (caption, f) in enumerate(drawn)]
    return html.render(
        "report.html",
        scripts=html.FIGURE_SCRIPTS,
        study=study,
        state=_state(study, results),
        conditions=_conditions(study, results.runs),
        verdicts=results.results_of_claims,
        classes=_CLASSES,
        tables=results.group_tables,
        differences=results.difference_table,
        figures=inline_figures,
        downloads={name: html.download(text) for name, text in texts.items() if len(text) <= _INLINE},
        **run_page.page_values(results.runs, results.summaries, *_names(results)),
    )


def _names(results: StudyResults) -> tuple[list[str], list[str]]:
    """Arm and setting of every run."""
    return results.rows["arm"].tolist(), results.rows["setting"].tolist()


def markdown(study: StudySpec, results: StudyResults) -> str:
    """Question, verdicts and tables as Markdown."""
    headers = ["", "verdict", "numbers"]
    claims = [
        Table(statement, headers, [[Cell(r.subject), Cell(r.verdict), Cell(r.evidence)] for r in of_claim])
        for statement, of_claim in results.results_of_claims.items()
    ]
    parts = [f"# {study.name}", study.question, _state(study, results), _conditions(study, results.runs)]
    for table in [*claims, *results.group_tables, results.difference_table]:
        parts += [f"## {table.heading}", _markdown_table(table)]
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: Table) -> str:
    texts = [[cell.text for cell in row] for row in table.rows]
    lines = [table.headers, ["---"] * len(table.headers), *texts]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _state(study: StudySpec, results: StudyResults) -> str:
    """The progress of the study: `11 runs: 10 done, 1 diverged`."""
    counts = results.rows["status"].value_counts(sort=False).to_dict()
    missing = len(study.runs) - len(results.runs)
    parts = [f"{count} {status}" for status, count in counts.items()]
    parts += [f"{missing} not begun"] * (missing > 0)
    return f"{len(study.runs)} runs: {', '.join(parts)}"


def _conditions(study: StudySpec, runs: Sequence[Run]) -> str:
    """Data, networks, batches, schedules, steps, seeds and software, each value once."""

    def values(field: str, missing: str = "") -> str:
        texts = (missing if run.spec.get(field) is None else compact(run.spec[field]) for run in runs)
        return ", ".join(dict.fromkeys(texts))

    versions = [run.provenance.get("versions", {}) for run in runs]
    software = dict.fromkeys(
        f"{name} {each[name]}" for name in ("optim-family", "torch") for each in versions if name in each
    )
    devices = dict.fromkeys(run.provenance["device"] for run in runs if "device" in run.provenance)
    parts = {
        "data": f"{values('data')} ({values('limit', 'all')} images)",
        "test images": f"x_test_{study.test_set}" if study.test_set else "",
        "networks": values("model"),
        "batches": values("batch_size", "full"),
        "schedule": values("schedule", "none") if any(run.spec.get("schedule") for run in runs) else "",
        "steps": values("steps"),
        "seeds": values("seed"),
        "software": ", ".join(software),
        "device": "; ".join(devices),
    }
    return " · ".join(f"{name}: {text}" for name, text in parts.items() if text)


def _as_recorded(run: Run, test_set: str) -> Run:
    return with_test_set(run, test_set) if test_set else run  # the test sets change places again


def _provenance(runs: Sequence[Run]) -> dict[str, Any]:
    return {run.path.name: {"spec": run.spec, **run.provenance} for run in runs}
