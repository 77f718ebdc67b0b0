import json
from pathlib import Path

import pytest

from optim_family.cli.commands.compare import common_folder, run_folders
from tests.helpers.cli_runner import optim_family, refusal
from tests.helpers.fake_runs import make_run, stored


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


@pytest.fixture
def runs(tmp_path):
    """Three seeds of gradient descent, and one run of rmsprop."""
    for name, run in [(f"gd-{seed}", make_run(records=9, seed=seed)) for seed in range(3)] + [
        ("rmsprop", make_run("rmsprop", records=9))
    ]:
        stored(tmp_path / name, run)
    return tmp_path


def test_a_figure_for_a_paper(runs, capsys):
    words = "--seeds median --panels ratio,spherical --labels GD,RMSprop --width 3.25 --format pdf,svg --html"
    answer = optim_family(capsys, "compare", runs, *words.split())
    assert answer.code == 0
    pdf, svg, page = (runs / f"comparison.{ending}" for ending in ("pdf", "svg", "html"))
    assert answer.out.endswith(f"figure: {pdf}  {svg}  {page}\n")
    assert b"/FontFile2" in pdf.read_bytes() and b"/Subtype /Type3" not in pdf.read_bytes()
    assert f'width="{3.25 * 72:g}pt"' in svg.read_text()
    assert "Interactive" not in (text := page.read_text()) and text.count('class="card"') == 4


def test_the_table_of_medians_has_a_column_a_setting_and_says_n_and_what_its_numbers_are(runs, capsys):
    options = ["--seeds", "median", "--panels", "loss", "--format", "svg"]
    answer = optim_family(capsys, "compare", runs, *options)
    header, *rows = answer.out.splitlines()
    assert header.count("gd  lr") == header.count("rmsprop  lr") == 1 and "seed 1" not in header
    assert rows[0].split() == ["runs", "3", "1"]
    assert "Each number is the median of the runs of a setting (lowest to highest)." in rows
    assert sum(row.startswith("spherical has no threshold for rmsprop: ") for row in rows) == 1
    value = json.loads(optim_family(capsys, "compare", runs, *options, "--json").out)
    assert [len(each["runs"]) for each in value["settings"]] == [3, 1] and len(value["runs"]) == 4
    losses = sorted(each["train_loss"] for each in value["runs"][:3])
    spread = value["settings"][0]["numbers"]["train_loss"]
    assert spread == {"median": losses[1], "lowest": losses[0], "highest": losses[2], "n": 3}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--labels", "a,b"], "--labels has 2 names for 4 curves"),
        (["--labels", "a", "--seeds", "median"], "--labels has 1 names for 2 curves"),
        (["--panels", "ratio,spherica"], "there is no panel 'spherica'; did you mean 'spherical'?"),
        (["--format", "svg,gif"], "there is no format 'gif'"),
        (["--style", "nowhere.mplstyle"], "there is no matplotlib style 'nowhere.mplstyle'"),
    ],
)
def test_an_impossible_figure_is_refused(runs, capsys, options, message):
    assert message in refusal(optim_family(capsys, "compare", runs, *options))


def test_a_style_of_the_user_goes_first(runs, capsys, tmp_path):
    style = tmp_path / "mine.mplstyle"
    style.write_text("figure.facecolor: 123456\n")
    assert (
        optim_family(capsys, "compare", runs, "--panels", "loss", "--style", style, "--format", "svg").code
        == 0
    )
    assert "#123456" in (runs / "comparison.svg").read_text()
