from pathlib import Path

import pytest

from optim_family.cli.commands.compare import beside


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
def test_a_comparison_lies_beside_what_it_compares(runs, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = beside([Path(run) for run in runs])
    assert found.resolve() == (tmp_path / folder).resolve()
    assert found.is_absolute() == (folder in ("..", "/elsewhere"))
