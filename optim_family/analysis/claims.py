"""Evaluate the claims of studies: a claim holds, does not hold, or the runs cannot tell.

A claim about single runs holds for a group of seeds if it holds for every seed, and does not hold if it
holds for none. A claim about pairs of runs that differ in one field is decided by the 95 % interval.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, final

from optim_family.analysis.paired_differences import COMPARED, Difference, Quantity, difference, matched_pairs
from optim_family.analysis.study_table import EDGE
from optim_family.runs.labels import compact
from optim_family.runs.run import Run

if TYPE_CHECKING:
    import pandas

Verdict = Literal["holds", "does not hold", "cannot tell"]
Evidence = tuple[str, Verdict, str]  # subject, verdict, numbers
Evaluation = Callable[[Sequence[Run], "pandas.DataFrame"], Iterator[Evidence]]

FALL: Final = 1.1  # factor
RISE: Final = 0.01  # of the test images
SIGNIFICANT: Final = 0.05
_BY_COLUMN = {quantity.column: quantity for quantity in COMPARED}
_FALL, _GAIN = _BY_COLUMN["sharpness_fitted_reduction"], _BY_COLUMN["test_accuracy_gain"]


@final
@dataclass(frozen=True)
class ClaimResult:
    """The verdict on one subject of a claim, with the numbers as evidence."""

    claim: str
    subject: str
    verdict: Verdict
    evidence: str


@final
@dataclass(frozen=True)
class Claim:
    """A statement, and its evaluation from runs and their rows of `study_table.run_rows`."""

    statement: str
    evaluate: Evaluation


def evaluate_claims(
    names: Iterable[str], runs: Sequence[Run], frame: "pandas.DataFrame"
) -> list[ClaimResult]:
    """Evaluate claims; the result of a whole claim precedes those of its parts.

    Args:
        names: keys of `CLAIMS`.
        runs: of a study; only those that are done count.
        frame: `study_table.run_rows(runs)`.
    """
    indices = [i for i, run in enumerate(runs) if run.status.get("status") == "done"]
    finished_runs, rows = [runs[i] for i in indices], frame.iloc[indices].reset_index(drop=True)
    complete = len(finished_runs) == len(runs)
    reason = "the study has no such runs" if complete else "no such run is finished"
    nothing: Evidence = ("no runs", "cannot tell", reason)
    return [
        ClaimResult(name, *evidence)
        for name in names
        for evidence in list(CLAIMS[name].evaluate(finished_runs, rows) if finished_runs else ()) or [nothing]
    ]


def _each(
    column: str, form: str, judge: Callable[[float], bool | None], full_batch: bool = False
) -> Evaluation:
    """A claim about every normalised network that is trained with weight decay."""

    def evaluate(runs: Sequence[Run], frame: "pandas.DataFrame") -> Iterator[Evidence]:
        selected = frame[(frame["weight_decay"] > 0) & (frame["norm"] != "none")]
        if full_batch:
            selected = selected[selected["batch_size"].isna()]
        parts = [
            (f"{arm}; {setting}", *_group(group[column].tolist(), form, judge))
            for (setting, arm), group in selected.groupby(["setting", "arm"], sort=False)
        ]
        if len(parts) > 1:
            verdicts, known = [verdict for _, verdict, _ in parts], selected[column].dropna()
            between = f"; {known.min():{form}} to {known.max():{form}}" if len(known) else ""
            yield f"all {len(parts)} groups", _together(verdicts), _count(verdicts) + between
        yield from parts

    return evaluate


def _group(values: Sequence[float], form: str, judge: Callable[[float], bool | None]) -> tuple[Verdict, str]:
    known = [value for value in values if math.isfinite(value)]
    judgements = {judge(value) for value in known}
    verdict: Verdict = "cannot tell"
    if judgements in ({True}, {False}):
        verdict = "holds" if True in judgements else "does not hold"
    missing = f", no number from {len(values) - len(known)}" if len(known) < len(values) else ""
    return verdict, f"{', '.join(format(value, form) for value in known) or '–'} (n = {len(known)}{missing})"


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


def _pairs(pop_field: Callable[[Any], Any], on_side_a: Callable[[Any], bool]) -> Evaluation:
    """A claim that sharpness falls more, and test accuracy gains more, on side `a` of matched runs."""

    def evaluate(runs: Sequence[Run], frame: "pandas.DataFrame") -> Iterator[Evidence]:
        relevant = [bool(run.spec["hyper"]["weight_decay"]) and run.spec["norm"] != "none" for run in runs]
        pairs = [(i, j) for i, j in matched_pairs(runs, pop_field, on_side_a) if relevant[i]]
        if not pairs:
            return
        optimizers = dict.fromkeys(runs[i].spec["optimizer"] for i, _ in pairs)
        groups = {"all optimizers": pairs} | {
            name: [(i, j) for i, j in pairs if runs[i].spec["optimizer"] == name] for name in optimizers
        }
        parts = [
            (f"{quantity.words}; {name}", *_compare(frame, positions, quantity))
            for quantity in (_FALL, _GAIN)
            for name, positions in groups.items()
        ]
        (_, fall, falls), (_, gain, gains) = parts[:: len(groups)]
        yield "all pairs", _together([fall, gain]), f"sharpness {falls}; test accuracy {gains}"
        yield from parts

    return evaluate


def _compare(
    frame: "pandas.DataFrame", pairs: Sequence[tuple[int, int]], quantity: Quantity
) -> tuple[Verdict, str]:
    values = frame[quantity.column]
    a, b = [values[i] for i, _ in pairs], [values[j] for _, j in pairs]
    result = difference(a, b, ratio=quantity.ratio)
    verdicts: tuple[Verdict, ...] = ("cannot tell", "holds", "does not hold")  # by the sign
    more = sum(x > y for x, y in zip(a, b, strict=True))
    return verdicts[result.sign], _describe(result, more, len(pairs), quantity)


def _describe(result: Difference, more: int, pairs: int, quantity: Quantity) -> str:
    if not result.pairs:
        return f"no number: no pair of {pairs} has one for both runs"
    factor, points = (1, ".3g", "a factor of ", ""), (100, "+.1f", "", " points")
    scale, form, what, unit = factor if quantity.ratio else points
    mean, low, high = (format(scale * x, form) for x in (result.mean, result.low, result.high))
    interval = f" ({low} to {high})" if math.isfinite(result.low) else ""
    missing = f", no number from {pairs - result.pairs}" if result.pairs < pairs else ""
    return f"by {what}{mean}{unit}{interval}, more in {more} of {result.pairs} pairs{missing}"


def _batches(runs: Sequence[Run], frame: "pandas.DataFrame") -> Iterator[Evidence]:
    """Kendall's rank correlation of batch size and ratio, over all runs of one optimizer and setting."""
    import pandas
    from scipy import stats

    images = [run.provenance.get("data", {}).get("train") for run in runs]
    sizes = frame["batch_size"].fillna(pandas.Series(images, dtype=float))
    for (setting, optimizer), group in frame.groupby(["setting", "optimizer"], sort=False):
        size = sizes[group.index]
        if size.nunique() < 3:
            continue
        tau, p = stats.kendalltau(size, group["ratio"], nan_policy="omit")
        means = group["ratio"].groupby(size).mean()
        ratios = ", ".join(f"batch {compact(b)}: {ratio:.2f}" for b, ratio in means.items())
        verdict: Verdict = "cannot tell"
        if p < SIGNIFICANT:
            verdict = "holds" if tau > 0 else "does not hold"
        yield f"{optimizer}; {setting}", verdict, f"{ratios}; Kendall's τ {tau:.2f}, p = {p:.2g}"


def _beyond(limit: float, neutral: float) -> Callable[[float], bool | None]:
    return lambda value: True if value >= limit else None if value > neutral else False


CLAIMS: Final[Mapping[str, Claim]] = {
    "edge": Claim(
        "Every full-batch optimizer with weight decay trains a normalised network at its own edge of "
        f"stability: the median of sharpness / threshold is {EDGE[0]} to {EDGE[1]}.",
        _each("ratio", ".2f", lambda ratio: EDGE[0] <= ratio <= EDGE[1], full_batch=True),
    ),
    "sharpness-falls": Claim(
        "With normalisation and weight decay the spherical sharpness falls after 100 % training accuracy, "
        f"fitted by a factor of {FALL} or more.",
        _each(_FALL.column, ".2f", _beyond(FALL, 1.0)),
    ),
    "accuracy-rises": Claim(
        "With normalisation and weight decay the test accuracy rises after 100 % training accuracy, by "
        f"{100 * RISE:.0f} % of the test images or more.",
        _each(_GAIN.column, "+.1%", _beyond(RISE, 0.0)),
    ),
    "decay-matters": Claim(
        "With weight decay sharpness falls more, and test accuracy gains more, than without it.",
        _pairs(lambda spec: spec["hyper"].pop("weight_decay"), lambda decay: decay > 0),
    ),
    "norm-matters": Claim(
        "With normalisation sharpness falls more, and test accuracy gains more, than without it.",
        _pairs(lambda spec: spec.pop("norm"), lambda norm: norm != "none"),
    ),
    "smaller-batch-flatter": Claim(
        "The smaller the mini-batch, the lower the sharpness settles relative to the full-batch threshold.",
        _batches,
    ),
}
