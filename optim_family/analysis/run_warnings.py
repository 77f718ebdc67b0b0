"""What a reader of a run's numbers must know first."""

import math
from collections.abc import Iterator

from optim_family.runs.run import Run, column, series, views
from optim_family.sharpness.views import MAX_ROUNDING


def warnings(run: Run) -> Iterator[str]:
    """One line for each: an early end, readings not converged or decided by rounding, a failed check."""
    status, step, steps = (run.status.get(name) for name in ("status", "step", "steps"))
    if status == "diverged":
        yield f"training diverged: step {step} is the last"
    elif status != "done":
        yield f"not finished: {status or 'no status'}" + f" at step {step} of {steps}" * (step is not None)
    for view in views(run):
        converged = [x for x in column(run, f"{view}.converged") if math.isfinite(x)]
        if failed := converged.count(0.0):
            yield f"{view}: {failed} of {len(converged)} readings did not converge"
        if rounded := [(x, n) for n, x in enumerate(column(run, f"{view}.rounding")) if x > MAX_ROUNDING]:
            step = int(series(run, "step")[max(rounded)[1]])
            yield (
                f"{view}: rounding of the gradient behind the metric decides {len(rounded)} of "
                f"{len(converged)} readings; it can change that of step {step} by {max(rounded)[0]:.0%}"
            )
    model = run.provenance.get("model", {})
    if isinstance(model, dict) and model.get("invariant") is False:
        yield str(model.get("verdict") or "not scale-invariant")
    yield from dict.fromkeys(_failed_checks(run))


def _failed_checks(run: Run) -> Iterator[str]:
    """The verdicts, other than `passed`, of the check of the second derivative."""
    for record in run.read():
        for name, reading in (record.get("views") or {}).items():
            verdict = (reading or {}).get("check")
            if verdict and verdict != "passed":
                yield f"{name}: {verdict}"
