import os

import psutil
import pytest
import rich_click as click
import torch
from click.testing import CliRunner

from optim_family.cli.output import Output
from optim_family.cli.threads import threads_option


@click.command()
@threads_option
def command():
    click.echo(f"{torch.get_num_threads()} {os.environ.get('OMP_NUM_THREADS')}")


@pytest.fixture
def run(monkeypatch):
    """Run the command on a machine of four cores with a load."""
    monkeypatch.setattr(psutil, "cpu_count", lambda: 4)
    before = torch.get_num_threads()

    def run(*options, load, environment):
        monkeypatch.setattr(psutil, "getloadavg", lambda: (load, 0.0, 0.0))
        monkeypatch.setenv("MKL_NUM_THREADS", "1")
        if environment:
            monkeypatch.setenv("OMP_NUM_THREADS", environment)
        else:
            monkeypatch.delenv("OMP_NUM_THREADS")
        return CliRunner().invoke(command, options, obj=Output())

    yield run
    torch.set_num_threads(before)


@pytest.mark.parametrize(("environment", "threads"), [("2", 2), ("", 4), ("2,1", 4)])
def test_several_threads_on_a_busy_machine_are_warned_of(run, environment, threads):
    answer = run(load=7.3, environment=environment)
    slower = f"{threads} threads may be many times slower than --threads 1"
    assert answer.stderr == f"the load of this machine is 7.3 on 4 cores: {slower}\n"


@pytest.mark.parametrize(("load", "environment"), [(3.9, ""), (7.3, "1")])
def test_otherwise_nothing_is_said(run, load, environment):
    assert run(load=load, environment=environment).stderr == ""


def test_so_many_threads_are_used(run):
    answer = run("--threads", "3", load=7.3, environment="1")
    assert (answer.stdout, answer.stderr) == ("3 3\n", "")
    assert run("--threads", "0", load=0.0, environment="1").exit_code == 2
