"""What `optim-family flow` can show: a figure, a table, and the numbers behind both."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Final, final

import torch
from matplotlib.figure import Figure

from optim_family.analysis.predictions import modulation_period
from optim_family.runs.labels import label, setting
from optim_family.runs.run import Run
from optim_family.theory.flow_comparison import SETTINGS, Comparison, compare, distances, exponent
from optim_family.theory.flow_figures import convergence_figure, network_figure, toy_figure
from optim_family.theory.run_drift import CUTS, Drift
from optim_family.theory.sphere import Scene
from optim_family.theory.sphere_figure import figure, film

# Four values of ηλ, so that √(ηλ) halves three times, and τ at the end.
SHRINKS, END = (4e-3, 1e-3, 2.5e-4, 6.25e-5), 2.0
ORDERS: Final = {"iterates": 0.5, "midpoints": 1.0}
TITLES: Final = {
    "regression": "Linear regression with BN, 6 examples, 12 weights",
    "completion": "Matrix completion with BN, 5 × 5 of rank 1, 10 entries seen",
    "valley": "A winding valley on the sphere",
}


@final
@dataclass(frozen=True)
class Shown:
    """One answer.

    Attributes:
        stem: of its files.
        figure: what is drawn.
        headers: of its table.
        rows: of its table.
        record: the numbers, as JSON.
        film: an animated GIF, where there is one.
    """

    stem: str
    figure: Figure
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    record: dict[str, Any]
    film: bytes | None = None


def sphere() -> Shown:
    """The picture of the whole, and a film of it."""
    scene = Scene.make()
    expected, measured = float(scene.flow.sharpness[-1]), float(scene.sharpness[-1])
    rows = [_row("S at the end", expected, measured), _row("ℓS at the end", 2.0, _ratio(scene))]
    settings = {"lr": scene.trajectory.lr, "shrink": scene.trajectory.shrink, **asdict(scene.toy)}
    return _shown("sphere", figure(scene), rows, settings, film=film(scene))


def toy(name: str) -> Shown:
    """Gradient descent on a toy beside the flow."""
    found = compare(SETTINGS[name])
    chosen = found.setting
    rows = [
        _row("S at the end", found.flow.sharpness[-1], found.sharpness[-1]),
        _row("a² at the end", found.expected_variance[-1], found.variance[-1]),
        _row("mean loss at the end", found.expected_loss[-1], found.loss[-1]),
        _row("modulation period, steps", modulation_period(chosen.shrink), found.period),
    ]
    settings = {"lr": chosen.lr, "shrink": chosen.shrink, "end": chosen.end}
    return _shown(name, toy_figure(found, TITLES[name]), rows, settings, series=_series(found))


def convergence() -> Shown:
    """How the distance to the flow shrinks with ηλ, over four values."""
    lengths = {name: distances(replace(chosen, end=END), SHRINKS) for name, chosen in SETTINGS.items()}
    rows = [
        _row(f"exponent of ηλ, {name}, {points}", order, exponent(SHRINKS, pairs[:, column]))
        for name, pairs in lengths.items()
        for column, (points, order) in enumerate(ORDERS.items())
    ]
    series = {name: dict(zip(ORDERS, pairs.T.tolist(), strict=True)) for name, pairs in lengths.items()}
    settings = {"shrinks": list(SHRINKS), "end": END}
    return _shown("convergence", convergence_figure(SHRINKS, lengths), rows, settings, series=series)


def network(run: Run, found: Drift) -> Shown:
    """A real run beside the flow."""
    table = found.rows()
    headers = [name.replace("_", " ") for name in table[0]]
    rows = [[f"{value:.4g}" for value in row.values()] for row in table]
    record = {
        "run": {"path": run.path.name, "spec": run.spec, "provenance": run.provenance},
        "checkpoints": [
            row | {"q_by_removed": list(at.q), "q_below": dict(zip(map(str, CUTS), at.below, strict=True))}
            for row, at in zip(table, found.checkpoints, strict=True)
        ],
    }
    return Shown(
        "network", network_figure(found, f"{label(run.spec)}; {setting([run.spec])}"), headers, rows, record
    )


SUBJECTS: Final[dict[str, Callable[[], Shown]]] = {
    "sphere": sphere,
    **{name: partial(toy, name) for name in SETTINGS},
    "convergence": convergence,
}


def _row(quantity: str, predicted: Any, measured: Any) -> dict[str, Any]:
    return {"quantity": quantity, "predicted": float(predicted), "measured": float(measured)}


def _shown(
    stem: str,
    drawn: Figure,
    findings: Sequence[dict[str, Any]],
    settings: dict[str, Any],
    *,
    film: bytes | None = None,
    **more: Any,
) -> Shown:
    rows = [[row["quantity"], f"{row['predicted']:.5g}", f"{row['measured']:.5g}"] for row in findings]
    record = {"settings": settings, "findings": list(findings), **more}
    return Shown(stem, drawn, list(findings[0]), rows, record, film)


def _ratio(scene: Scene) -> float:
    """ℓS at the last midpoint."""
    return float(scene.trajectory.effective_lr[-2] * scene.sharpness[-1])


def _series(found: Comparison) -> dict[str, list[float]]:
    """What the figure of a toy shows."""
    named = {
        "tau": found.flow.tau,
        "q": found.flow.q,
        "sharpness_flow": found.flow.sharpness,
        "sharpness": found.sharpness,
        "variance_flow": found.expected_variance,
        "variance": found.variance,
        "loss_flow": found.expected_loss,
        "loss": found.loss,
        "distance_iterates": found.distance,
        "distance_midpoints": found.middle_distance,
    }
    return {name: torch.as_tensor(values).tolist() for name, values in named.items()}
