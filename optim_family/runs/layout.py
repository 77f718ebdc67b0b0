"""The layout of a run directory: the names of its files.

The fields of a record stand in `training.record`, those of a reading in `sharpness.probe.Reading`; tables and
exports have a column for every number that a record holds.

spec.json        the specification, written first: a folder is a run if it has one
metrics.jsonl    the log, one record a line
status.json      how far the run is, and how many records are safe on the disk
provenance.json  what the numbers depend on
lock             held by the writer
checkpoints/     states to resume from
summary.json     the numbers of `run_summary.summary`
figure.svg, .png the figure of the run; .pdf and .html where wanted
spectrum/        step-N.json, .svg, .png: density, trace and layers at a checkpoint; once called looks/
"""

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

TIMING_FIELDS: Final = frozenset({"elapsed", "seconds"})  # of records and readings: new in every run
