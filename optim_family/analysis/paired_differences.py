"""Differences between runs that are equal in everything else, and their noise over seeds."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, Final, final

from optim_family.runs.run import Run

if TYPE_CHECKING:
    import pandas

FEWEST: Final = 3  # pairs from which an interval is drawn
_RESAMPLES: Final = 9999


@final
@dataclass(frozen=True)
class Quantity:
    """A column of `study_table.run_rows` in which runs are compared."""

    column: str
    ratio: bool  # by a / b, else by a − b
    words: str


COMPARED: Final = (
    Quantity("test_accuracy", False, "test accuracy at the end"),
    Quantity("test_accuracy_gain", False, "test accuracy gained after 100 %"),
    Quantity("sharpness_end", True, "sharpness at the end"),
    Quantity("sharpness_fitted_reduction", True, "fall of the sharpness after 100 %"),
    Quantity("own_fitted_reduction", True, "fall of the sharpness in its own metric"),
    Quantity("ratio", True, "sharpness / threshold after 100 %"),
)


@final
@dataclass(frozen=True)
class Difference:
    """The mean difference of paired runs and its 95 % interval, bootstrapped over the pairs.

    The mean of ratios is geometric. Fewer than three pairs give no interval: NaN.
    """

    pairs: int
    mean: float
    low: float
    high: float
    neutral: float  # 0 of differences, 1 of ratios

    @property
    def sign(self) -> int:
        """The sign of the difference; 0 if the interval contains no difference."""
        return (self.low > self.neutral) - (self.high < self.neutral)


def difference(a: Sequence[float], b: Sequence[float], *, ratio: bool = False) -> Difference:
    """Compare two equally long lists; pairs are left out where a number is missing, or has no logarithm."""
    import numpy as np
    from scipy import stats

    x, y = (np.asarray(values, dtype=float) for values in (a, b))
    if ratio:
        x, y = (np.log(np.where(values > 0, values, np.nan)) for values in (x, y))
    d = (x - y)[np.isfinite(x - y)]
    ends = (math.nan, math.nan)
    if len(d) >= FEWEST:
        bootstrap = stats.bootstrap((d,), np.mean, method="percentile", n_resamples=_RESAMPLES, rng=0)
        ends = tuple(bootstrap.confidence_interval)
    mean, low, high = (float(v) for v in (d.mean() if len(d) else math.nan, *ends))
    if ratio:
        mean, low, high = map(math.exp, (mean, low, high))
    return Difference(len(d), mean, low, high, float(ratio))


def matched_pairs(
    runs: Sequence[Run], pop_field: Callable[[Mapping[str, Any]], Any], on_side_a: Callable[[Any], bool]
) -> Iterator[tuple[int, int]]:
    """Positions (i, j) of all pairs of runs that differ in one field only, with run i on side `a`.

    Args:
        runs: of a study.
        pop_field: removes the field from a copy of a specification, and returns its value.
        on_side_a: whether a run with this value is on side `a`.
    """
    sides: dict[str, tuple[list[int], list[int]]] = {}
    for position, run in enumerate(runs):
        spec = json.loads(json.dumps(run.spec))
        value = pop_field(spec)
        key = json.dumps(spec, sort_keys=True)
        sides.setdefault(key, ([], []))[0 if on_side_a(value) else 1].append(position)
    for first, second in sides.values():
        yield from ((i, j) for i in first for j in second)


def comparisons(frame: "pandas.DataFrame") -> "pandas.DataFrame":
    """All pairs of arms that share settings and seeds, if both decay their weights or neither does.

    Columns: `quantity`, `a`, `b`, `pairs`, then `difference`, `low` and `high` (a − b, or a / b where `ratio`
    is true), and `beyond_noise`: whether the interval excludes no difference.
    """
    import pandas

    decays = frame.groupby("arm", sort=False)["weight_decay"].first() > 0
    rows = [
        {"quantity": quantity.words, "ratio": quantity.ratio, "a": a, "b": b, **_row(frame, a, b, quantity)}
        for a, b in combinations(decays.index, 2)
        if decays[a] == decays[b]
        for quantity in COMPARED
    ]
    return pandas.DataFrame([row for row in rows if row["pairs"]])


def _row(frame: "pandas.DataFrame", a: str, b: str, quantity: Quantity) -> dict[str, Any]:
    keys = ["setting", "seed"]
    values_a, values_b = (frame[frame["arm"] == arm].set_index(keys)[quantity.column] for arm in (a, b))
    pairs = values_a.index.intersection(values_b.index)
    d = difference(values_a[pairs].tolist(), values_b[pairs].tolist(), ratio=quantity.ratio)
    row = {"pairs": d.pairs, "difference": d.mean, "low": d.low, "high": d.high}
    return row | {"beyond_noise": bool(d.sign)}
