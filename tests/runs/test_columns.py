"""The columns of records, against the records."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optim_family.runs.columns import Columns

SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text("ab")
)
VALUES = SCALARS | st.lists(SCALARS, max_size=2)
NAMES = st.sampled_from("abc")
ROWS = st.dictionaries(NAMES, VALUES | st.dictionaries(NAMES, VALUES | st.dictionaries(NAMES, VALUES)))


def value_at(row, name):
    """What a column has at this record, by going down into it."""
    for field in name.split("."):
        row = row.get(field) if isinstance(row, dict) else None
    return float(row) if isinstance(row, int | float) else math.nan


def fields(row, prefix=""):
    """All but texts and lists."""
    for name, value in row.items():
        if not isinstance(value, str | list):
            yield prefix + name
        if isinstance(value, dict):
            yield from fields(value, f"{prefix}{name}.")


@given(blocks=st.lists(st.lists(ROWS, min_size=1, max_size=4), max_size=4))
def test_columns_are_what_the_records_hold(blocks):
    columns, rows = Columns(blocks), [row for block in blocks for row in block]
    assert columns.count == len(rows)
    assert set(columns.names) == {name for row in rows for name in fields(row)}
    for name in [*columns.names, "absent", "a.absent"]:
        assert np.array_equal(columns[name], [value_at(row, name) for row in rows], equal_nan=True), name


def test_names_come_in_the_order_of_the_records():
    rows = [{"step": 0, "views": {"raw": {"value": 1.0}}}, {"step": 1, "loss": 1.0, "views": {"raw": None}}]
    assert Columns([rows]).names == ["step", "views", "views.raw", "views.raw.value", "loss"]


def test_records_are_looked_at_once_and_columns_are_not_to_be_written():
    columns = Columns(iter([[{"step": 3}]]))
    assert columns["step"] is columns["step"] and columns.count == 1
    with pytest.raises(ValueError, match="read-only"):
        columns["step"][0] = 4
