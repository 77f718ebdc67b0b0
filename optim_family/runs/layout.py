"""The layout of a run directory: the names of its files, and the fields of its records.

spec.json        the specification, written first: a folder is a run if it has one
metrics.jsonl    the log, one record a line
status.json      how far the run is, and how many records are safe on the disk
provenance.json  what the numbers depend on
lock             held by the writer
checkpoints/     states to resume from
summary.json     the numbers of `run_summary.summary`
figure.svg, .png the figure of the run
spectrum/        step-N.json, .svg, .png: density, trace and layers at a checkpoint; once called looks/
"""

from collections.abc import Iterable
from typing import Final

SPEC: Final = "spec.json"
LOG: Final = "metrics.jsonl"
STATUS: Final = "status.json"
PROVENANCE: Final = "provenance.json"
LOCK: Final = "lock"
CHECKPOINTS: Final = "checkpoints"
SUMMARY: Final = "summary.json"
FIGURE: Final = "figure"  # without the ending
SPECTRUM: Final = "spectrum"

# Numbers of every record; a record also holds `views`, and may hold `hvp` and further numbers of test sets.
RECORD_FIELDS: Final = (
    *("step", "tau", "train_loss", "peak_loss", "train_accuracy", "test_accuracy"),
    *("weight_norm", "gradient_norm", "effective_lr", "lr", "elapsed"),
)
# Numbers of every reading in `views`; a reading may hold `top` and `check` as well.
READING_FIELDS: Final = (
    *("value", "threshold", "ratio", "residual", "error", "bound", "products", "seconds", "converged"),
)
TIMING_FIELDS: Final = frozenset({"elapsed", "seconds"})  # of records and readings: new in every run


def record_fields(names: Iterable[str]) -> list[str]:
    """`RECORD_FIELDS`, and those of `names` that are further numbers of test sets.

    >>> record_fields(["step", "test_accuracy", "test_loss_clear", "views"])[5:7]
    ['test_accuracy', 'test_loss_clear']
    """
    end = RECORD_FIELDS.index("test_accuracy") + 1
    further = [name for name in names if name.startswith(("test_loss", "test_accuracy_"))]
    return [*RECORD_FIELDS[:end], *dict.fromkeys(further), *RECORD_FIELDS[end:]]
