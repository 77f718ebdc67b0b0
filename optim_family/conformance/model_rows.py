"""The rows of a sweep over models: their verdicts, and the file that keeps them, one a line."""

import fcntl
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, final

from optim_family.errors import BusyError, CorruptError
from optim_family.runs.atomic_files import writing
from optim_family.runs.record_log import finite

FILE: Final = "sweep.jsonl"
# λ₁ may differ by so much of its size. Right numbers differ by up to 6e-4 where a model computes in float32.
TOLERANCE: Final = 1e-3
AGREES, DIFFERS, CHANGED, CANNOT_TELL, NOT_MEASURED = VERDICTS = (
    *("agrees", "differs", "changed", "cannot tell", "not measured"),
)
FIELDS: Final = ("parameters", "value", "by differences", "check", "changed")  # of a measured model

Row = dict[str, Any]


def relative_difference(a: float, b: float) -> float:
    """|a − b| as a share of the larger one; infinite where one is not finite.

    >>> relative_difference(4.0, 5.0), relative_difference(0.0, 0.0)
    (0.2, 0.0)
    """
    difference = abs(a - b) / (max(abs(a), abs(b)) or 1.0)
    return difference if math.isfinite(difference) else math.inf


def disagreement(row: Row) -> float:
    """The relative difference of λ₁ and the other number."""
    other = row["by differences"]
    return math.inf if other is None else relative_difference(row["value"], other)


def verdict(row: Row) -> str:
    """What a row says of `measure`.

    `cannot tell` means that the differences of gradients disagree among themselves.
    """
    if "refused" in row:
        return NOT_MEASURED
    if row["changed"]:
        return CHANGED
    if disagreement(row) <= TOLERANCE:
        return AGREES
    spread = row.get("spread", 0.0)  # null where no two quotients are finite
    return CANNOT_TELL if spread is None or spread > TOLERANCE else DIFFERS


def is_current(row: Row | None, versions: Mapping[str, str], seconds: int) -> bool:
    """Whether a model needs no further measurement.

    Args:
        row: what is known of the model; a row that states no versions is current.
        versions: of the installed packages.
        seconds: the time limit; a model that exceeded a lower one is measured again.
    """
    return (
        row is not None and row.get("versions", versions) == versions and row.get("limit", seconds) >= seconds
    )


@final
class RowFile:
    """The only writer of the rows in a folder; remembers them by model. Of two rows the later one counts."""

    def __init__(self, folder: Path) -> None:
        """Open or create the file; a last line that a killed process left truncated is removed.

        Raises:
            BusyError: another process writes to it.
            CorruptError: a line is not a row, or the file cannot be written.
        """
        self.path = folder / FILE
        with writing(self.path):
            folder.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.rows, size = _read(self.path)
            with writing(self.path):
                os.ftruncate(self._descriptor, size)
        except BlockingIOError:
            self.close()
            raise BusyError(
                f"{folder} is in use by another process; wait for it, or choose another --to"
            ) from None
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "RowFile":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let other processes write."""
        os.close(self._descriptor)

    def append(self, row: Row) -> None:
        """Add a row at the end.

        Raises:
            CorruptError: the file cannot be written.
        """
        line = json.dumps(finite(row), ensure_ascii=False, allow_nan=False) + "\n"
        with writing(self.path):
            os.write(self._descriptor, line.encode())
        self.rows[row["model"]] = json.loads(line)


def read_rows(folder: Path) -> dict[str, Row]:
    """The rows by model; none without a file.

    Raises:
        CorruptError: a line is not a row.
    """
    path = folder / FILE
    return _read(path)[0] if path.exists() else {}


def _read(path: Path) -> tuple[dict[str, Row], int]:
    """The rows by model, and the bytes of the whole lines."""
    lines = path.read_bytes().splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()
    rows = {}
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            for field in () if "refused" in row else FIELDS:
                row[field]
            rows[str(row["model"])] = row
        except (ValueError, KeyError, TypeError, AttributeError):
            raise CorruptError(
                f"{path} is damaged in line {number}, which is not a row of a sweep; delete the line to "
                "measure its model again"
            ) from None
    return rows, sum(map(len, lines))
