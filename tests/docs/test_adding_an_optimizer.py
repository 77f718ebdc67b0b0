"""The page on adding an optimizer, carried out: its files, its commands and its script."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from optim_family import testing
from optim_family.runs.run import read_run
from tests.helpers import ROOT
from tests.helpers.cli_runner import optim_family
from tests.helpers.environments import call

DOCS = ROOT / "docs"
TEXT = (DOCS / "adding-an-optimizer.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`([\w./]+)`\n\n```\w+\n(.*?)```", TEXT, flags=re.DOTALL | re.MULTILINE))
(COMMANDS,) = re.findall(r"```sh\n(.*?)```", TEXT, flags=re.DOTALL)
SCRIPT = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)[-1]
SHORTER = {"1000": "4", "10": "2"}  # steps, and steps between records


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    """The folder with the files of the page, installed beside it as pip would."""
    folder = tmp_path_factory.mktemp("walk")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    options = "--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"
    call(sys.executable, "-m", "pip", "install", *options, "--target", folder / "site", folder, cwd=folder)
    return folder


@pytest.fixture
def installed(walk, monkeypatch):
    monkeypatch.syspath_prepend(str(walk / "site"))
    monkeypatch.chdir(walk)
    yield walk
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_optimizers"]:
        del sys.modules[name]


def test_there_are_four_files_and_the_commands_use_them():
    padam = {"setup.cfg", "pyproject.toml", "my_optimizers/padam.py", "tests/test_padam.py"}
    assert FILES.keys() == padam | {"my_optimizers/sign.py"}
    first, second, *rest = COMMANDS.splitlines()
    assert first == "pip install --editable ." and second == "python -m pytest tests"
    assert len(rest) == 5 and all(line.startswith("optim-family ") for line in rest)


def test_its_test_passes(installed):
    check = FILES["tests/test_padam.py"]
    names = {}
    exec(compile(check, "test_padam.py", "exec"), names)
    (mark,) = names["test_it_passes_every_check"].pytestmark
    for check in mark.args[1]:
        names["test_it_passes_every_check"](check)
    assert len(mark.args[1]) >= 10


def test_the_norm_of_the_second_example_passes_every_check(installed):
    from my_optimizers.sign import Sign

    measured = [check(Sign) for check in testing.CHECKS]
    assert sum("relative error" in text or "differs from 1" in text for text in measured) == 3


def test_its_commands_end_in_a_figure(installed, capsys):
    for line in COMMANDS.splitlines()[2:]:
        words = [SHORTER.get(word, word) for word in shlex.split(line)[1:]]
        answer = optim_family(capsys, *words)
        assert answer.code == 0, answer.err
        if "--help" in words:
            assert "Hyper-parameters of padam" in answer.out and "--damping" in answer.out
    assert (installed / "runs" / "three" / "comparison.svg").exists()
    readings = [
        record["views"]["spherical-preconditioned"] for record in read_run(Path("runs/padam")).records
    ]
    assert len(readings) == 3 and all(reading["ratio"] > 0 for reading in readings)


def test_its_script_leaves_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(SCRIPT, "script.py", "exec"), {})
    run = read_run(tmp_path / "runs" / "script")
    assert [record["step"] for record in run.records] == [0, 50, 100]
    assert run.spec["optimizer"] == "torch:AdamW" and run.status["status"] == "done"


def test_every_file_that_it_names_exists():
    for target in re.findall(r"\]\((?!https?:|#)([^)]+)\)", TEXT):
        assert (DOCS / target.partition("#")[0]).exists(), target
