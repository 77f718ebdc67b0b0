import psutil
import pytest
import torch

from optim_family.cli import threads
from optim_family.cli.output import Output


@pytest.fixture
def machine(monkeypatch):
    """A machine of four cores; sets its load."""
    monkeypatch.setattr(psutil, "cpu_count", lambda: 4)
    before = torch.get_num_threads()
    yield lambda load: monkeypatch.setattr(psutil, "getloadavg", lambda: (load, 0.0, 0.0))
    torch.set_num_threads(before)


def test_several_threads_on_a_busy_machine_are_warned_of(machine, capsys):
    machine(7.3)
    torch.set_num_threads(2)
    threads.use_threads(None, Output())
    assert capsys.readouterr().err == (
        "the load of this machine is 7.3 on 4 cores: 2 threads may be many times slower than --threads 1\n"
    )


@pytest.mark.parametrize(("load", "used", "asked"), [(3.9, 2, None), (7.3, 1, None), (7.3, 2, 3)])
def test_otherwise_nothing_is_said(machine, capsys, load, used, asked):
    machine(load)
    torch.set_num_threads(used)
    threads.use_threads(asked, Output())
    assert capsys.readouterr().err == "" and torch.get_num_threads() == (asked or used)
