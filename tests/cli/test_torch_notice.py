import importlib
import sys

import pytest

from optim_family.cli import TorchNotice
from optim_family.cli.output import Output
from tests.helpers.cli_runner import optim_family


@pytest.fixture
def terminal(capsys, monkeypatch):
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda self: True)


def test_the_notice_is_printed_once_and_only_for_torch(terminal, capsys):
    notice = TorchNotice(Output())
    for name in ("json", "torch", "torch.nn", "torch"):
        assert notice.find_spec(name, None) is None
    assert capsys.readouterr().err == "loading torch …\n"


def test_the_finders_after_it_are_still_asked(terminal, monkeypatch):
    asked = []

    class Next:
        def find_spec(self, name, *_):
            asked.append(name)

    monkeypatch.delitem(sys.modules, "torch", raising=False)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "meta_path", [TorchNotice(Output()), Next(), *sys.meta_path])
        assert importlib.util.find_spec("torch") is not None
    assert asked == ["torch"]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_only_a_terminal_gets_the_notice_and_the_finders_stay(is_terminal, capsys, monkeypatch):
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda self: is_terminal)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(
        "optim_family.cli.group.main", lambda *args, **options: importlib.util.find_spec("torch") and 0
    )
    finders = list(sys.meta_path)
    answer = optim_family(capsys, "--help")
    assert answer.err == ("loading torch …\n" if is_terminal else "") and sys.meta_path == finders
