"""The log of a run: one record a line, one write a record; it only grows, and any damage to it shows.

Every line ends with a check, c ← CRC-32(line, c), which starts at a number of the run's own: a flipped bit,
a lost line or a line from elsewhere breaks the chain. Only a torn last line, which a kill leaves, is dropped.
"""

import gc
import itertools
import json
import math
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, final

import orjson

from optim_family.errors import CorruptError
from optim_family.files import writing
from optim_family.spec import difference

_PATTERN = b',"check":"01234567"}\n'
_ENDING, _DIGITS = len(_PATTERN), _PATTERN.index(b"0")
_TIMING = frozenset({"elapsed", "seconds"})
_BLOCK = 1000  # lines read at once: many enough to be fast, few enough for the processor's cache


@final
class Log:
    """The writing end of a log: remembers where it ends, and which of its records came again.

    Attributes:
        count: records in it.
    """

    def __init__(self, path: Path, start: int) -> None:
        """Open `path`, or make it; a torn last line is cut off.

        Args:
            path: the file.
            start: the number at which the chain of checks starts.

        Raises:
            CorruptError: it cannot be written, or is damaged.
        """
        self.path, self.count, self._size, self._check = path, 0, 0, start
        last = b'{"step":-1'
        with writing(path), ExitStack() as held:
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
            self._descriptor = os.open(path, flags, 0o666)
            held.callback(os.close, self._descriptor)
            self._replay = held.enter_context(path.open("rb"))
            for heads, self._check in _verified(path, start):
                last, self.count = heads[-1], self.count + len(heads)
                self._size += sum(map(len, heads)) + len(heads) * _ENDING
            os.ftruncate(self._descriptor, self._size)
            self._last: int = _parsed([last], path)[0]["step"]
            self._held = held.pop_all()
        self._stored: dict[str, Any] = {"step": -1}

    def append(self, record: Mapping[str, Any], *, again: bool = True) -> bool:
        """Add a record, or compare it where its step is not new; see `RunStore.append`."""
        plain: dict[str, Any] = finite(record)
        if plain["step"] <= self._last:
            if again:
                self._compare(plain)
            return False
        head = json.dumps(plain, separators=(",", ":"), allow_nan=False).encode()[:-1]
        check = zlib.crc32(head, self._check)
        self._extend(head + _ending(check))
        self._check, self._last, self.count = check, plain["step"], self.count + 1
        return True

    def sync(self) -> None:
        """Return when all records are on the disk.

        Raises:
            CorruptError: the system refuses.
        """
        with writing(self.path):
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Closing twice is harmless."""
        self._held.close()

    def _extend(self, line: bytes) -> None:
        with writing(self.path):
            if os.fstat(self._descriptor).st_size != self._size:
                raise OSError("it has changed under its writer")
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
            self._stored = _parsed([self._replay.readline()[:-_ENDING]], self.path)[0]
        ours, theirs = _timeless(record), _timeless(self._stored)
        if json.dumps(ours, sort_keys=True) != json.dumps(theirs, sort_keys=True):
            fields = "; ".join(difference(theirs, ours)) or "a missing field or the sign of a zero"
            raise CorruptError(
                f"{self.path} holds another record of step {self._stored['step']} than was now computed "
                f"({fields}): the run was not continued exactly, perhaps on another machine or with other "
                "libraries; repeat it in a new folder"
            )


def read_log(path: Path, start: int) -> list[dict[str, Any]]:
    """All records, without their checks; also while the log is being written. No file, no records.

    Raises:
        CorruptError: a line is damaged.
    """
    records: list[dict[str, Any]] = []
    with without_garbage_collection():
        for heads, _ in _verified(path, start):
            records += _parsed(heads, path)
    return records


def finite(value: Any) -> Any:
    """JSON has no NaN and no infinities: null stands for them, at any depth."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def _verified(path: Path, check: int) -> Iterator[tuple[list[bytes], int]]:
    """The whole lines up to their checks, at least one, and the last check: again and again, many at once."""
    if not path.exists():
        return
    with path.open("rb") as file:
        number = 1
        while lines := list(itertools.islice(file, _BLOCK)):
            heads = [line[:-_ENDING] for line in lines]
            checks = list(itertools.accumulate(heads, _next_check, initial=check))
            good = len(lines)
            if b"".join([line[-_ENDING:] for line in lines]) != _endings(checks[1:]):
                good = next(i for i, line in enumerate(lines) if line[-_ENDING:] != _ending(checks[i + 1]))
                if not _torn(lines[good], checks[good]):
                    raise CorruptError(
                        f"{path} is damaged in line {number + good}, which does not match its check; "
                        "repeat the run in a new folder"
                    )
            if good:
                yield heads[:good], checks[good]
            if good < len(lines):
                return  # a torn line is the last one, even if its writer completes it meanwhile
            number, check = number + good, checks[good]


def _next_check(check: int, head: bytes) -> int:
    return zlib.crc32(head, check)


def _parsed(heads: list[bytes], path: Path) -> list[dict[str, Any]]:
    """The records; orjson reads the same numbers as Python's parser, and is faster."""
    try:
        records: list[dict[str, Any]] = orjson.loads(b"[" + b"},".join(heads) + b"}]")
    except ValueError as error:
        raise CorruptError(f"{path} holds lines that are not JSON: {error}") from error
    if not all(type(record) is dict and type(record.get("step")) is int for record in records):
        raise CorruptError(f"{path} holds lines that are not records, for they have no step")
    return records


def _ending(check: int) -> bytes:
    return _endings([check])


def _endings(checks: list[int]) -> bytes:
    """The ends of so many lines, one after the other, column by column."""
    endings = bytearray(_PATTERN * len(checks))
    digits = struct.pack(f">{len(checks)}I", *checks).hex().encode()
    for place in range(8):
        endings[_DIGITS + place :: _ENDING] = digits[place::8]
    return bytes(endings)


def _torn(line: bytes, check: int) -> bool:
    """No newline, and not because the newline itself was changed."""
    whole = line[-_ENDING:-1] == _ending(zlib.crc32(line[:-_ENDING], check))[:-1]
    return not line.endswith(b"\n") and not whole


def _timeless(value: Any) -> Any:
    """What must come out the same when it is computed again."""
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if key not in _TIMING}
    return value


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Looking through millions of small live objects in vain costs time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
