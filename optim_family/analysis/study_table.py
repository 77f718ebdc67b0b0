"""The tables of a study: one row a run, and one row a group of seeds.

arm        = configuration that a study compares: optimizer, hyper-parameters, batch size and schedule
setting    = model, normalisation, data, …, which a comparison holds equal
then       = at the first record with 100 % training accuracy
gain       = from then to the last record with 100 %; a run may end in an unstable time
reduction  = S then / S at the end; fitted: of the line through log S over the steps from then on
slope      = d log S / dτ of that line, τ = ηλt; the sharpness-reduction flow allows −2 at most
own        = the sharpness in the optimizer's metric, for P = I the same; none without a known metric
ratio      = own sharpness / threshold; at the midpoint of three weights, along mini-batch gradients (there
             also to the plateau of small batches); of critical sharpness and directional smoothness, see
             `run_summary`
edge step  = first record from which the ratio stays at the edge, in the band EDGE
unstable   = after 100 %, a record with less training accuracy, or a ratio above 2
spike      = the loss rises tenfold above the median of the records before

Source: for the rate −2, K. Lyu, Z. Li, S. Arora, NeurIPS 2022.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from optim_family.analysis import run_summary
from optim_family.runs.labels import ARM, SETTING, arms, compact
from optim_family.runs.run import ALONG, Run, column, first_fit_index, series
from optim_family.sharpness.views import AMBIENT, BATCH, MIDPOINT, OWN_METRIC

if TYPE_CHECKING:
    import pandas

_MEASURED: Final = (
    "views",
    "every",
    "rtol",
    "reading",
    "midpoint",
    "batch_sharpness",
    "along",
    "budget",
    "hvp",
)
_NOT_SETTING: Final = (*ARM, "seed", "device", *_MEASURED)
TEXT: Final = "setting arm optimizer model norm data status sharpness_view own_view run".split()
_OF_SUMMARY: Final = (
    *("status", "steps", "fit_step", "fit_tau"),
    *("test_accuracy_at_fit", "test_accuracy", "test_accuracy_best", "train_accuracy", "train_loss"),
)
_NOTHING: Final[Mapping[str, Any]] = dict.fromkeys(("at_fit", "peak", "last", "ratio")) | {
    "ratio_quartiles": [None, None],
    "ratio_readings": 0,
}
_FIXED: Final = ["seed", "lr", "weight_decay", "limit", "batch_size"]
# Ratios at the edge: above 1 at the iterate; Adam cycles below the threshold of its frozen metric.
EDGE: Final = (0.8, 1.6)
UNSTABLE: Final = 2.0  # ratio
_SPIKE: Final = 10.0
_BEFORE: Final = 9  # records


def run_rows(runs: Sequence[Run], summaries: Sequence[Mapping[str, Any]] | None = None) -> "pandas.DataFrame":
    """One row a run; accuracies are fractions, sharpness is in the unit of its view, NaN is no number.

    Args:
        runs: of a study.
        summaries: `run_summary.summary` of each; computed if None.
    """
    import pandas

    summaries = summaries or [run_summary.summary(run) for run in runs]
    names = zip(settings(runs), arms([run.spec for run in runs]), strict=True)
    rows = [
        {"setting": setting, "arm": arm, "seed": run.spec["seed"], **_row(run, summary)}
        for run, summary, (setting, arm) in zip(runs, summaries, names, strict=True)
    ]
    frame = pandas.DataFrame(rows)
    return frame.astype({name: float for name in frame if name not in TEXT})


def _row(run: Run, summary: Mapping[str, Any]) -> dict[str, Any]:
    hyper, views = run.spec["hyper"], summary["views"]
    plain, own = first_view(run, AMBIENT), own_view(run)
    reading = views.get(own, _NOTHING)
    return {
        **{name: run.spec[name] for name in ("optimizer", "model", "norm", "data", "limit", "batch_size")},
        **{name: hyper[name] for name in ("lr", "weight_decay")},
        **{name: summary[name] for name in _OF_SUMMARY},
        "test_accuracy_gain": _gain(run),
        **_sharpness_columns("sharpness", run, plain, views.get(plain, _NOTHING)),
        **_sharpness_columns("own", run, own, reading),
        "ratio": reading["ratio"],
        **dict(zip(("ratio_low", "ratio_high"), reading["ratio_quartiles"], strict=True)),
        "ratio_readings": reading["ratio_readings"],
        "ratio_midpoint": views.get(own + MIDPOINT, _NOTHING)["ratio"],
        "ratio_batch": views.get(own + BATCH, _NOTHING)["ratio"],
        "ratio_small_batches": views.get(own + BATCH, {}).get("small_batches", _NOTHING)["ratio"],
        **_along_columns(summary.get(ALONG, {})),
        "edge_step": _edge_step(run, own),
        **_destabilisation_columns(run),
        "spikes": count_loss_spikes(run),
        "products": summary["products"],
        "unconverged": summary["unconverged"],
        "measuring_seconds": summary["seconds"],
        "seconds": run.status.get("seconds"),
        "run": run.path.name,
    }


def _gain(run: Run) -> float | None:
    """The test accuracy of the last record with 100 % training accuracy, less that of the first."""
    accuracies = series(run, "test_accuracy")[series(run, "train_accuracy") >= 1]
    return float(accuracies[-1] - accuracies[0]) if len(accuracies) > 1 else None


def _along_columns(along: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The columns of the last update: ratios, and medians where there is none."""
    critical, smoothness = (along.get(name, {}) for name in ("critical", "smoothness"))
    return {
        "ratio_critical": critical.get("ratio"),
        "ratio_smoothness": smoothness.get("ratio"),
        "critical": critical.get("median"),
        "smoothness": smoothness.get("median"),
        "curvature_along": along.get("curvature", {}).get("median"),
        "rotation": along.get("rotation", {}).get("median"),
    }


def _sharpness_columns(name: str, run: Run, view: str, summary: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of one sharpness: its view, its values, and its fall."""
    at, end = summary["at_fit"], summary["last"]
    slope, fall = _fit_log_sharpness(run, view)
    return {
        f"{name}_view": view,
        f"{name}_at_fit": at,
        f"{name}_peak": summary["peak"],
        f"{name}_end": end,
        f"{name}_reduction": at / end if at is not None and end else None,
        f"{name}_fitted_reduction": fall,
        f"{name}_slope": slope,
    }


def _fit_log_sharpness(run: Run, view: str) -> tuple[float | None, float | None]:
    """d log S / dτ, and the factor by which the line through log S over the steps falls from then on."""
    import numpy as np

    if (then := first_fit_index(run)) is None:
        return None, None
    columns = [column(run, name)[then:] for name in ("step", "tau", f"{view}.value")]
    table = np.array(columns)  #                                              [3, records]
    step, tau, value = table[:, np.isfinite(table).all(0) & (table[2] > 0)]
    if len(step) < 3:
        return None, None
    fall = math.exp(-np.polyfit(step, np.log(value), 1)[0] * np.ptp(step))
    return (float(np.polyfit(tau, np.log(value), 1)[0]) if np.ptp(tau) else None), fall


def destabilisations(run: Run) -> list[int]:
    """The indices of the records with which unstable times begin, after 100 % training accuracy."""
    unstable = _unstable(run)
    return [i for i, now in enumerate(unstable) if now and not unstable[i - 1]]


def _unstable(run: Run) -> list[bool]:
    """Whether training is unstable, at every record; never before 100 % training accuracy."""
    if (fit := first_fit_index(run)) is None:
        return [False] * run.columns.count
    accuracies, ratios = column(run, "train_accuracy"), column(run, f"{own_view(run)}.ratio")
    pairs = zip(accuracies, ratios, strict=True)
    return [i > fit and (accuracy < 1 or ratio > UNSTABLE) for i, (accuracy, ratio) in enumerate(pairs)]


def _destabilisation_columns(run: Run) -> dict[str, Any]:
    """Their number, and the test accuracy at the last stable records before the first and after the last."""
    begins, unstable, accuracy = destabilisations(run), _unstable(run), column(run, "test_accuracy")
    columns: dict[str, Any] = {"destabilisations": len(begins), "test_accuracy_before_first": None}
    columns["test_accuracy_after_last"] = None
    if begins:
        columns["test_accuracy_before_first"] = accuracy[begins[0] - 1]
        last_unstable = max(i for i, now in enumerate(unstable) if now)
        if last_unstable + 1 < len(accuracy):
            columns["test_accuracy_after_last"] = accuracy[-1]
    if first_fit_index(run) is None:
        columns["destabilisations"] = None
    return columns


def count_loss_spikes(run: Run) -> int:
    """How often the loss rose tenfold above the median of the nine records before."""
    peaks, losses = column(run, "peak_loss"), column(run, "train_loss")
    high = [False] * _BEFORE
    for i in range(_BEFORE, len(peaks)):
        high.append(peaks[i] > _SPIKE * median(losses[i - _BEFORE : i]))
    return sum(now and not before for before, now in zip([False, *high], high, strict=False))


def _edge_step(run: Run, view: str) -> float | None:
    """The step from which every measured ratio lies in the band EDGE; None if the last one does not."""
    steps = list(zip(column(run, "step"), column(run, f"{view}.ratio"), strict=True))
    measured = [(step, ratio) for step, ratio in steps if math.isfinite(ratio)]
    last_outside = max((i for i, (_, r) in enumerate(measured) if not EDGE[0] <= r <= EDGE[1]), default=-1)
    return measured[last_outside + 1][0] if last_outside + 1 < len(measured) else None


def first_view(run: Run, order: Iterable[str], quantity: str = "value") -> str:
    """The first of these views of which the quantity was measured; empty if there is none."""
    return next((view for view in order if any(map(math.isfinite, column(run, f"{view}.{quantity}")))), "")


def own_view(run: Run) -> str:
    """The view in the optimizer's own metric, which has a threshold; empty if its metric is unknown."""
    return first_view(run, OWN_METRIC, "threshold")


def settings(runs: Sequence[Run]) -> list[str]:
    """The setting of each run: model, normalisation, and what else differs between the runs."""
    specs = [{k: v for k, v in run.spec.items() if k not in _NOT_SETTING} for run in runs]
    others = dict.fromkeys(k for spec in specs for k in spec if k not in ("model", "norm"))
    varying = [k for k in others if any(spec.get(k) != specs[0].get(k) for spec in specs)]
    norms = {"none": ["no normalisation"], "affine": ["trained affine"]}
    return [
        ", ".join([spec["model"], *norms.get(spec["norm"], []), *(_words(spec, k) for k in varying)])
        for spec in specs
    ]


def _words(spec: Mapping[str, Any], field: str) -> str:
    with_value, without = SETTING.get(field, (f"{field} {{}}", f"no {field}"))
    return without if spec.get(field) is None else with_value.format(compact(spec[field]))


def seed_groups(frame: "pandas.DataFrame") -> "pandas.DataFrame":
    """One row for each arm in each setting: mean, standard deviation and number of every quantity.

    Columns are `<quantity>.mean`, `.sd` and `.n`; an sd of one number is NaN.
    """
    import pandas

    keys = ["setting", "arm"]
    whole = frame.drop(columns=[*_FIXED, *(set(TEXT) - set(keys))]).groupby(keys, sort=False)
    table = whole.agg(["mean", "std", "count"])
    endings = {"mean": "mean", "std": "sd", "count": "n"}
    table.columns = pandas.Index([f"{quantity}.{endings[kind]}" for quantity, kind in table.columns])
    table.insert(0, "runs", whole.size())
    return table.reset_index()
