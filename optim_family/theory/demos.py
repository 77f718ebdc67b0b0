"""The subjects of `optim-family flow`: a figure, a table, and the numbers behind both."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Final, final

import torch
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

# Four values of ηλ, so that √(ηλ) halves three times, and τ at the end.
ETA_LAMBDAS, END = (4e-3, 1e-3, 2.5e-4, 6.25e-5), 2.0
TITLES: Final = {
    "regression": "Linear regression with BN, 6 examples, 12 weights",
    "completion": "Matrix completion with BN, 5 × 5 of rank 1, 10 entries seen",
    "valley": "A winding valley on the sphere",
}


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
    """

    stem: str
    figure: Figure
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    record: dict[str, Any]
    film: bytes | None = None


def sphere() -> Demo:
    """Gradient descent and the flow on a sphere, with a film."""
    scene = Scene.make()
    expected, measured = float(scene.flow.sharpness[-1]), float(scene.sharpness[-1])
    rows = [_row("S at the end", expected, measured), _row("ℓS at the end", 2.0, _ratio(scene))]
    settings = {"lr": scene.trajectory.lr, "shrink": scene.trajectory.eta_lambda, **asdict(scene.toy)}
    return _demo("sphere", figure(scene), rows, settings, film=film(scene))


def toy(name: str) -> Demo:
    """Gradient descent on a toy compared with the flow."""
    comparison = compare(SETTINGS[name])
    setting = comparison.setting
    rows = [
        _row("S at the end", comparison.flow.sharpness[-1], comparison.sharpness[-1]),
        _row("a² at the end", comparison.expected_variance[-1], comparison.variance[-1]),
        _row("mean loss at the end", comparison.expected_loss[-1], comparison.loss[-1]),
        _row("modulation period, steps", modulation_period(setting.eta_lambda), comparison.period),
    ]
    settings = {"lr": setting.lr, "shrink": setting.eta_lambda, "end": setting.end}
    return _demo(name, toy_figure(comparison, TITLES[name]), rows, settings, series=_series(comparison))


def convergence() -> Demo:
    """The distance to the flow against ηλ, over four values."""
    lengths = {name: distances(replace(setting, end=END), ETA_LAMBDAS) for name, setting in SETTINGS.items()}
    rows = [
        _row(f"exponent of ηλ, {name}, {points}", order, exponent(ETA_LAMBDAS, pairs[:, column]))
        for name, pairs in lengths.items()
        for column, (points, order) in enumerate(ORDERS.items())
    ]
    series = {name: dict(zip(ORDERS, pairs.T.tolist(), strict=True)) for name, pairs in lengths.items()}
    settings = {"shrinks": list(ETA_LAMBDAS), "end": END}
    return _demo("convergence", convergence_figure(ETA_LAMBDAS, lengths), rows, settings, series=series)


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
    return Demo(
        "network",
        network_figure(drift, f"{label(run.spec)}; {shared_setting([run.spec])}"),
        headers,
        rows,
        record,
    )


SUBJECTS: Final[dict[str, Callable[[], Demo]]] = {
    "sphere": sphere,
    **{name: partial(toy, name) for name in SETTINGS},
    "convergence": convergence,
}


def _row(quantity: str, predicted: Any, measured: Any) -> dict[str, Any]:
    return {"quantity": quantity, "predicted": float(predicted), "measured": float(measured)}


def _demo(
    stem: str,
    drawn: Figure,
    quantities: Sequence[dict[str, Any]],
    settings: dict[str, Any],
    *,
    film: bytes | None = None,
    **more: Any,
) -> Demo:
    rows = [[row["quantity"], f"{row['predicted']:.5g}", f"{row['measured']:.5g}"] for row in quantities]
    record = {"settings": settings, "findings": list(quantities), **more}
    return Demo(stem, drawn, list(quantities[0]), rows, record, film)


def _ratio(scene: Scene) -> float:
    """ℓS at the last midpoint."""
    return float(scene.trajectory.effective_lr[-2] * scene.sharpness[-1])


def _series(comparison: Comparison) -> dict[str, list[float]]:
    """The curves in the figure of a toy."""
    series = {
        "tau": comparison.flow.tau,
        "q": comparison.flow.q,
        "sharpness_flow": comparison.flow.sharpness,
        "sharpness": comparison.sharpness,
        "variance_flow": comparison.expected_variance,
        "variance": comparison.variance,
        "loss_flow": comparison.expected_loss,
        "loss": comparison.loss,
        "distance_iterates": comparison.distance,
        "distance_midpoints": comparison.middle_distance,
    }
    return {name: torch.as_tensor(values).tolist() for name, values in series.items()}
