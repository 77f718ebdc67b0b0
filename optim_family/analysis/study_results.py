"""The results of a study, each computed once, and their tables as cells of text."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from optim_family.analysis import claims, paired_differences, run_summary, study_table
from optim_family.analysis.claims import Claim, ClaimResult
from optim_family.runs.run import Run

if TYPE_CHECKING:
    import pandas

MISSING: Final = "–"


@final
class Cell(NamedTuple):
    """The text of a cell, and the number by which the table sorts, if any."""

    text: str
    number: float | None = None

    @property
    def value(self) -> str:
        """The key of sorting; empty for a missing number."""
        if self.number is None:
            return "" if self.text == MISSING else self.text
        return repr(self.number)


@final
class Column(NamedTuple):
    """A quantity of `study_table.run_rows` in a table."""

    header: str
    quantity: str
    form: str
    scale: float = 1.0


@final
class Table(NamedTuple):
    """A heading, headers, and rows of cells."""

    heading: str
    headers: list[str]
    rows: list[list[Cell]]


@final
@dataclass(frozen=True)
class StudyResults:
    """The results of the runs of a study.

    Attributes:
        runs: at least one has a record.
        summaries: `run_summary.summary` of each run.
        rows: `study_table.run_rows`.
        groups: `study_table.seed_groups`.
        differences: `paired_differences.comparisons`.
        claim_results: `claims.evaluate_claims`.
    """

    runs: Sequence[Run]
    summaries: Sequence[Mapping[str, Any]]
    rows: "pandas.DataFrame"
    groups: "pandas.DataFrame"
    differences: "pandas.DataFrame"
    claim_results: Sequence[ClaimResult]

    @cached_property
    def results_of_claims(self) -> Mapping[str, Sequence[ClaimResult]]:
        """The statement of each claim → its results."""
        statements = dict.fromkeys(result.statement for result in self.claim_results)
        return {text: [r for r in self.claim_results if r.statement == text] for text in statements}

    @cached_property
    def group_tables(self) -> Sequence[Table]:
        """One row for each arm in each setting: mean over the seeds, ± standard deviation from three on.

        A table of which nothing was measured is left out.
        """
        return [
            _group_table(self.groups, heading, measured)
            for heading, columns in TABLES.items()
            if (measured := [column for column in columns if self.groups[f"{column.quantity}.n"].any()])
        ]

    @cached_property
    def difference_table(self) -> Table:
        """Pairs of arms at matched conditions; no rows if every pair has too few seeds for an interval."""
        headers = ["quantity", "a", "b", "a − b, or a / b", "95 % interval", "pairs", "beyond seed noise"]
        rows = self.differences.to_dict("records")
        beyond = sum(row["beyond_noise"] for row in rows)
        judged = sum(math.isfinite(row["low"]) for row in rows)
        heading = f"Differences: {beyond} of {judged} are larger than the noise of the seeds"
        if not rows:
            common = "a setting and a seed in common with decay in both or in neither"
            heading = f"Differences: no two arms have {common}"
        elif not judged:
            fewest = paired_differences.FEWEST
            heading = f"Differences: all {len(rows)} have fewer than {fewest} seeds, so none is judged"
        return Table(heading, headers, [_difference(row) for row in rows if judged])


_SHARPNESS_COLUMNS: Final = tuple(
    Column(f"{name}{header}", f"{prefix}_{quantity}", form)
    for prefix, name in (("sharpness", ""), ("own", "own metric: "))
    for header, quantity, form in (
        ("then", "at_fit", ".4g"),
        ("peak", "peak", ".4g"),
        ("end", "end", ".4g"),
        ("then / end", "reduction", ".2f"),
        ("d log S / dτ", "slope", ".2f"),
    )
)
TABLES: Final[Mapping[str, Sequence[Column]]] = {
    "After 100 % training accuracy": (
        Column("sharpness / threshold", "ratio", ".2f"),
        Column("100 % at step", "fit_step", ",.0f"),
        Column("test accuracy then, %", "test_accuracy_at_fit", ".1f", 100),
        Column("at the end, %", "test_accuracy", ".1f", 100),
        Column("gained until the last record with 100 %, points", "test_accuracy_gain", "+.1f", 100),
        Column("sharpness then", "sharpness_at_fit", ".4g"),
        Column("sharpness at the end", "sharpness_end", ".4g"),
        Column("fell by a factor of", "sharpness_reduction", ".2f"),
        Column("fitted", "sharpness_fitted_reduction", ".2f"),
        Column("own metric: fell by", "own_reduction", ".2f"),
        Column("own metric: fitted", "own_fitted_reduction", ".2f"),
        Column("at the midpoint", "ratio_midpoint", ".2f"),
        Column("along mini-batch gradients", "ratio_batch", ".2f"),
        Column("the same / plateau of small batches", "ratio_small_batches", ".2f"),
    ),
    "Sharpness: spherical, or raw without scale invariance; and in the own metric": _SHARPNESS_COLUMNS,
    "Along the last update before each record, medians after 100 % training accuracy": (
        Column("critical sharpness / (2/η)", "ratio_critical", ".2f"),
        Column("directional smoothness / its limit", "ratio_smoothness", ".2f"),
        Column("critical sharpness, 1/learning rate", "critical", ".4g"),
        Column("directional smoothness, loss/weight²", "smoothness", ".4g"),
        Column("curvature, loss/weight²", "curvature_along", ".4g"),
        Column("rotation per step, radians", "rotation", ".2g"),
    ),
    "Training and cost": (
        Column("τ = ηλt at 100 %", "fit_tau", ".3g"),
        Column("best test accuracy, %", "test_accuracy_best", ".1f", 100),
        Column("training loss", "train_loss", ".2g"),
        Column("stays at the edge from step", "edge_step", ",.0f"),
        Column("destabilisations", "destabilisations", ".3g"),
        Column("test accuracy before the first, %", "test_accuracy_before_first", ".1f", 100),
        Column("after the last, %", "test_accuracy_after_last", ".1f", 100),
        Column("loss spikes", "spikes", ".3g"),
        Column("HVPs", "products", ",.0f"),
        Column("readings not converged", "unconverged", ".3g"),
        Column("seconds", "seconds", ",.0f"),
        Column("of which measuring", "measuring_seconds", ",.0f"),
    ),
}


# The quantities that a claim may be about, and their headings.
QUANTITIES: Final[Mapping[str, str]] = {
    column.quantity: column.header for columns in TABLES.values() for column in columns
}


def evaluate_study(claimed: Mapping[str, Claim], runs: Sequence[Run]) -> StudyResults:
    """Evaluate the runs of a study, and claims by name; at least one run has a record."""
    summaries = [run_summary.summary(run) for run in runs]
    rows = study_table.run_rows(runs, summaries)
    differences = paired_differences.comparisons(rows)
    claim_results = claims.evaluate_claims(claimed, runs, rows)
    return StudyResults(runs, summaries, rows, study_table.seed_groups(rows), differences, claim_results)


def _group_table(groups: "pandas.DataFrame", heading: str, columns: Sequence[Column]) -> Table:
    headers = ["optimizer", "setting", "runs", *(column.header for column in columns)]
    rows = [
        [Cell(row["arm"]), Cell(row["setting"]), Cell(str(row["runs"]), row["runs"])]
        + [_cell(row, column) for column in columns]
        for row in groups.to_dict("records")
    ]
    return Table(heading, headers, rows)


def _cell(row: Mapping[str, Any], column: Column) -> Cell:
    mean, sd, n = (row[f"{column.quantity}.{kind}"] for kind in ("mean", "sd", "n"))
    if not n:
        return Cell(MISSING)
    text = _number(column.scale * mean, column.form)
    judged = n >= paired_differences.FEWEST and math.isfinite(sd)
    spread = f" ± {_spread(column.scale * sd, column.form)}" if judged else ""
    return Cell(text + spread + f" (n = {n})" * (n < row["runs"]), float(mean))


def _spread(x: float, form: str) -> str:
    """A standard deviation with as many decimals as its mean, or two digits where these vary."""
    if not form.endswith("g"):
        return _number(x, form.lstrip("+"))
    return format(x, ",.0f" if 99.5 <= x < 1e7 else ".2g")


def _number(x: float, form: str) -> str:
    """With a true minus, and thousands instead of a small exponent."""
    text = format(x, ",.0f" if form == ".4g" and 1e3 <= abs(x) < 1e7 else form)
    return text.replace("-", "−") if "e" not in text else text


def _difference(row: Mapping[str, Any]) -> list[Cell]:
    scale, form, unit = (1.0, ".3g", "×") if row["ratio"] else (100.0, "+.2f", " points")
    middle, low, high = (_number(scale * row[name], form) for name in ("difference", "low", "high"))
    known = math.isfinite(row["low"])
    return [
        *(Cell(row[name]) for name in ("quantity", "a", "b")),
        Cell(middle + unit, float(row["difference"])),
        Cell(f"{low} to {high}", float(row["low"])) if known else Cell(MISSING),
        Cell(str(row["pairs"]), row["pairs"]),
        Cell("yes" if row["beyond_noise"] else "no" if known else "too few pairs"),
    ]
