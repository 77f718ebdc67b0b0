"""Select the views to measure: the requested ones, or the default ones that apply.

A spherical view applies to a scale-invariant loss; a preconditioned one needs a known metric. If a default
spherical view does not apply, the view without its factor ρ² replaces it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

from optim_family.errors import UsageError
from optim_family.geometry import Metric, UnknownMetric
from optim_family.sharpness.views import VIEWS, unscaled_view

# Default views of `run`, of weights without an optimizer, and of `measure` and `Recorder`.
RUN: Final = ("spherical", "spherical-preconditioned")
WEIGHTS: Final = ("raw", "spherical")
RECORDER: Final = ("raw", "spherical", "preconditioned")
# A loss counts as scale-invariant if |⟨g, w⟩| / ‖g‖‖w‖ is below this: BatchNorm's ε causes about 1e-5, a
# network without normalisation has far more.
RADIAL: Final = 1e-3


@final
@dataclass(frozen=True)
class ViewSelection:
    """The views to measure, and the spherical ones skipped because the loss is not scale-invariant."""

    views: tuple[str, ...]
    skipped: tuple[str, ...] = ()


def select_views(
    requested: Sequence[str] | None,
    default: Sequence[str],
    metric: Metric,
    *,
    invariant: bool,
    loss: str = "the loss is not scale-invariant",
) -> ViewSelection:
    """The views to measure.

    Args:
        requested: names of views; None for the default ones.
        default: names of views; preconditioned ones apply if the metric is known and not the identity.
        metric: of the optimizer; an `UnknownMetric` if it has none.
        invariant: whether the loss is scale-invariant.
        loss: the reason in an error if it is not.

    Raises:
        UsageError: a requested view does not apply.
    """
    known = not isinstance(metric, UnknownMetric)
    if requested:
        _require_applicable(requested, metric, invariant, loss)
        return ViewSelection(tuple(requested))
    useful = known and metric.scale != 1.0
    views = tuple(name for name in default if useful or not VIEWS[name].preconditioned)
    if invariant:
        return ViewSelection(views)
    skipped = tuple(name for name in views if VIEWS[name].spherical)
    return ViewSelection(tuple(dict.fromkeys(map(unscaled_view, views))), skipped)


def _require_applicable(requested: Sequence[str], metric: Metric, invariant: bool, loss: str) -> None:
    for view in (VIEWS[name] for name in requested):
        if view.spherical and not invariant:
            raise UsageError(
                f"the view {view.name!r} does not apply: {loss}; measure raw or preconditioned instead"
            )
        if view.preconditioned and isinstance(metric, UnknownMetric):
            raise UsageError(
                f"the view {view.name!r} does not apply: there is no metric: {metric.reason}; measure raw or "
                "spherical instead"
            )
