from pathlib import Path

import pytest

from optim_family.cli.commands.compare import common_folder, run_folders


@pytest.mark.parametrize(
    ("runs", "folder"),
    [
        (["runs/gd", "runs/rmsprop"], "runs"),
        (["runs/gd/"], "runs"),
        (["gd"], "."),
        (["runs/a/gd", "runs/b/gd"], "runs"),
        (["."], ".."),
        (["/elsewhere/gd", "/elsewhere/more/gd"], "/elsewhere"),
        (["/one/gd", "/another/gd"], "."),
    ],
)
def test_a_comparison_lies_in_the_folder_of_its_runs(runs, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder_of_runs = common_folder([Path(run) for run in runs])
    assert folder_of_runs.resolve() == (tmp_path / folder).resolve()
    assert folder_of_runs.is_absolute() == (folder in ("..", "/elsewhere"))


def test_a_folder_of_runs_stands_for_its_runs_and_an_earlier_comparison_for_none(tmp_path):
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "spec.json").write_text("{}")
    (tmp_path / "comparison.json").write_text("[]")
    runs = [tmp_path / "a", tmp_path / "b"]
    assert [*run_folders([tmp_path])] == runs
    assert [*run_folders([tmp_path / "b", tmp_path / "comparison.json", tmp_path / "a"])] == runs[::-1]
