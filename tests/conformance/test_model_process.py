"""Processes that end in every way: each gives one row, and none outlives its call."""

import os
import sys
import time

import pytest

from optim_family.conformance.model_process import measure_model

LIMITED = "import resource, sys; resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[2]), 60));"


def row_of(source, seconds=60, on_poll=lambda: None):
    """The row of a process that executes some Python, without torch."""
    return measure_model("some/model", seconds, on_poll, (sys.executable, "-S", "-c", source))


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_row_is_what_the_process_writes():
    source = "import json, sys; print(json.dumps({'value': 1.5, 'arguments': sys.argv[1:]}))"
    assert row_of(source, 7) == {"model": "some/model", "value": 1.5, "arguments": ["some/model", "7"]}


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import os; os._exit(7)", "its process ended with exit code 7"),
        ("pass", "its process ended with exit code 0"),
        ("1 / 0", "its process ended with exit code 1"),
        ("import os; os.abort()", "its process was killed by SIGABRT"),
        ("import os; os.kill(os.getpid(), 9)", "its process was killed by SIGKILL"),
        ("print('{\"value\": 1', end='')", "its process ended with exit code 0"),
    ],
)
def test_a_process_without_a_row_says_how_it_ended(source, reason):
    assert row_of(source) == {"model": "some/model", "refused": reason}


def test_a_model_that_takes_too_long_is_stopped():
    row = row_of(LIMITED + "\nwhile True: pass", 1)
    assert row == {"model": "some/model", "refused": "more than 1 s of a core", "limit": 1}


def test_a_request_to_stop_kills_the_process_and_its_children(tmp_path):
    started = tmp_path / "started"
    source = (
        "import os, time; child = os.fork()\n"
        f"if child: open({str(started)!r}, 'w').write(f'{{os.getpid()}} {{child}} ')\n"
        "time.sleep(600)"
    )

    def stop():
        if started.exists() and len(started.read_text().split()) == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        row_of(source, on_poll=stop)
    pids = list(map(int, started.read_text().split()))
    end = time.monotonic() + 30
    while any(map(is_alive, pids)) and time.monotonic() < end:
        time.sleep(0.1)  # init collects the child
    assert not any(map(is_alive, pids))


def test_a_real_model_is_measured_within_its_limit():
    row = measure_model("torch/rnn", 120, lambda: None)
    assert row["model"] == "torch/rnn" and row["value"] == pytest.approx(1.4343537462380183, rel=1e-6)
    assert 0 < row["seconds"] < 120


def test_the_limit_holds_for_a_real_model():
    """Loading torch alone takes longer."""
    assert measure_model("torch/transformer", 1, lambda: None)["refused"] == "more than 1 s of a core"


def test_a_model_that_cannot_be_built_gets_its_reason():
    row = measure_model("torch/no such module", 120, lambda: None)
    assert row["refused"] == "KeyError: 'no such module'"
