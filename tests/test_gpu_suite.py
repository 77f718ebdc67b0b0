"""`make gpu` on the CPU with tiny sizes, so that its first run on a card is not its first run."""

import json
import tarfile

import pytest

from benchmarks.gpu import __main__ as suite
from benchmarks.gpu import parts, table

TWO = ["training-bn_mlp-float32-contiguous", "study"]


@pytest.fixture
def two_parts(monkeypatch):
    monkeypatch.setattr(parts, "names", lambda small: TWO)


def test_parts_run_in_processes_and_are_not_repeated(two_parts, tmp_path, capsys):
    command = [str(tmp_path / "gpu"), "--device", "cpu", "--small"]
    assert suite.main(command) == 0
    assert capsys.readouterr().out.splitlines()[:2] == [f"{name}: done" for name in TWO]
    assert suite.main(command) == 0
    assert f"{TWO[0]}: done before" in capsys.readouterr().out
    with tarfile.open(tmp_path / "gpu.tar.gz") as archive:
        names = archive.getnames()
    assert "gpu/table.md" in names and "gpu/parts/study.json" in names and "gpu/study/metrics.jsonl" in names
    assert not [name for name in names if name.endswith(".npz")]


def test_a_part_that_is_too_slow_or_fails_is_named_and_the_others_go_on(two_parts, tmp_path, capsys):
    assert suite.main([str(tmp_path / "gpu"), "--device", "cpu", "--small", "--seconds", "0.1"]) == 1
    assert "study: too slow" in capsys.readouterr().out
    assert "Unfinished: " in (tmp_path / "gpu" / "table.md").read_text()
    state = suite.run_part(TWO[0], tmp_path / "gpu", "nowhere", True, 300)
    assert state == "failed" and "nowhere" in (tmp_path / "gpu" / "logs" / f"{TWO[0]}.txt").read_text()


def test_every_other_part_gives_numbers_and_the_table_has_them(tmp_path):
    (tmp_path / "parts").mkdir()
    for name in ("environment", "cost-bn_mlp-20", "peers-bn_mlp", TWO[0], "training-bn_mlp-float32-graphs"):
        assert parts.main([name, str(tmp_path), "cpu", "--small"]) == 0
    page = table.markdown(tmp_path / "parts", {})
    cost = json.loads((tmp_path / "parts" / "cost-bn_mlp-20.json").read_text())
    assert f"| bn_mlp, {cost['weights']:,} | 20 | {cost['seconds']['gradient']:.3g} |" in page
    assert "| bn_mlp, 20 | optim-family |" in page and "data: npz" in page
    assert page.count("| bn_mlp | float32 | contiguous | without |") == 2  # a CPU has no CUDA graphs


def test_the_study_stops_in_time_and_goes_on(tmp_path, monkeypatch):
    (tmp_path / "parts").mkdir()
    monkeypatch.setattr(parts, "MARGIN", 1e9)  # one second is left
    monkeypatch.setattr(parts.Deadline, "__init__", stop_after_the_first_checks)
    assert parts.main(["study", str(tmp_path), "cpu", "--small"]) == parts.NOT_FINISHED
    monkeypatch.undo()
    assert parts.main(["study", str(tmp_path), "cpu", "--small"]) == 0
    assert json.loads((tmp_path / "parts" / "study.json").read_text())["records"] == 3


def stop_after_the_first_checks(self, seconds):
    super(parts.Deadline, self).__init__()
    self.end = 0.0


def test_all_parts_of_a_card_are_named():
    names = parts.names(small=False)
    assert names[:2] == ["environment", "tests"] and names[-1] == "study"
    for model in ("resnet18", "vgg11_bn", "resnet20"):
        assert {f"cost-{model}-5000", f"cost-{model}-50000", f"peers-{model}"} < {*names}
        assert {f"training-{model}-tf32-channels-last", f"training-{model}-float32-graphs"} < {*names}
