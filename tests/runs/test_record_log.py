"""A log that only grows, and in which any damage shows."""

import json
import math
import os
import struct
import zlib
from contextlib import ExitStack
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optim_family.errors import CorruptError
from optim_family.runs import record_log as module
from optim_family.runs.record_log import RecordLog, finite

START = 7


def record(step, **fields):
    return {
        "step": step,
        "loss": 1 / (step + 3),
        "views": {"raw": {"value": 0.1 * step, "seconds": 0.5}},
        **fields,
    }


@pytest.fixture
def opened(tmp_path):
    """The writing end of tmp_path / "log", closed at the end of the test."""
    with ExitStack() as stack:

        def opened():
            log = RecordLog(tmp_path / "log", START)
            stack.callback(log.close)
            return log

        yield opened


def read_log(path, start):
    return list(chain.from_iterable(module.read_log(path, start)))


@pytest.fixture(autouse=True, params=[1, 150, 2**16], ids=["a line at once", "two or three", "hundreds"])
def _block(request, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", request.param)


def written(path, steps):
    log = RecordLog(path, START)
    for step in steps:
        assert log.append(record(step))
    log.close()
    return path


@settings(max_examples=40, deadline=None)
@given(
    floats=st.lists(
        st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack(">d", bits.to_bytes(8))[0]), min_size=9
    )
)
def test_numbers_come_back_to_the_last_bit(floats, tmp_path_factory):
    path = tmp_path_factory.mktemp("log") / "log"
    log = RecordLog(path, START)
    log.append({"step": 0, "x": floats})
    log.close()
    [back] = read_log(path, START)
    assert [repr(x) for x in back["x"]] == [repr(x) if math.isfinite(x) else "None" for x in floats]


def test_records_come_back_in_order_without_their_checks(tmp_path):
    path = written(tmp_path / "log", range(2500))
    assert read_log(path, START) == [record(step) for step in range(2500)]


def test_no_file_has_no_records(tmp_path):
    assert read_log(tmp_path / "log", START) == []


def test_a_line_is_json_that_anybody_can_read(tmp_path):
    first, second = written(tmp_path / "log", [0, 5]).read_text().splitlines()
    assert json.loads(second) == {**record(5), "check": json.loads(second)["check"]}
    assert json.loads(first)["check"] != json.loads(second)["check"]


def test_each_record_is_one_write(tmp_path, monkeypatch, opened):
    log, writes = opened(), []
    write = os.write
    monkeypatch.setattr(os, "write", lambda *args: writes.append(args[1]) or write(*args))
    log.append(record(0))
    log.append(record(1))
    assert b"".join(writes) == (tmp_path / "log").read_bytes() and len(writes) == 2


def test_every_flipped_bit_is_noticed(tmp_path, opened):
    path, log = tmp_path / "log", opened()
    for step in range(3):
        log.append({"step": step, "x": 0.1})
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(CorruptError, match=r"line [123]"):
            read_log(path, START)


def test_a_torn_last_line_is_left_out_wherever_it_is_torn(tmp_path):
    path = written(tmp_path / "log", [0, 10])
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(first, len(whole)):
        path.write_bytes(whole[:length])
        assert read_log(path, START) == [record(0)]


def test_a_line_that_its_writer_completes_meanwhile_is_left_for_the_next_time(tmp_path, monkeypatch):
    path = written(tmp_path / "log", [0, 10])
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    is_truncated = module._is_truncated
    monkeypatch.setattr(
        module, "_is_truncated", lambda *args: path.write_bytes(whole) and is_truncated(*args)
    )
    assert read_log(path, START) == [record(0)]
    assert read_log(path, START) == [record(0), record(10)]


def test_the_number_of_a_damaged_line_is_named(tmp_path):
    path = written(tmp_path / "log", range(2500))
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1700] = lines[1700].replace(b'"check":"', b'"check":"g')
    path.write_bytes(b"".join(lines))
    with pytest.raises(CorruptError, match="damaged in line 1701,"):
        read_log(path, START)


def test_the_writer_cuts_a_torn_line_off_and_goes_on(tmp_path):
    path = written(tmp_path / "log", [0, 10])
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    assert written(path, [10]).read_bytes() == whole


def test_zeros_after_a_power_cut_are_a_torn_line(tmp_path):
    path = written(tmp_path / "log", [0])
    path.write_bytes(path.read_bytes() + bytes(4096))
    assert read_log(path, START) == [record(0)]


@pytest.mark.parametrize("order", [[0, 2], [1, 0, 2], [1, 2], [0, 1, 1, 2], [0, 0]])
def test_lost_doubled_and_exchanged_lines_are_noticed(tmp_path, order):
    path = written(tmp_path / "log", [0, 10, 20])
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[i] for i in order))
    with pytest.raises(CorruptError, match="damaged in line"):
        read_log(path, START)
    with pytest.raises(CorruptError, match="damaged in line"):
        RecordLog(path, START)


def test_a_log_from_elsewhere_is_noticed(tmp_path):
    with pytest.raises(CorruptError, match="line 1"):
        read_log(written(tmp_path / "log", [0]), START + 1)


def test_a_record_that_comes_again_is_compared_and_not_written(tmp_path, opened):
    path = written(tmp_path / "log", range(0, 50, 10))
    whole, log = path.read_bytes(), opened()
    assert not log.append(record(20, elapsed=3.0))
    again = record(30)
    again["views"]["raw"]["seconds"] = 99.0
    assert not log.append(again) and not log.append(again)
    assert path.read_bytes() == whole
    assert log.append(record(50))
    assert not log.append(record(50))


@pytest.mark.parametrize(
    ("step", "change", "said"),
    [
        (20, {"loss": math.nextafter(1 / 23, 1)}, "loss: 0.0434"),
        (20, {"loss": math.nan}, "loss: 0.0434"),
        (20, {"views": {"raw": None}}, "views.raw: "),
        (15, {}, "step: 20, not 15"),
        (20, {"more": None}, "missing field"),
    ],
)
def test_a_record_that_comes_out_otherwise_is_refused(tmp_path, step, change, said, opened):
    written(tmp_path / "log", range(0, 50, 10))
    log = opened()
    with pytest.raises(CorruptError, match=r"another record of step 20 .* continued exactly") as caught:
        log.append(record(step, **change))
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", [0, 1, 30])
def test_a_full_disk_leaves_whole_lines_only(tmp_path, monkeypatch, kept, opened):
    log, write = opened(), os.write
    log.append(record(0))
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:kept]))
        with pytest.raises(CorruptError, match=f"only {kept} of "):
            log.append(record(1))
    assert read_log(tmp_path / "log", START) == [record(0)] and log.count == 1
    assert log.append(record(1))
    assert read_log(tmp_path / "log", START) == [record(0), record(1)]


def test_a_line_that_cannot_be_cut_back_is_never_written_onto(tmp_path, monkeypatch, opened):
    log, write = opened(), os.write

    def refuse(*_):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:30]))
        patch.setattr(os, "ftruncate", refuse)
        with pytest.raises(CorruptError, match="only 30"):
            log.append(record(0))
    with pytest.raises(CorruptError, match="changed it during the run"):
        log.append(record(0))
    assert written(tmp_path / "log", [0]) and read_log(tmp_path / "log", START) == [record(0)]


@pytest.mark.parametrize("line", [b"[1]", b'{"a":1}', b'{"step":"1"}', b"{" * 5000, b"\xff", b'{"step":0},7'])
def test_a_forged_line_with_a_true_check_is_refused(tmp_path, line):
    head = line[:-1]
    (tmp_path / "log").write_bytes(head + b',"check":"%08x"}\n' % zlib.crc32(head, START))
    with pytest.raises(CorruptError, match="holds lines that are not"):
        read_log(tmp_path / "log", START)
    with pytest.raises(CorruptError, match="holds lines that are not"):
        RecordLog(tmp_path / "log", START)


def test_a_symbolic_link_is_not_followed(tmp_path):
    (tmp_path / "precious").write_text("torn line")
    (tmp_path / "log").symlink_to(tmp_path / "precious")
    with pytest.raises(CorruptError, match="could not be written"):
        RecordLog(tmp_path / "log", START)
    assert (tmp_path / "precious").read_text() == "torn line"


def test_numbers_that_json_cannot_hold_become_null_at_any_depth():
    assert finite({"a": (math.nan, [-math.inf, {"b": math.inf}]), "c": 1.5}) == {
        "a": [None, [None, {"b": None}]],
        "c": 1.5,
    }
