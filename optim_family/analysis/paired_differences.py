"""Differences between runs that are equal in everything else, and their noise over seeds."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import TYPE_CHECKING, Any, Final, final

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
    specs: Sequence[Mapping[str, Any]], name: str, than: Any = None
) -> Iterator[tuple[int, int]]:
    """Positions (i, j) of all pairs of runs that differ in one field only, with run i on side `a`.

    Args:
        specs: specifications of the runs of a study.
        name: a field, or a hyper-parameter.
        than: its value on side `b`; if None, side `a` has the larger of two numbers, null being the largest.
    """
    equal: dict[str, list[tuple[int, Any]]] = {}
    for position, spec in enumerate(specs):
        rest = json.loads(json.dumps(spec))
        value = _pop(rest, name)
        equal.setdefault(json.dumps(rest, sort_keys=True), []).append((position, value))
    for runs in equal.values():
        for (i, a), (j, b) in permutations(runs, 2):
            if (a != than == b) if than is not None else _larger(a, b):
                yield i, j


def _pop(spec: dict[str, Any], name: str) -> Any:
    """Remove a hyper-parameter or a field, and return its value."""
    return spec["hyper"].pop(name) if name in spec["hyper"] else spec.pop(name, None)


def _larger(a: Any, b: Any) -> bool:
    numbers = [math.inf if value is None else value for value in (a, b)]
    return all(isinstance(value, int | float) for value in numbers) and numbers[0] > numbers[1]


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
