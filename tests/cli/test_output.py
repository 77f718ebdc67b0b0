"""Tables for a terminal of 80 columns, and for a file."""

import re
import sys

import pytest

from optim_family.cli.output import Output, a_run_a_row
from optim_family.cli.study_progress import HEADERS

NAME = "rmsprop  lr 0.0125, wd 0.0005, β₂ 0.99, scale-invariant, vgg11_narrow, 5,000 images, seed "
CELLS = {
    "status": "done",
    "100 % training accuracy at": "step 12,000 (τ 0.0123)",
    "test accuracy, %: then → end (best)": "44.1 → 46.1 (47.2)",
    "spherical-preconditioned: then → end (peak)": "1.234e+05 → 4.321e+04 (2.345e+05)",
    "spherical-preconditioned / threshold: median (quartiles)": "1.02 (0.99 to 1.05, n = 160)",
    "unconverged readings": "0",
}


def table(runs):
    headers = ["run", *(f"{NAME}{seed}" for seed in range(runs))]
    return headers, [[name, *(f"{cell}" for _ in range(runs))] for name, cell in CELLS.items()]


def plain(capsys):
    return re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out).splitlines()


@pytest.fixture
def terminal(monkeypatch, capsys):
    """What stands on a terminal of so many columns, one string a line, without colours."""

    def lines(width, runs):
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
        monkeypatch.setenv("COLUMNS", str(width))
        Output().result_of_runs({}, *table(runs))
        return plain(capsys)

    return lines


@pytest.mark.parametrize("runs", [3, 12])
def test_many_runs_have_a_row_each_on_80_columns(terminal, runs):
    lines = terminal(80, runs)
    assert max(map(len, lines)) <= 80
    for cell in CELLS.values():  # none is folded
        assert sum(cell in line for line in lines) >= runs
    rows = [line for line in lines if re.match(rf" *{runs}  ", line)]
    assert len(rows) >= 3 and NAME[:60] in rows[0]


def test_a_table_that_fits_keeps_a_column_for_each_run(terminal):
    assert any(line.count("done") == 3 for line in terminal(400, 3))
    assert not any(line.count("done") == 3 for line in terminal(80, 3))


def test_a_file_has_a_column_for_each_run(capsys):
    Output().result_of_runs({}, *table(5))
    assert any(line.count("done") == 5 for line in capsys.readouterr().out.splitlines())


def test_every_quantity_is_in_one_of_the_tables():
    headers, rows = table(4)
    for width in (20, 80, 200):
        tables = [*a_run_a_row(headers, rows, width)]
        assert [name for columns, _ in tables for name in columns if name != "#"] == ["run", *CELLS]
        assert all(len(cells) == 4 for _, cells in tables)


def test_the_states_of_a_study_fit_on_80_columns(terminal, capsys):
    terminal(80, 3)
    facts = "loss 0.0123  train 99.8%  test 45.2%  spherical-preconditioned ratio 1.01"
    Output().table(HEADERS, [[f"{NAME}{i}", "diverged", "12,000/20,000", "12 min", facts] for i in range(3)])
    lines = plain(capsys)
    assert max(map(len, lines)) <= 80
    assert sum("diverged  12,000/20,000  12 min  loss 0.0123" in line for line in lines) == 3
