"""The distribution that `optimizers new` writes, which passes its own checks."""

import json
import re
import sys

import pytest

from tests.helpers import ROOT
from tests.helpers.cli_runner import optim_family
from tests.helpers.environments import call


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Its folder, and an installation of it beside."""
    folder = tmp_path_factory.mktemp("new")
    environment = {"PYTHONPATH": str(ROOT)}
    command = sys.executable, "-m", "optim_family", "optimizers", "new", "my-lynx", "--json"
    answer = json.loads(call(*command, cwd=folder, **environment))
    options = "--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"
    source = folder / "my-lynx"
    call(sys.executable, "-m", "pip", "install", *options, "--target", folder / "site", source, cwd=folder)
    return source, answer["files"], folder / "site"


def test_nothing_of_the_template_is_left_open(written):
    source, files, _ = written
    assert {"my-lynx/setup.cfg", "my-lynx/my_lynx_optimizer/optimizer.py"} <= set(files)
    for file in files:
        text = (source.parent / file).read_text(encoding="utf-8")
        assert text and not re.search("NAME|PACKAGE|CLASS", text)


def test_its_readme_installs_optim_family_first_and_links_to_no_index(written):
    text = (written[0] / "README.md").read_text(encoding="utf-8")
    assert "pypi.org" not in text
    assert text.index("pip install PATH/TO/optim-family pytest") < text.index("pip install --editable .")


def test_it_passes_its_own_tests(written, tmp_path):
    source, _, site = written
    command = (
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:xdist",
        "-p",
        "no:cacheprovider",
        source / "tests",
    )
    answer = call(*command, cwd=tmp_path, PYTHONPATH=f"{site}:{ROOT}", OMP_NUM_THREADS="1")
    assert " passed" in answer and "skipped" not in answer


def test_it_runs_by_its_name(written, capsys, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(written[2]))
    command = "run", "--optimizer", "my-lynx", "--momentum", "0.9", "--limit", "20", "--steps", "2"
    answer = optim_family(capsys, *command, "--out", tmp_path / "out", "--json")
    assert answer.code == 0
    provenance = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert provenance["optimizer"]["distribution"] == "my-lynx 0.1"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["My Lion"], "'My Lion' cannot be a name; use lower-case words joined by hyphens"),
        (["lynx", "--out", "."], "is not empty; choose another folder with --out"),
        (["gd"], "has an optimizer 'gd' already; choose another name"),
        (["lynx", "--out", "something"], "something cannot be written (File exists); choose another folder"),
        (["lynx", "--out", "something/lynx"], "cannot be written (Not a directory); choose another folder"),
        (["a" * 300], "cannot be written (File name too long); choose another folder with --out"),
    ],
)
def test_what_cannot_be_written_is_refused(words, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "something").touch()
    answer = optim_family(capsys, "optimizers", "new", *words)
    assert answer.code == 2 and says in answer.err
    assert [path.name for path in tmp_path.iterdir()] == ["something"]
