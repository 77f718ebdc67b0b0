import importlib
import sys

import pytest

from optim_family.cli.waiting import noticed
from tests.helpers.cli_runner import optim_family


@pytest.fixture
def slow(tmp_path, monkeypatch):
    (tmp_path / "slow_thing.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("slow_thing", None)


def test_it_is_said_once_when_the_module_is_looked_for(slow):
    said, finders = [], list(sys.meta_path)
    with noticed("slow_thing", lambda: said.append("slow_thing" in sys.modules)):
        importlib.import_module("json")
        assert said == []
        importlib.import_module("slow_thing")
        assert said == [False]  # before it is there
        importlib.import_module("slow_thing")
    assert said == [False] and sys.meta_path == finders


def test_the_finders_behind_it_are_still_asked(slow, monkeypatch):
    asked = []

    class Behind:
        def find_spec(self, name, *_):
            asked.append(name)

    with monkeypatch.context() as patch:
        patch.setattr(sys, "meta_path", [Behind(), *sys.meta_path])
        with noticed("slow_thing", lambda: None):
            importlib.import_module("slow_thing")
    assert asked == ["slow_thing"]


@pytest.mark.parametrize("there", [True, False])
def test_a_terminal_is_told_and_nobody_else(there, capsys, monkeypatch):
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda self: there)
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(
        "optim_family.cli.group.main", lambda *args, **options: importlib.util.find_spec("torch") and 0
    )
    finders = list(sys.meta_path)
    told = optim_family(capsys, "--help")
    assert told.err == ("loading torch …\n" if there else "") and sys.meta_path == finders
