"""`optim-family flow`: the files, the table, and what it refuses."""

import json
import re

import pytest

from optim_family.cli import flow as flow_work
from optim_family.theory.demos import Demo
from tests.helpers.cli_runner import optim_family, refusal


@pytest.fixture
def flow(capsys):
    return lambda *args: optim_family(capsys, "flow", *args)


@pytest.fixture
def answer(monkeypatch):
    """A subject that takes no time."""
    from matplotlib.figure import Figure

    record = {"findings": [{"quantity": "S", "predicted": 1.0, "measured": float("nan")}]}
    demo = Demo("sphere", Figure(), ["quantity", "predicted"], [["S", "1"]], record, film=b"GIF89a")
    monkeypatch.setitem(flow_work.DEMOS, "sphere", lambda: demo)


def test_it_writes_figure_film_and_numbers_and_says_where(flow, answer, tmp_path):
    out = tmp_path / "new"
    result = flow("sphere", "--out", out)
    assert result.code == 0
    assert {path.name for path in out.iterdir()} == {
        f"sphere.{kind}" for kind in ("svg", "png", "gif", "json")
    }
    assert re.search(r"^quantity +predicted$\n^S +1$", result.out, re.MULTILINE)
    assert f"figure: {out}/sphere.svg  {out}/sphere.png  {out}/sphere.gif" in result.out
    record = json.loads((out / "sphere.json").read_text())
    assert record["findings"] == [{"quantity": "S", "predicted": 1.0, "measured": None}]
    assert record["versions"].keys() >= {"torch", "scipy", "optim-family"} and record["threads"] >= 1


def test_as_json_it_is_the_same_record_and_the_paths(flow, answer, tmp_path):
    result = flow("sphere", "--out", tmp_path, "--json")
    data = json.loads(result.out)
    figure = data.pop("figure")
    assert data == json.loads((tmp_path / "sphere.json").read_text())
    assert figure == {kind: f"{tmp_path}/sphere.{kind}" for kind in ("svg", "png", "gif")}


def test_quiet_it_says_the_answer_only(flow, answer, tmp_path):
    assert flow("sphere", "--out", tmp_path, "-q").err == ""


def test_it_wants_one_thing_and_one_thing_only(flow, tmp_path):
    assert "name a demo, one of sphere, " in refusal(flow())
    assert "did you mean 'sphere'?" in refusal(flow("shpere"))
    assert "not both" in refusal(flow("sphere", "--run", tmp_path))
    assert "is not a run directory" in refusal(flow("--run", tmp_path))


def test_a_run_is_repeated_and_shown(flow, capsys, tmp_path):
    out = tmp_path / "run"
    hyper = ["--optimizer", "gd", "--lr", "0.5", "--weight-decay", "0.04"]
    length = ["--model", "bn_mlp", "--limit", "30", "--steps", "200", "--every", "10"]
    made = optim_family(capsys, "run", *hyper, *length, "--out", out)
    assert made.code == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    result = flow("--run", out, "--checkpoints", "2", "--removed", "3", "--out", tmp_path)
    assert result.code == 0, result.err
    assert re.search(r"^step \d+/200 +loss .* spherical ratio \d", result.err, re.MULTILINE)
    assert result.out.splitlines()[0].split()[:2] == ["step", "tau"]
    record = json.loads((tmp_path / "network.json").read_text())
    assert [len(at["q_by_removed"]) for at in record["checkpoints"]] == [3, 3]
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
