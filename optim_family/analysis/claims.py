"""Evaluate the claims of studies: a claim holds, does not hold, or the runs cannot tell.

A claim about single runs holds for a group of seeds if it holds for every seed, and does not hold if it
holds for none. A claim about pairs of runs that differ in one field is decided by the 95 % interval.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, final

from optim_family.analysis.paired_differences import COMPARED, Difference, Quantity, difference, matched_pairs
from optim_family.analysis.run_selection import Condition, field_value, matches
from optim_family.analysis.study_table import EDGE, own_view
from optim_family.runs.labels import compact
from optim_family.runs.run import Run

if TYPE_CHECKING:
    import pandas

Verdict = Literal["holds", "does not hold", "cannot tell"]
Evidence = tuple[str, Verdict, str]  # subject, verdict, numbers

SIGNIFICANT: Final = 0.05
_BY_COLUMN = {quantity.column: quantity for quantity in COMPARED}
# Columns whose pairs are compared by difference; the others by ratio.
_DIFFERENCES: Final = ("accuracy", "slope", "spikes", "destabilisations", "unconverged")


@final
@dataclass(frozen=True)
class ClaimResult:
    """The verdict on one subject of a claim, with the numbers as evidence."""

    claim: str
    statement: str
    subject: str
    verdict: Verdict
    evidence: str


@final
@dataclass(frozen=True)
class Claim:
    """A statement about runs, and how their numbers decide it.

    Without `by` it is about each run: its quantity lies between two bounds. With `by` it is about pairs of
    runs that differ in this field only: one side has more, or less. With `trend` it is about the rank
    correlation of the field and the quantity, over at least three values of the field.

    Attributes:
        statement: for the reader.
        quantities: columns of `study_table.run_rows`; a claim about pairs holds if it holds for all.
        where: the runs that it is about, or side a of the pairs: field → condition.
        between: lowest and highest value.
        neutral: a value between this and the lowest one is undecided.
        by: the field in which pairs differ.
        than: its value on side b; if None, side a has the larger of two numbers.
        direction: whether side a has `more` or `less` of the quantity.
        least: the least factor, or difference of accuracies and counts; if None, any counts.
        trend: whether the values of `by` are ranked instead of paired.
    """

    statement: str
    quantities: tuple[str, ...]
    where: Mapping[str, Condition] = field(default_factory=dict)
    between: tuple[float, float] = (-math.inf, math.inf)
    neutral: float | None = None
    by: str | None = None
    than: Any = None
    direction: Literal["more", "less"] = "more"
    least: float | None = None
    trend: bool = False

    def evaluate(self, runs: Sequence[Run], frame: "pandas.DataFrame") -> Iterator[Evidence]:
        """The verdict on the whole claim, and on each of its parts, from finished runs and their rows."""
        if self.trend:
            return _ranked(self, runs, frame)
        return _paired(self, runs, frame) if self.by else _each(self, runs, frame)

    def applies(self, specs: Sequence[Mapping[str, Any]]) -> bool:
        """Whether a study with runs of these specifications can decide it."""
        selected = [spec for spec in specs if matches(spec, self.where)]
        if self.by is None:
            return bool(selected)
        if self.trend:
            return len({compact(field_value(spec, self.by)) for spec in selected}) > 2
        return any(matches(specs[i], self.where) for i, _ in matched_pairs(specs, self.by, self.than))


def evaluate_claims(
    claims: Mapping[str, Claim], runs: Sequence[Run], frame: "pandas.DataFrame"
) -> list[ClaimResult]:
    """Evaluate claims; the result of a whole claim precedes those of its parts.

    Args:
        claims: by name.
        runs: of a study; only those that are done count.
        frame: `study_table.run_rows(runs)`.
    """
    indices = [i for i, run in enumerate(runs) if run.status.get("status") == "done"]
    finished_runs, rows = [runs[i] for i in indices], frame.iloc[indices].reset_index(drop=True)
    complete = len(finished_runs) == len(runs)
    reason = "the study has no such runs" if complete else "no such run is finished"
    nothing: Evidence = ("no runs", "cannot tell", reason)
    return [
        ClaimResult(name, claim.statement, *evidence)
        for name, claim in claims.items()
        for evidence in list(claim.evaluate(finished_runs, rows) if finished_runs else ()) or [nothing]
    ]


def _each(claim: Claim, runs: Sequence[Run], frame: "pandas.DataFrame") -> Iterator[Evidence]:
    """A claim about every run, grouped over seeds."""
    (name,) = claim.quantities
    selected = frame[[matches(run.spec, claim.where) for run in runs]]
    parts, without = list[Evidence](), 0
    for (setting, arm), group in selected.groupby(["setting", "arm"], sort=False):
        verdict, numbers = _group(claim, group[name].tolist())
        if name == "ratio" and not any(own_view(runs[i]) for i in group.index):
            without, numbers = without + 1, f"{numbers}; no threshold measured"
        parts.append((f"{arm}; {setting}", verdict, numbers))
    if len(parts) > 1:
        verdicts, known = [verdict for _, verdict, _ in parts], selected[name].dropna()
        form = _form(name)
        between = f"; {known.min():{form}} to {known.max():{form}}" if len(known) else ""
        reason = f" ({without} ha{'s' if without == 1 else 've'} no threshold measured)" * bool(without)
        yield f"all {len(parts)} groups", _together(verdicts), _count(verdicts) + reason + between
    yield from parts


def _group(claim: Claim, values: Sequence[float]) -> tuple[Verdict, str]:
    known = [value for value in values if math.isfinite(value)]
    judgements, form = {_judge(claim, value) for value in known}, _form(claim.quantities[0])
    verdict: Verdict = "cannot tell"
    if judgements in ({True}, {False}):
        verdict = "holds" if True in judgements else "does not hold"
    missing = f", no number from {len(values) - len(known)}" if len(known) < len(values) else ""
    return verdict, f"{', '.join(format(value, form) for value in known) or '–'} (n = {len(known)}{missing})"


def _judge(claim: Claim, value: float) -> bool | None:
    low, high = claim.between
    if low <= value <= high:
        return True
    return None if claim.neutral is not None and claim.neutral < value < low else False


def _form(column: str) -> str:
    """The format of a quantity."""
    if "accuracy" in column:
        return "+.1%" if column.endswith("gain") else ".1%"
    return ".2f" if "ratio" in column or "reduction" in column else ".4g"


def _together(verdicts: Sequence[Verdict]) -> Verdict:
    """A claim about all parts holds if each part holds, and does not hold if one part does not."""
    if "does not hold" in verdicts:
        return "does not hold"
    return "holds" if set(verdicts) == {"holds"} else "cannot tell"


def _count(verdicts: Sequence[Verdict]) -> str:
    """`4 of 6 hold, 1 does not, 1 undecided`."""
    holding, failing, undecided = (verdicts.count(v) for v in ("holds", "does not hold", "cannot tell"))
    failed = f", {failing} do{'es' * (failing == 1)} not" if failing else ""
    return f"{holding} of {len(verdicts)} hold{failed}" + f", {undecided} undecided" * bool(undecided)


def _paired(claim: Claim, runs: Sequence[Run], frame: "pandas.DataFrame") -> Iterator[Evidence]:
    """A claim about pairs of runs that differ in one field only."""
    specs = [run.spec for run in runs]
    candidates = matched_pairs(specs, claim.by or "", claim.than)
    pairs = [(i, j) for i, j in candidates if matches(specs[i], claim.where)]
    if not pairs:
        return
    optimizers = dict.fromkeys(specs[i]["optimizer"] for i, _ in pairs)
    groups = {"all optimizers": pairs} | {
        name: [(i, j) for i, j in pairs if specs[i]["optimizer"] == name] for name in optimizers
    }
    quantities = [_quantity(column) for column in claim.quantities]
    parts = [
        (f"{quantity.words}; {name}", *_compare(claim, frame, positions, quantity))
        for quantity in quantities
        for name, positions in groups.items()
    ]
    whole = list(zip(quantities, parts[:: len(groups)], strict=True))
    numbers = (f"{_BRIEF.get(quantity.column, quantity.words)} {text}" for quantity, (_, _, text) in whole)
    yield "all pairs", _together([verdict for _, (_, verdict, _) in whole]), "; ".join(numbers)
    yield from parts


def _quantity(column: str) -> Quantity:
    by_difference = any(word in column for word in _DIFFERENCES)
    return _BY_COLUMN.get(column) or Quantity(column, not by_difference, column.replace("_", " "))


def _compare(
    claim: Claim, frame: "pandas.DataFrame", pairs: Sequence[tuple[int, int]], quantity: Quantity
) -> tuple[Verdict, str]:
    values = frame[quantity.column]
    a, b = [values[i] for i, _ in pairs], [values[j] for _, j in pairs]
    result = difference(a, b, ratio=quantity.ratio)
    more = sum(x > y for x, y in zip(a, b, strict=True))
    return _verdict(claim, result, quantity), _describe(result, more, len(pairs), quantity)


def _verdict(claim: Claim, result: Difference, quantity: Quantity) -> Verdict:
    """By the 95 % interval: beyond the least difference, on this side of it, or both."""
    least = result.neutral if claim.least is None else claim.least
    low, high = result.low, result.high
    if claim.direction == "less":
        low, high = (1 / high, 1 / low) if quantity.ratio else (-high, -low)
    if low > least:
        return "holds"
    return "does not hold" if high < least else "cannot tell"


def _describe(result: Difference, more: int, pairs: int, quantity: Quantity) -> str:
    if not result.pairs:
        return f"no number: no pair of {pairs} has one for both runs"
    factor, points = (1, ".3g", "a factor of ", ""), (100, "+.1f", "", " points")
    scale, form, what, unit = factor if quantity.ratio else points
    mean, low, high = (format(scale * x, form) for x in (result.mean, result.low, result.high))
    interval = f" ({low} to {high})" if math.isfinite(result.low) else ""
    missing = f", no number from {pairs - result.pairs}" if result.pairs < pairs else ""
    return f"by {what}{mean}{unit}{interval}, more in {more} of {result.pairs} pairs{missing}"


def _ranked(claim: Claim, runs: Sequence[Run], frame: "pandas.DataFrame") -> Iterator[Evidence]:
    """Kendall's rank correlation of a field and the quantity, over all runs of one optimizer and setting."""
    import pandas
    from scipy import stats

    (name,), by = claim.quantities, claim.by or ""
    values = pandas.Series([_rankable(run, by) for run in runs], dtype=float)
    selected = frame[[matches(run.spec, claim.where) for run in runs]]
    for (setting, optimizer), group in selected.groupby(["setting", "optimizer"], sort=False):
        field_values = values[group.index]
        if field_values.nunique() < 3:
            continue
        tau, p = stats.kendalltau(field_values, group[name], nan_policy="omit")
        means = group[name].groupby(field_values).mean()
        words = by.removesuffix("_size").replace("_", " ")
        numbers = ", ".join(f"{words} {compact(x)}: {mean:{_form(name)}}" for x, mean in means.items())
        verdict: Verdict = "cannot tell"
        if p < SIGNIFICANT:
            verdict = "holds" if (tau > 0) == (claim.direction == "more") else "does not hold"
        yield f"{optimizer}; {setting}", verdict, f"{numbers}; Kendall's τ {tau:.2f}, p = {p:.2g}"


def _rankable(run: Run, by: str) -> Any:
    """The value of a field; the full batch is as large as the training set."""
    value = field_value(run.spec, by)
    return run.provenance.get("data", {}).get("train") if by == "batch_size" and value is None else value


_AFTER_THE_FIT: Final = ("sharpness_fitted_reduction", "test_accuracy_gain")
# Words for a quantity in the summary of a claim about two.
_BRIEF: Final = dict(zip(_AFTER_THE_FIT, ("sharpness", "test accuracy"), strict=True))
_NORMALISED: Final = {"weight_decay": "> 0", "norm": "not none"}
# The claims that every study may name; a study's own claims are of the same kind.
CLAIMS: Final[Mapping[str, Claim]] = {
    "edge": Claim(
        "Every full-batch optimizer with weight decay trains a normalised network at its own edge of "
        f"stability: the median of sharpness / threshold is {EDGE[0]} to {EDGE[1]}.",
        ("ratio",),
        {**_NORMALISED, "batch_size": "full"},
        between=EDGE,
    ),
    "sharpness-falls": Claim(
        "With normalisation and weight decay the spherical sharpness falls after 100 % training accuracy, "
        "fitted by a factor of 1.1 or more.",
        ("sharpness_fitted_reduction",),
        _NORMALISED,
        between=(1.1, math.inf),
        neutral=1.0,
    ),
    "accuracy-rises": Claim(
        "With normalisation and weight decay the test accuracy rises from the first to the last record with "
        "100 % training accuracy, by 1 % of the test images or more.",
        ("test_accuracy_gain",),
        _NORMALISED,
        between=(0.01, math.inf),
        neutral=0.0,
    ),
    "decay-matters": Claim(
        "With weight decay sharpness falls more, and test accuracy gains more, than without it.",
        _AFTER_THE_FIT,
        _NORMALISED,
        by="weight_decay",
        than=0,
    ),
    "norm-matters": Claim(
        "With normalisation sharpness falls more, and test accuracy gains more, than without it.",
        _AFTER_THE_FIT,
        _NORMALISED,
        by="norm",
        than="none",
    ),
    "smaller-batch-flatter": Claim(
        "The smaller the mini-batch, the lower the sharpness settles relative to the full-batch threshold.",
        ("ratio",),
        by="batch_size",
        trend=True,
    ),
}
