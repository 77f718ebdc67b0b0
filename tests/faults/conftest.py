"""The table of what was tried and what held, printed at the end.

Each fault is tried a few times by `make test`, and as often as its row says by `make faults`.
OPTIM_FAMILY_FAULTS=0.1 is a tenth of that; OPTIM_FAMILY_FAULTS_TABLE=PATH puts its rows into a JSON file too.
"""

import json
import os
from collections import defaultdict
from pathlib import Path

import pytest


@pytest.fixture
def held(record_property):
    """Tell that a fault was survived: `held("kill −9", of=10)`, once for each try."""

    def tell(fault: str, *, of: int) -> None:
        record_property("fault", [fault, of])

    return tell


def pytest_terminal_summary(terminalreporter):
    """What was tried and what held; a try that did not hold is missing from the count, and a test failed."""
    counts, targets = defaultdict(int), {}
    reports = [report for kind in terminalreporter.stats.values() for report in kind]
    for report in reports:
        for name, value in getattr(report, "user_properties", ()):
            if name == "fault" and report.when == "call":
                counts[value[0]], targets[value[0]] = counts[value[0]] + 1, value[1]
    if not counts:
        return
    terminalreporter.section("faults survived")
    for fault in sorted(counts):
        terminalreporter.line(f"{counts[fault]:>6} of {targets[fault]:<6} {fault}")
    if path := os.environ.get("OPTIM_FAMILY_FAULTS_TABLE"):
        table = Path(path)
        rows = json.loads(table.read_text(encoding="utf-8")) if table.exists() else {}
        rows |= {fault: {"held": counts[fault], "target": targets[fault]} for fault in counts}
        text = json.dumps(rows, indent=2, ensure_ascii=False, sort_keys=True)
        table.write_text(text + "\n", encoding="utf-8")
