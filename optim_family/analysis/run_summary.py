"""The summary of a run, and a table of several.

A ratio is the median of value / threshold from 100 % training accuracy on, or over the last half of a run.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from optim_family.runs.labels import label
from optim_family.runs.readings_table import run_labels
from optim_family.runs.run import Run, column, first_fit_index, series, views
from optim_family.sharpness.views import LOWER_BOUND, VIEWS, unscaled_view


def summary(run: Run) -> dict[str, Any]:
    """The results of a run as JSON; None where there is no number.

    Accuracies are fractions, `fit_tau` is ηλt, seconds are wall time. `views` holds for each view its
    value at the fit, at its peak and at the end, and the median ratio to its threshold with quartiles.
    `sampled`, if there are sampled readings: their number, that of audits, and the largest difference.
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
    } | {name: _total(readings, name) for name in ("products", "seconds", "unconverged")}


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
    ratios = _finite(column(run, f"{view}.ratio")[len(values) // 2 if at is None else at :])
    only_ratio = next(iter(ratios), None)  # the quartiles of fewer than two ratios
    quartiles = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else [only_ratio] * 3
    return {
        "at_fit": _at(values, at),
        "peak": max(_finite(values), default=None),
        "last": _last(values),
        "ratio": quartiles[1],
        "ratio_quartiles": quartiles[::2],
        "ratio_readings": len(ratios),
        "readings": len(_finite(values)),
        "products": int(sum(_finite(column(run, f"{view}.products")))),
        "seconds": sum(_finite(column(run, f"{view}.seconds"))),
        "unconverged": column(run, f"{view}.converged").count(0.0),
    }


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
    if any("sampled" in each for each in summaries):
        for row, each in zip(cells, summaries, strict=True):
            row["readings from a sample"] = _audit_cell(each.get("sampled"))
    headers, *rows = ([name, *(each[name] for each in cells)] for name in cells[0])
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
        "HVPs": f"{s['products']:,}",
        "measuring, s": _number(s["seconds"], ".1f"),
        "unconverged readings": str(s["unconverged"]),
    }


def _audit_cell(sampled: Mapping[str, Any] | None) -> str:
    if sampled is None:
        return "–"
    text = f"{sampled['readings']}, no bound for any spectrum but at the {sampled['audits']} audits"
    return text + (f": largest difference {sampled['largest']:.0e}" if sampled["audits"] else "")


def _view_cells(name: str, s: Mapping[str, Any] | None) -> dict[str, str]:
    bound = f" ({LOWER_BOUND})" if name in VIEWS and VIEWS[name].generalized else ""
    sharpness, ratio = f"{name}{bound}: then → end (peak)", f"{name} / threshold: median (quartiles)"
    if s is None or not s["readings"]:
        return {sharpness: "–" if s is None else "not applicable", ratio: "–"}
    spread = " to ".join(_number(q, ".2f") for q in s["ratio_quartiles"])
    return {
        sharpness: _then_end_best([s["at_fit"], s["last"], s["peak"]], ".4g"),
        ratio: "–" if s["ratio"] is None else f"{s['ratio']:.2f} ({spread}, n = {s['ratio_readings']})",
    }


def _then_end_best(values: Sequence[float | None], form: str) -> str:
    return "{} → {} ({})".format(*(_number(x, form) for x in values))


def _number(x: float | None, form: str) -> str:
    return "–" if x is None else format(x, form)
