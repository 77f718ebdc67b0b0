"""The summary of a run, and a table of several.

A ratio is the median of value / threshold from 100 % training accuracy on, or over the last half of a run.
That of a critical sharpness is to 2/η, and that of a directional smoothness to 2⟨g, Δ⟩ / (η‖Δ‖²): 1 where an
update leaves the loss as it is.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from optim_family.runs.labels import label
from optim_family.runs.readings_table import run_labels
from optim_family.runs.run import ALONG, Run, column, first_fit_index, has_along, series, views
from optim_family.sharpness.views import LOWER_BOUND, MAX_ROUNDING, VIEWS, unscaled_view

# Measurements along the last update: field → name and unit in tables, and the field of its ratio.
ALONG_FIELDS: Final = {
    "curvature": ("curvature along the update", ""),
    "smoothness": ("directional smoothness", "smoothness_ratio"),
    "critical": ("critical sharpness", "critical_ratio"),
    "rotation": ("rotation per step, radians", ""),
}
ALONG_LIMITS: Final = {"smoothness": "its limit", "critical": "(2/η)"}


def summary(run: Run) -> dict[str, Any]:
    """The results of a run as JSON; None where there is no number.

    Accuracies are fractions, `fit_tau` is ηλt, seconds are wall time. `views` holds for each view its
    value at the fit, at its peak and at the end, and the median ratio to its threshold with quartiles. A
    reading that rounding decides is no peak.
    `sampled`, if there are sampled readings: their number, that of audits, and the largest difference.
    `along`, if it was recorded: the same for each of `ALONG_FIELDS`, and the median of every value.
    """
    at = first_fit_index(run)
    test = column(run, "test_accuracy")
    readings = {view: _view_summary(run, view, at) for view in views(run)}
    return {
        "label": label(run.spec),
        "status": run.status.get("status"),
        "steps": run.status.get("step", int(series(run, "step").max(initial=0))),
        "records": run.columns.count,
        "fit_step": None if at is None else int(series(run, "step")[at]),
        "fit_tau": _at(column(run, "tau"), at),
        "test_accuracy_at_fit": _at(test, at),
        "test_accuracy": _last(test),
        "test_accuracy_best": max(_finite(test), default=None),
        "train_accuracy": _last(column(run, "train_accuracy")),
        "train_loss": _last(column(run, "train_loss")),
        "views": readings,
        **_sampled(run),
        **({ALONG: {name: _along(run, name, at) for name in ALONG_FIELDS}} if has_along(run) else {}),
    } | {name: _total(readings, name) for name in ("products", "seconds", "unconverged", "rounded")}


def _sampled(run: Run) -> dict[str, Any]:
    """The audits of sampled readings, views of one kind once; nothing if there are no such readings."""
    kinds = {unscaled_view(view): view for view in views(run)}.values()
    count = sum(len(_finite(column(run, f"{view}.sample_products"))) for view in kinds)
    audits = [x for view in kinds for x in _finite(column(run, f"{view}.audit"))]
    numbers = {"readings": count, "audits": len(audits), "largest": max(audits, default=None)}
    return {"sampled": numbers} if count else {}


def _total(readings: Mapping[str, Mapping[str, Any]], name: str) -> float:
    """The sum over all views; views that differ by ρ² alone share one measurement, which counts once."""
    kinds: dict[str, float] = {}
    for view, reading in readings.items():
        kind = unscaled_view(view)
        kinds[kind] = max(kinds.get(kind, 0), reading[name])
    return sum(kinds.values())


def _view_summary(run: Run, view: str, at: int | None) -> dict[str, Any]:
    values = column(run, f"{view}.value")
    not_rounded = _finite(_not_rounded(run, view, values))
    small_batches = _ratios(run, f"{view}.small_batch_ratio", at)
    return {
        **_course(values, at),
        "peak": max(not_rounded, default=None),
        **_ratios(run, f"{view}.ratio", at),
        **({"small_batches": small_batches} if small_batches["ratio_readings"] else {}),
        "readings": len(_finite(values)),
        "products": int(sum(_finite(column(run, f"{view}.products")))),
        "seconds": sum(_finite(column(run, f"{view}.seconds"))),
        "unconverged": column(run, f"{view}.converged").count(0.0),
        "rounded": len(_finite(values)) - len(not_rounded),
    }


def _not_rounded(run: Run, view: str, values: Sequence[float]) -> list[float]:
    """The values without those that the rounding of the gradient behind the metric decides."""
    pairs = zip(values, column(run, f"{view}.rounding"), strict=True)
    return [value for value, rounding in pairs if not rounding > MAX_ROUNDING]


def _along(run: Run, field: str, at: int | None) -> dict[str, Any]:
    values, ratio = f"{ALONG}.{field}", ALONG_FIELDS[field][1]
    ratios = _ratios(run, f"{ALONG}.{ratio}", at) if ratio else {}
    return {**_course(column(run, values), at), "median": _ratios(run, values, at)["ratio"], **ratios}


def _course(values: Sequence[float], at: int | None) -> dict[str, Any]:
    """The value at the fit, at its peak and at the end."""
    return {"at_fit": _at(values, at), "peak": max(_finite(values), default=None), "last": _last(values)}


def _ratios(run: Run, name: str, at: int | None) -> dict[str, Any]:
    """Median, quartiles and number of the ratios from the fit on, or over the last half."""
    ratios = _finite(column(run, name)[run.columns.count // 2 if at is None else at :])
    only_ratio = next(iter(ratios), None)  # the quartiles of fewer than two ratios
    quartiles = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else [only_ratio] * 3
    return {"ratio": quartiles[1], "ratio_quartiles": quartiles[::2], "ratio_readings": len(ratios)}


def _finite(values: Iterable[float]) -> list[float]:
    return [x for x in values if math.isfinite(x)]


def _last(values: Sequence[float]) -> float | None:
    return next(reversed(_finite(values)), None)


def _at(values: Sequence[float], index: int | None) -> float | None:
    return None if index is None or not math.isfinite(values[index]) else values[index]


def summary_rows(
    runs: Sequence[Run], summaries: Sequence[Mapping[str, Any]] | None = None
) -> tuple[list[str], list[list[str]]]:
    """Headers and rows of plain text: one column a run, one row a quantity; no rows without a run.

    Args:
        runs: to summarise.
        summaries: `summary` of each; computed if None.
    """
    if not runs:
        return [], []
    summaries = summaries or [summary(run) for run in runs]
    names = list(dict.fromkeys(view for run in runs for view in views(run)))
    cells = [_cells(text, each, names) for text, each in zip(run_labels(runs), summaries, strict=True)]
    longest_first = sorted(cells, key=len, reverse=True)  # its rows in order; rows that it lacks come last
    quantities = dict.fromkeys(name for each in longest_first for name in each)
    headers, *rows = ([name, *(each.get(name, "–") for each in cells)] for name in quantities)
    return headers, rows


def _cells(text: str, s: Mapping[str, Any], names: Sequence[str]) -> dict[str, str]:
    accuracies = [s["test_accuracy_at_fit"], s["test_accuracy"], s["test_accuracy_best"]]
    fit = "–" if s["train_accuracy"] is None else "never"
    if s["fit_step"] is not None:
        fit = f"step {s['fit_step']:,} (τ {s['fit_tau']:.3g})"
    return {
        "run": text,
        "status": s["status"] or "–",
        "steps": f"{s['steps']:,}",
        "100 % training accuracy at": fit,
        "test accuracy, %: then → end (best)": _then_end_best([a and 100 * a for a in accuracies], ".1f"),
        "training loss": _number(s["train_loss"], ".3g"),
        **{k: v for name in names for k, v in _view_cells(name, s["views"].get(name)).items()},
        **{k: v for name, each in s.get(ALONG, {}).items() for k, v in _along_cells(name, each).items()},
        "HVPs": f"{s['products']:,}",
        "measuring, s": _number(s["seconds"], ".1f"),
        "unconverged readings": str(s["unconverged"]),
        **({"readings decided by rounding": str(s["rounded"])} if s["rounded"] else {}),
        **({"readings from a sample": _audit_cell(s["sampled"])} if "sampled" in s else {}),
    }


def _audit_cell(sampled: Mapping[str, Any]) -> str:
    text = f"{sampled['readings']}, no bound for any spectrum but at the {sampled['audits']} audits"
    return text + (f": largest difference {sampled['largest']:.0e}" if sampled["audits"] else "")


def _view_cells(name: str, s: Mapping[str, Any] | None) -> dict[str, str]:
    bound = f" ({LOWER_BOUND})" if name in VIEWS and VIEWS[name].generalized else ""
    sharpness = f"{name}{bound}: then → end (peak)"
    ratio = f"{name}{bound} / threshold: median (quartiles)"
    if s is None or not s["readings"]:
        return {sharpness: "–" if s is None else "not applicable", ratio: "–"}
    small = s.get("small_batches")
    plateau = {f"{name} / plateau of small batches: median (quartiles)": _ratio_cell(small)} if small else {}
    return {
        sharpness: _then_end_best([s["at_fit"], s["last"], s["peak"]], ".4g"),
        ratio: _ratio_cell(s),
        **plateau,
    }


def _along_cells(field: str, s: Mapping[str, Any]) -> dict[str, str]:
    name, ratio = ALONG_FIELDS[field]
    cells = {f"{name}: then → end (peak)": _then_end_best([s["at_fit"], s["last"], s["peak"]], ".4g")}
    if ratio:
        cells[f"{name} / {ALONG_LIMITS[field]}: median (quartiles)"] = _ratio_cell(s)
    return cells


def _ratio_cell(s: Mapping[str, Any]) -> str:
    spread = " to ".join(_number(q, ".2f") for q in s["ratio_quartiles"])
    return "–" if s["ratio"] is None else f"{s['ratio']:.2f} ({spread}, n = {s['ratio_readings']})"


def _then_end_best(values: Sequence[float | None], form: str) -> str:
    return "{} → {} ({})".format(*(_number(x, form) for x in values))


def _number(x: float | None, form: str) -> str:
    return "–" if x is None else format(x, form)
