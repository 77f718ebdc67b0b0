"""The log of a run: one record a line, one write a record; it only grows, and any damage is detected.

Every line ends with a check, the CRC-32 of everything before it, whose start value differs from run to run: a
flipped bit, a lost line or a line of another log is detected. Only a truncated last line, which a killed
process leaves, is dropped.
"""

import json
import math
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from operator import itemgetter
from pathlib import Path
from typing import Any, final

import orjson

from optim_family.errors import CorruptError
from optim_family.runs.atomic_files import diff_specs, writing
from optim_family.runs.layout import TIMING_FIELDS

_PATTERN = b',"check":"%08x"}\n'
_ENDING = len(_PATTERN % 0)
_BLOCK = 2**16  # bytes of a read: large enough to be fast, small enough for the processor's cache


@final
class RecordLog:
    """The writer of a log of `count` records: remembers its end, and compares records that are repeated."""

    def __init__(self, path: Path, start: int) -> None:
        """Open or create `path`; a truncated last line is removed.

        Args:
            path: the file.
            start: start value of the checks.

        Raises:
            CorruptError: the file cannot be written, or is damaged.
        """
        self.path, self.count, self._size, self._check, self._last = path, 0, 0, start, -1
        with writing(path), ExitStack() as resources:
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
            self._descriptor = os.open(path, flags, 0o666)
            resources.callback(os.close, self._descriptor)
            self._replay = resources.enter_context(path.open("rb"))
            lines = b""
            for lines, self._check in _verified(path, start):
                self.count, self._size = self.count + lines.count(b"\n"), self._size + len(lines)
            if lines:
                self._last = _parsed(lines[lines.rfind(b"\n", 0, -1) + 1 :], path)[0]["step"]
            os.ftruncate(self._descriptor, self._size)
            self._resources = resources.pop_all()
        self._stored: dict[str, Any] = {"step": -1}

    def append(self, record: Mapping[str, Any], *, must_match: bool = True) -> bool:
        """Add a record, or compare it if its step is not new; see `RunStore.append`."""
        finite_record: dict[str, Any] = finite(record)
        if finite_record["step"] <= self._last:
            if must_match:
                self._compare(finite_record)
            return False
        head = json.dumps(finite_record, separators=(",", ":"), allow_nan=False).encode()[:-1]
        line = head + _ending(head, self._check)
        self._extend(line)
        self._check = zlib.crc32(line, self._check)
        self._last, self.count = finite_record["step"], self.count + 1
        return True

    def sync(self) -> None:
        """Return when all records are on the disk.

        Raises:
            CorruptError: the file cannot be written.
        """
        with writing(self.path):
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Closing twice is harmless."""
        self._resources.close()

    def _extend(self, line: bytes) -> None:
        with writing(self.path):
            if os.fstat(self._descriptor).st_size != self._size:
                raise OSError("another program has changed it during the run")
            try:
                written = os.write(self._descriptor, line)
                if written < len(line):
                    raise OSError(f"only {written} of {len(line)} bytes fitted")
            except OSError:
                with suppress(OSError):
                    os.ftruncate(self._descriptor, self._size)
                raise
        self._size += len(line)

    def _compare(self, record: dict[str, Any]) -> None:
        while self._stored["step"] < record["step"]:
            self._stored = _parsed(self._replay.readline(), self.path)[0]
        ours, theirs = _without_timing(record), _without_timing(self._stored)
        if json.dumps(ours, sort_keys=True) != json.dumps(theirs, sort_keys=True):
            fields = "; ".join(diff_specs(theirs, ours)) or "a missing field or the sign of a zero"
            raise CorruptError(
                f"{self.path} holds another record of step {self._stored['step']} than the run computes now "
                f"({fields}): the run was not continued exactly, perhaps because of another machine or other "
                "libraries; repeat it in a new folder"
            )


def read_log(path: Path, start: int) -> Iterator[list[dict[str, Any]]]:
    """The records of a log in blocks, without their checks, also while it is written; none without a file.

    Raises:
        CorruptError: a line is damaged.
    """
    for lines, _ in _verified(path, start):
        yield _parsed(lines, path)


def finite(value: Any) -> Any:
    """Replace NaN and infinities, which JSON lacks, by None, at any depth."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def _verified(path: Path, check: int) -> Iterator[tuple[bytes, int]]:
    """Blocks of one or more whole lines, and the CRC-32 up to the end of each block."""
    if not path.exists():
        return
    with path.open("rb") as file:
        number = 1
        while block := file.read(_BLOCK) + file.readline():
            lines = block[: block.rfind(b"\n") + 1]
            rest, ending = block[len(lines) :], lines[-_ENDING:]
            inner = zlib.crc32(lines[:-_ENDING], check)
            after = zlib.crc32(ending, inner)
            if ending not in (_PATTERN % inner, b"") or (rest and not _is_truncated(rest, after)):
                raise CorruptError(
                    f"{path} is damaged in line {number + _first_bad(block, check)}, which does not match "
                    "its check; repeat the run in a new folder"
                )
            if lines:
                yield lines, after
            if rest:
                return  # a truncated line is the last one, even if its writer completes it now
            number, check = number + lines.count(b"\n"), after


def _first_bad(block: bytes, check: int) -> int:
    """The index of the first line that does not match its check."""
    index = 0
    for line in block.splitlines(keepends=True):
        if not line.endswith(_ending(line[:-_ENDING], check)):
            break
        index, check = index + 1, zlib.crc32(line, check)
    return index


def _parsed(lines: bytes, path: Path) -> list[dict[str, Any]]:
    """The records in some lines; orjson reads the same numbers as Python's parser, and is faster."""
    try:
        records: list[dict[str, Any]] = orjson.loads(b"[" + lines[:-1].replace(b"\n", b",") + b"]")
        kinds = set(map(type, map(itemgetter("step"), records)))
        for record in records:
            del record["check"]
    except ValueError as error:
        raise CorruptError(f"{path} holds lines that are not JSON: {error}") from error
    except (KeyError, TypeError):
        kinds = set()
    if kinds != {int}:
        raise CorruptError(f"{path} holds lines that are not records, since they have no step")
    return records


def _ending(head: bytes, check: int) -> bytes:
    """The end of a line: the CRC-32 of its head after `check`, the CRC-32 of everything before the line."""
    return _PATTERN % zlib.crc32(head, check)


def _is_truncated(line: bytes, check: int) -> bool:
    """Whether a line without newline was cut off, not damaged in its newline."""
    return line[-_ENDING:-1] != _ending(line[:-_ENDING], check)[:-1]


def _without_timing(value: Any) -> Any:
    """The part of a record that a repeated computation must reproduce."""
    if isinstance(value, dict):
        return {key: _without_timing(item) for key, item in value.items() if key not in TIMING_FIELDS}
    return value
