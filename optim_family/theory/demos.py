"""The demos of `optim-family flow`: each a figure, a table, and the numbers behind both."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Final, final

from matplotlib.figure import Figure

from optim_family.analysis.predictions import modulation_period
from optim_family.runs.labels import label
from optim_family.runs.labels import setting as shared_setting
from optim_family.runs.run import Run
from optim_family.theory.flow_comparison import ORDERS, SETTINGS, Comparison, compare, distances, exponent
from optim_family.theory.flow_figures import convergence_figure, network_figure, toy_figure
from optim_family.theory.run_drift import CUTS, RunDrift
from optim_family.theory.sphere import Scene
from optim_family.theory.sphere_figure import figure, film
from optim_family.theory.sphere_page import page

# A quantity, its predicted and its measured value.
Findings = Sequence[tuple[str, Any, Any]]

# Four values of ηλ, so that √(ηλ) halves three times, and τ at the end.
ETA_LAMBDAS, END = (4e-3, 1e-3, 2.5e-4, 6.25e-5), 2.0
TITLES: Final = {
    "regression": "Linear regression with BN, 6 examples, 12 weights",
    "completion": "Matrix completion with BN, 5 × 5 of rank 1, 10 entries seen",
    "valley": "A winding valley on the sphere",
}
SYMBOLS: Final = {"sharpness": "S", "variance": "a²", "loss": "mean loss"}


@final
@dataclass(frozen=True)
class Demo:
    """A figure, its table and its numbers.

    Attributes:
        stem: file name without its ending.
        figure: the figure.
        headers: of its table.
        rows: of its table.
        record: the numbers, as JSON.
        film: an animated GIF, or None.
        page: an interactive HTML page, or None.
    """

    stem: str
    figure: Figure
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    record: dict[str, Any]
    film: bytes | None = None
    page: str | None = None


def sphere() -> Demo:
    """Gradient descent and the flow on a sphere, with a film and a page."""
    scene = Scene.make()
    findings = [
        ("S at the end", scene.flow.sharpness[-1], scene.sharpness[-1]),
        ("ℓS at the end", 2.0, scene.trajectory.effective_lr[-2] * scene.sharpness[-1]),
    ]
    settings = {"lr": scene.trajectory.lr, "eta_lambda": scene.trajectory.eta_lambda, **asdict(scene.toy)}
    return replace(_demo("sphere", figure(scene), settings, findings), film=film(scene), page=page(scene))


def toy(name: str) -> Demo:
    """Gradient descent on a toy compared with the flow."""
    comparison = compare(SETTINGS[name])
    setting, predicted, measured = comparison.setting, comparison.predicted, comparison.measured
    findings = [
        *((f"{symbol} at the end", predicted[key][-1], measured[key][-1]) for key, symbol in SYMBOLS.items()),
        ("modulation period, steps", modulation_period(setting.eta_lambda), comparison.period),
    ]
    settings = {"lr": setting.lr, "eta_lambda": setting.eta_lambda, "end": setting.end}
    return _demo(name, toy_figure(comparison, TITLES[name]), settings, findings, series=_series(comparison))


def convergence() -> Demo:
    """The distance to the flow against ηλ, over four values."""
    lengths = {name: distances(replace(setting, end=END), ETA_LAMBDAS) for name, setting in SETTINGS.items()}
    findings = [
        (f"exponent of ηλ, {name}, {points}", order, exponent(ETA_LAMBDAS, column))
        for name, pairs in lengths.items()
        for (points, order), column in zip(ORDERS.items(), pairs.T, strict=True)
    ]
    series = {name: dict(zip(ORDERS, pairs.T.tolist(), strict=True)) for name, pairs in lengths.items()}
    settings = {"eta_lambdas": list(ETA_LAMBDAS), "end": END}
    return _demo("convergence", convergence_figure(ETA_LAMBDAS, lengths), settings, findings, series=series)


def network(run: Run, drift: RunDrift) -> Demo:
    """A real run compared with the flow."""
    table = drift.rows()
    headers = [name.replace("_", " ") for name in table[0]]
    rows = [[f"{value:.4g}" for value in row.values()] for row in table]
    record = {
        "run": {"path": run.path.name, "spec": run.spec, "provenance": run.provenance},
        "checkpoints": [
            row | {"q_by_removed": list(at.q), "q_below": dict(zip(map(str, CUTS), at.below, strict=True))}
            for row, at in zip(table, drift.checkpoints, strict=True)
        ],
    }
    title = f"{label(run.spec)}; {shared_setting([run.spec])}"
    return Demo("network", network_figure(drift, title), headers, rows, record)


DEMOS: Final[dict[str, Callable[[], Demo]]] = {
    "sphere": sphere,
    **{name: partial(toy, name) for name in SETTINGS},
    "convergence": convergence,
}


def _demo(stem: str, figure: Figure, settings: dict[str, Any], findings: Findings, **series: Any) -> Demo:
    """A demo whose table and record are its findings."""
    headers = ["quantity", "predicted", "measured"]
    values = [(quantity, float(predicted), float(measured)) for quantity, predicted, measured in findings]
    rows = [[quantity, f"{predicted:.5g}", f"{measured:.5g}"] for quantity, predicted, measured in values]
    record = {"settings": settings, "findings": [dict(zip(headers, row, strict=True)) for row in values]}
    return Demo(stem, figure, headers, rows, record | series)


def _series(comparison: Comparison) -> dict[str, list[float]]:
    """The curves in the figure of a toy."""
    series = {"tau": comparison.flow.tau, "q": comparison.flow.q}
    for name, measured in comparison.measured.items():
        series |= {f"{name}_flow": comparison.predicted[name], name: measured}
    series |= {f"distance_{points}": at for points, at in zip(ORDERS, comparison.distances.T, strict=True)}
    return {name: values.tolist() for name, values in series.items()}
