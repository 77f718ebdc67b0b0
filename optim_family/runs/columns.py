"""The numbers of records as columns; as dictionaries a million records need more than a gigabyte."""

import math
from collections.abc import Iterable, Mapping
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
    """The numbers of records by field; a nested field is `views.spherical.ratio`."""

    def __init__(self, blocks: Iterable[Rows]) -> None:
        """`blocks` of records are read once, at the first access, and not kept."""
        self._blocks = blocks
        self._columns: dict[str, Array] = {}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> "Columns":
        """The columns of these arrays by field, all of one length."""
        columns = cls([])
        count = len(next(iter(arrays.values()), ()))
        columns._parsed = count, {name: bytearray(np.asarray(x, np.float64)) for name, x in arrays.items()}
        return columns

    @property
    def count(self) -> int:
        """The number of records."""
        return self._parsed[0]

    @property
    def names(self) -> list[str]:
        """The fields that hold more than texts and lists, in order of first appearance."""
        return list(self._parsed[1])

    def __getitem__(self, name: str) -> Array:
        """One field at every record, [count], read-only; NaN if it is missing or not a number."""
        if name not in self._columns:
            count, buffers = self._parsed
            column = np.full(count, np.nan)
            numbers = np.frombuffer(buffers.get(name, b""))
            column[: len(numbers)] = numbers
            column.flags.writeable = False
            self._columns[name] = column
        return self._columns[name]

    @cached_property
    def _parsed(self) -> tuple[int, dict[str, bytearray]]:
        """The number of records, and the columns; a column may be shorter than the number of records."""
        count, columns = 0, dict[str, bytearray]()
        for block in self._blocks:
            for name, numbers in _numbers("", block).items():
                column = columns.setdefault(name, bytearray())
                column += np.full(count - len(column) // 8, np.nan).data
                column += numbers.data
            count += len(block)
        return count, columns


def _numbers(prefix: str, rows: Rows) -> dict[str, Array]:
    """The columns of a block of records by name; those of a nested dictionary follow it."""
    columns: dict[str, Array] = {}
    for field, values in _transpose(rows).items():
        name = prefix + field
        if isinstance(values, np.ndarray):
            columns[name] = values
            continue
        types = set(map(type, values))
        if types <= {str, list}:
            continue
        numbers = (value if isinstance(value, int | float) else math.nan for value in values)
        columns[name] = np.fromiter(numbers, np.float64, len(rows))
        if dict in types:
            nested = [value if isinstance(value, dict) else {} for value in values]
            columns |= _numbers(f"{name}.", nested)
    return columns


def _transpose(rows: Rows) -> dict[str, Array | list[Any]]:
    """The values of each field, as an array if all are numbers; fast if all rows have the same fields."""
    with suppress(KeyError):
        if len(set(map(len, rows))) == 1:
            return {field: _values(rows, field) for field in rows[0]}
    names = dict.fromkeys(chain.from_iterable(rows))
    return {field: [row.get(field, "") for row in rows] for field in names}  # like a text: no number, no null


def _values(rows: Rows, field: str) -> Array | list[Any]:
    with suppress(TypeError, ValueError):
        return np.fromiter(map(itemgetter(field), rows), np.float64, len(rows))
    return [row[field] for row in rows]
