import io
import sys

import pytest

from optim_family.cli import run_progress
from optim_family.runs.labels import facts
from optim_family.training.progress import ProgressListener

RECORD = {
    "step": 10,
    "train_loss": 0.01234,
    "train_accuracy": 0.987,
    "test_accuracy": 0.5,
    "views": {
        "spherical": {"value": 3.0, "threshold": 2.0, "ratio": 1.5},
        "preconditioned": {"value": 3.0, "threshold": None, "ratio": None},
        "raw": None,
    },
}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_facts_are_loss_accuracies_and_the_ratios_that_there_are():
    assert facts(RECORD) == "loss 0.0123  train 98.7%  test 50.0%  spherical ratio 1.50"


def test_the_last_record_of_a_diverged_run_has_facts_too():
    assert facts({"step": 3, "train_loss": None, "views": {}}) == "loss not finite"


def test_quiet_shows_nothing():
    assert type(run_progress.listener("title", quiet=True)) is ProgressListener


@pytest.mark.parametrize(
    ("stream", "term", "expected"),
    [
        (Terminal(), "xterm", run_progress.Bar),
        (Terminal(), "dumb", run_progress.Lines),
        (io.StringIO(), "xterm", run_progress.Lines),
    ],
)
def test_a_bar_is_for_terminals_only(monkeypatch, stream, term, expected):
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", term)
    assert type(run_progress.listener("title", quiet=False)) is expected


def test_lines_are_few_and_the_last_record_is_always_among_them(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(run_progress.time, "monotonic", lambda: now[0])
    lines = run_progress.Lines("title")
    lines.on_start(100, 0)
    for step in (*range(0, 100, 10), 95):
        lines.on_record(RECORD | {"step": step})
        now[0] += 1.0 if step < 90 else 0.0
    lines.on_message("said once")
    lines.on_end()
    lines.on_end()
    out, err = capsys.readouterr()
    assert out == ""
    lines_printed = err.splitlines()
    assert lines_printed[0] == "title"
    starts = [line.split("  ")[0] for line in lines_printed[1:]]
    assert starts == ["step 0/100", "step 50/100", "said once", "step 95/100"]
    assert lines_printed[2].endswith("spherical ratio 1.50  5 s left")


def test_a_long_wait_for_a_record_shows_steps_and_products(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(run_progress.time, "monotonic", lambda: now[0])
    lines = run_progress.Lines("title")
    lines.on_start(100, 0)
    lines.on_record(RECORD | {"step": 0})
    for step in range(1, 21):
        now[0] += 1.0
        lines.on_step(step, 0.5)
    for _ in range(10):
        now[0] += 1.0
        lines.on_product()
    printed = [line.split("  ")[0] for line in capsys.readouterr().err.splitlines()]
    assert printed == [
        "title",
        *("step 0/100", "step 5/100", "step 10/100", "step 15/100", "step 20/100"),
        *("step 20/100, measuring: 5 HVPs", "step 20/100, measuring: 10 HVPs"),
    ]


def test_the_bar_counts_the_products_of_a_measurement():
    bar = run_progress.Bar("title")
    bar.on_product()
    bar.on_product()
    assert bar._shown().strip() == "measuring: 2 HVPs"
    bar.on_record(RECORD)
    assert "measuring" not in bar._shown()


def test_time_left_counts_from_where_a_run_was_resumed(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(run_progress.time, "monotonic", lambda: now[0])
    lines = run_progress.Lines("title")
    lines.on_message("said before")
    lines.on_start(100, 50)
    now[0] = 10.0
    lines.on_record(RECORD | {"step": 60})
    assert capsys.readouterr().err.endswith("  40 s left\n")


def test_the_bar_shows_steps_numbers_and_notes(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    bar = run_progress.Bar("title")
    bar.on_message("said before")
    bar.on_start(20, 0)
    bar.on_message("said [once]")
    bar.on_step(10, 0.5)
    bar.on_record(RECORD)
    bar.on_end()
    screen = terminal.getvalue()
    texts = "said before", "title", "said [once]", "10/20", "loss 0.0123", "spherical ratio 1.50"
    assert all(text in screen for text in texts)


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5 s"), (59, "59 s"), (130, "2 min"), (3599, "60 min"), (7300, "2.0 h")]
)
def test_a_duration_has_the_largest_unit_that_it_fills(seconds, text):
    assert run_progress.duration(seconds) == text


def test_life_signs_are_few_in_a_file_and_none_if_quiet(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(run_progress.time, "monotonic", lambda: now[0])
    with run_progress.LifeSign(quiet=False) as sign:
        for now[0] in (0.0, 1.0, 4.9, 5.0, 6.0):
            sign(f"at {now[0]:g}")
    assert capsys.readouterr() == ("", "at 0\nat 5\n")
    with run_progress.LifeSign(quiet=True) as sign:
        sign("at 0")
    assert capsys.readouterr() == ("", "")


def test_life_signs_are_one_line_of_a_terminal(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with run_progress.LifeSign(quiet=False) as sign:
        sign("first [1]")
        sign("second [2]")
    assert "second [2]" in screen.getvalue() and screen.getvalue().count("\n") == 1
