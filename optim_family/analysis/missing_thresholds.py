"""Why runs have no ratio of a view to its threshold, where their tables show a dash."""

import math
from collections.abc import Iterator, Sequence

from optim_family.analysis.study_table import first_view
from optim_family.runs.run import Run, column, views
from optim_family.sharpness.views import OWN_METRIC, VIEWS

_NO_THRESHOLD = "no threshold: "  # begins the reason in the note of a reading


def missing_thresholds(runs: Sequence[Run]) -> list[str]:
    """One line for each view and optimizer whose readings have no threshold, with the reason."""
    return list(dict.fromkeys(line for run in runs for line in _lines(run)))


def _lines(run: Run) -> Iterator[str]:
    other = first_view(run, OWN_METRIC, "threshold") or first_view(run, ["generalized"])
    for view in (view for view in views(run) if view in VIEWS):  # a variant has the threshold of its view
        value, threshold = (column(run, f"{view}.{field}") for field in ("value", "threshold"))
        if not any(map(math.isfinite, value)) or any(map(math.isfinite, threshold)):
            continue
        reason = _noted(run, view) or "none is known"
        if not VIEWS[view].own_geometry:
            reason = "it needs a metric that is a multiple of the identity" + f"; see {other}" * bool(other)
        yield f"{view} has no threshold for {run.spec['optimizer']}: {reason}"


def _noted(run: Run, view: str) -> str:
    """The reason in the note of the last reading; empty without one."""
    notes = [(record.get("views") or {}).get(view) or {} for record in run.records[-1:]]
    parts = (part for note in notes for part in note.get("note", "").split("; "))
    return next((part.removeprefix(_NO_THRESHOLD) for part in parts if part.startswith(_NO_THRESHOLD)), "")
