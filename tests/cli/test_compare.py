from pathlib import Path

import pytest

from optim_family.cli.commands.compare import common_folder


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
