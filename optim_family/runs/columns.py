"""The numbers of records, by columns: as dictionaries a million records take more than a gigabyte."""

import math
from collections.abc import Iterable
from contextlib import suppress
from functools import cached_property
from itertools import chain
from operator import itemgetter
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Rows = list[dict[str, Any]]


@final
class Columns:
    """What records hold, by fields of any depth, such as `views.spherical.ratio`."""

    def __init__(self, blocks: Iterable[Rows]) -> None:
        """Records, many at a time; they are looked at once, when first asked for, and not kept."""
        self._blocks = blocks
        self._found: dict[str, Array] = {}

    @property
    def count(self) -> int:
        """The number of records."""
        return self._gathered[0]

    @property
    def names(self) -> list[str]:
        """All fields, in the order of their coming."""
        return list(self._gathered[1])

    def __getitem__(self, name: str) -> Array:
        """One field at every record, [count], NaN where it is absent or no number; not to be written."""
        if name not in self._found:
            count, columns = self._gathered
            column = np.full(count, np.nan)
            found = np.frombuffer(columns.get(name, b""))
            column[: len(found)] = found
            column.flags.writeable = False
            self._found[name] = column
        return self._found[name]

    @cached_property
    def _gathered(self) -> tuple[int, dict[str, bytearray]]:
        """The number of records, and the columns, which may end before the records do."""
        count, columns = 0, dict[str, bytearray]()
        for block in self._blocks:
            for name, numbers in _numbers("", block).items():
                column = columns.setdefault(name, bytearray())
                column += np.full(count - len(column) // 8, np.nan).data
                column += numbers.data
            count += len(block)
        return count, columns


def _numbers(prefix: str, rows: Rows) -> dict[str, Array]:
    """The columns of some records, by name; after a dictionary come those of what it holds."""
    found: dict[str, Array] = {}
    for field, values in _turned(rows).items():
        name = prefix + field
        if isinstance(values, np.ndarray):
            found[name] = values
            continue
        kinds = set(map(type, values))
        whole = kinds == {dict}
        found[name] = np.full(len(rows), np.nan) if whole else np.fromiter(map(_number, values), np.float64)
        if dict in kinds:
            found |= _numbers(f"{name}.", values if whole else list(map(_fields, values)))
    return found


def _number(value: Any) -> float:
    return value if isinstance(value, (int, float)) else math.nan


def _fields(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _turned(rows: Rows) -> dict[str, Array | list[Any]]:
    """Of every field its values, as an array where all are numbers; nearly always all rows have the same."""
    with suppress(KeyError):
        if len(set(map(len, rows))) == 1:
            return {field: _values(rows, field) for field in rows[0]}
    return {field: [row.get(field) for row in rows] for field in dict.fromkeys(chain.from_iterable(rows))}


def _values(rows: Rows, field: str) -> Array | list[Any]:
    with suppress(TypeError, ValueError):
        return np.fromiter(map(itemgetter(field), rows), np.float64, len(rows))
    return [row[field] for row in rows]
