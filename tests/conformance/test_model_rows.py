"""Verdicts of rows, and the file that keeps them."""

import json

import pytest

from optim_family.conformance.model_rows import (
    AGREES,
    CANNOT_TELL,
    CHANGED,
    DIFFERS,
    FILE,
    NOT_MEASURED,
    RowFile,
    is_current,
    read_rows,
    verdict,
)
from optim_family.errors import BusyError, CorruptError
from tests.helpers import ROOT


def row(model="torch/rnn", value=2.0, other=2.0, **fields):
    values = {"model": model, "parameters": 5, "value": value, "by differences": other}
    return values | {"check": "passed", "changed": []} | fields


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (row(), AGREES),
        (row(other=2.0019), AGREES),
        (row(other=2.0021), DIFFERS),
        (row(other=-2.0, spread=1e-6), DIFFERS),
        (row(other=3.0, spread=0.5), CANNOT_TELL),
        (row(other=2.0, spread=0.5), AGREES),
        (row(other=None, spread=None), CANNOT_TELL),
        (row(value=0.0, other=0.0), AGREES),
        (row(other=3.0, changed=["fc.weight"]), CHANGED),
        ({"model": "torch/rnn", "refused": "no"}, NOT_MEASURED),
    ],
)
def test_a_verdict_follows_from_the_numbers(values, expected):
    assert verdict(values) == expected


def test_a_row_is_current_for_its_versions_and_its_limit():
    versions = {"torch": "2"}
    assert not is_current(None, versions, 5)
    assert is_current(row(), versions, 5) and is_current(row(versions=versions), versions, 5)
    assert not is_current(row(versions={"torch": "1"}), versions, 5)
    slow = {"model": "x", "refused": "more than 5 s of a core", "limit": 5}
    assert (
        is_current(slow, versions, 5) and is_current(slow, versions, 4) and not is_current(slow, versions, 6)
    )


def test_rows_are_kept_and_the_later_of_two_counts(tmp_path):
    folder = tmp_path / "new" / "folder"
    assert read_rows(folder) == {}
    with RowFile(folder) as file:
        file.append(row("a"))
        file.append(row("b", spread=float("inf")))
    with RowFile(folder) as file:
        assert list(file.rows) == ["a", "b"] and file.rows["b"]["spread"] is None
        file.append(row("a", value=3.0))
        assert file.rows["a"]["value"] == 3.0
    assert read_rows(folder)["a"]["value"] == 3.0
    assert len((folder / FILE).read_text().splitlines()) == 3


def test_a_truncated_last_line_is_dropped_and_its_model_measured_again(tmp_path):
    whole = json.dumps(row("a")) + "\n"
    (tmp_path / FILE).write_text(whole + json.dumps(row("b")))
    assert list(read_rows(tmp_path)) == ["a"]
    with RowFile(tmp_path) as file:
        assert list(file.rows) == ["a"]
        file.append(row("c"))
    assert list(read_rows(tmp_path)) == ["a", "c"]


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        json.dumps(row() | {"model": "b"}).replace("check", "chick"),
        "{}",
        "1",
        '{"model": "a"}',
        '{"refused": "x"}',
        "\x00" * 9,
    ],
)
def test_a_damaged_line_is_named_and_nothing_is_lost(tmp_path, line):
    text = json.dumps(row("a")) + f"\n{line}\n"
    (tmp_path / FILE).write_text(text)
    for read in (read_rows, RowFile):
        with pytest.raises(CorruptError, match=r"sweep\.jsonl is damaged in line 2, which is not a row"):
            read(tmp_path)
    assert (tmp_path / FILE).read_text() == text


def test_a_second_writer_is_refused_until_the_first_has_ended(tmp_path):
    with RowFile(tmp_path):
        with pytest.raises(
            BusyError, match="is in use by another process; wait for it, or choose another --to"
        ):
            RowFile(tmp_path)
    RowFile(tmp_path).close()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CorruptError, match="could not be written: "):
        RowFile(tmp_path / "file" / "folder")


def test_the_stored_rows_are_read_and_agree():
    words = [verdict(each) for each in read_rows(ROOT / "results" / "models").values()]
    assert (words.count(AGREES), words.count(NOT_MEASURED), len(words)) == (138, 14, 152)
