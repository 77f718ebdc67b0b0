"""What the README shows, runs."""

import re
import shlex

import pytest

from optim_family.runs.run import read_run
from tests.helpers import ROOT
from tests.helpers.cli_runner import optim_family

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
RUNS = re.findall(r"^\.venv/bin/optim-family (run .*)$", TEXT, flags=re.MULTILINE)


def test_the_library_example_measures_a_sharpness(capsys):
    assert len(EXAMPLES[0].splitlines()) <= 16
    exec(compile(EXAMPLES[0], "README.md", "exec"), {})
    printed = re.fullmatch(r"S = (\S+) ± \S+, (\S+) of the threshold 2/ℓ\n", capsys.readouterr().out)
    assert printed and float(printed[1]) > 0 and 0 < float(printed[2]) < 2


def test_the_recorder_of_the_example_leaves_a_run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile("".join(EXAMPLES[:2]), "README.md", "exec"), {})
    run = read_run(tmp_path / "runs" / "gd")
    assert [record["step"] for record in run.records] == [0, 5, 10]
    assert run.spec["optimizer"] == "gd" and run.spec["views"] == ["spherical"]
    assert run.records[0]["views"]["spherical"]["ratio"] > 0


def test_the_conformance_example_is_a_test_that_passes(tmp_path):
    names = {}
    exec(compile(EXAMPLES[-1], "README.md", "exec"), names)
    (mark,) = names["test_it_passes_every_check"].pytestmark
    names["test_it_passes_every_check"](mark.args[1][-1])
    assert len(mark.args[1]) >= 10


@pytest.mark.parametrize("line", [line for line in RUNS if "resnet" not in line])
def test_the_commands_can_be_carried_out(line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(RUNS) == 3
    assert optim_family(capsys, *shlex.split(line), "--dry-run").code == 0


def test_every_file_that_it_names_exists():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", TEXT):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("path", sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("[!.b]*/**/*.md")), ids=str)
def test_no_page_installs_a_release_that_does_not_exist(path):
    """There is none on an index: a page installs from a folder, a wheel or a repository."""
    for command in re.findall(r"pip install[^`\n]*", path.read_text(encoding="utf-8")):
        command = command.partition(" #")[0]
        assert not re.search(r"[ '\"]optim[-_]family(\[|['\" `]|$)", command), command
