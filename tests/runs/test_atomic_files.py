"""Replaced whole or not at all; sealed texts that cannot be mistaken."""

import errno
import json
import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optim_family.errors import CorruptError, UsageError
from optim_family.runs.atomic_files import (
    FORBIDDEN,
    is_partial_write,
    remove_partial_writes,
    replace_atomically,
    seal,
    unseal,
)

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
values = st.dictionaries(
    st.text(),
    st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner)),
    max_size=4,
).filter(lambda value: not {"format", "sha256"} & value.keys())


@settings(max_examples=40, deadline=None)
@given(value=values)
def test_what_is_sealed_comes_back(value, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "sealed.json"
    path.write_text(seal(value))
    assert unseal(path) == value


def test_every_flipped_bit_of_a_sealed_text_is_noticed(tmp_path):
    path, whole = (
        tmp_path / "x.json",
        seal({"lr": 0.30000000000000004, "η": [1e300]}).encode(),
    )
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(CorruptError, match=r"x\.json"):
            unseal(path)


def test_every_truncation_of_a_sealed_text_is_noticed(tmp_path):
    path, whole = tmp_path / "x.json", seal({"a": 1}).encode()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(CorruptError, match="damaged"):
            unseal(path)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[]", "3", '{"format": 1}', '{"format": [], "sha256": 1}', "\x80"]
)
def test_any_other_text_is_damaged(tmp_path, text):
    (tmp_path / "x.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CorruptError, match="damaged"):
        unseal(tmp_path / "x.json")


def test_a_newer_format_is_named(tmp_path):
    (tmp_path / "x.json").write_text(seal({"a": 1}).replace('"format": 1', '"format": 2'))
    with pytest.raises(CorruptError, match=r"format 2, newer than 1; use a newer optim-family"):
        unseal(tmp_path / "x.json")


def test_a_text_that_json_cannot_hold_is_not_sealed():
    with pytest.raises(ValueError, match="JSON compliant"):
        seal({"x": float("nan")})


@pytest.mark.parametrize("fault", ["write", "fsync", "replace", "open"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO])
def test_a_refusal_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, fault, code):
    path = tmp_path / "x.json"
    replace_atomically(path, "old")

    def refuse(*_args, **_kwargs):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, fault, refuse)
        with pytest.raises((CorruptError, UsageError)) as caught:
            replace_atomically(path, "new")
    assert os.strerror(code) in str(caught.value) and str(path) in str(caught.value)
    assert "\n" not in str(caught.value) and caught.value.exit_code == (2 if code in FORBIDDEN else 5)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["x.json"]


def test_short_writes_are_continued(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
    data = random.Random(0).randbytes(100)
    replace_atomically(tmp_path / "x", data)
    assert (tmp_path / "x").read_bytes() == data


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_leftovers_of_a_kill_are_removed_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "replace", lambda *_: os._exit(9))
    if (child := os.fork()) == 0:
        replace_atomically(tmp_path / "x", "new")
    os.waitpid(child, 0)
    [left] = os.listdir(tmp_path)
    assert is_partial_write(left)
    (tmp_path / ".mine.tmp").touch()
    remove_partial_writes(tmp_path)
    assert os.listdir(tmp_path) == [".mine.tmp"]


def test_others_may_read_what_the_umask_allows(tmp_path):
    before = os.umask(0o027)
    try:
        replace_atomically(tmp_path / "x", json.dumps(1))
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640
