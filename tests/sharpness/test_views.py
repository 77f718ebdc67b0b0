"""A view is data: one entry more, and it is measured, recorded, drawn, tabled and reported."""

import re
import sys

import pytest

from optim_family.sharpness import views
from optim_family.sharpness.views import KINDS, VARIANTS, VIEWS, label, split_view_name, unscaled_view
from tests.helpers.environments import call, copy_sources

TANGENT = 'View("tangent", tangent=True, unit="loss / weight²", rank=5, style=5),'
RUN = (
    "--optimizer gd --model bn_mlp --limit 20 --steps 4 --every 2 --rtol 1e-2 --view tangent --view spherical"
)
STUDY = """
question = "Is the new view in the report?"
claims = ["edge"]
data = { name = "digits", limit = 20 }
train = { model = "bn_mlp", batch_size = "full", steps = 4, device = "cpu" }
measure = { every = 2, rtol = 1e-2, views = ["tangent", "spherical"] }
[[grid]]
optimizer = "gd"
"""
RECORD = """
import torch
from torch import nn
from optim_family import Recorder
model = nn.Sequential(nn.Linear(3, 2, bias=False))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
x, y = torch.randn(8, 3), torch.randn(8, 2)
Recorder(model, optimizer, nn.functional.mse_loss, [(x, y)], views=["tangent"], out="recorded").close()
"""


@pytest.fixture(scope="module")
def with_a_sixth_view(tmp_path_factory):
    """A folder with runs, made by sources to which one entry was added."""
    folder = tmp_path_factory.mktemp("sixth")
    sources = copy_sources(folder / "sources")
    file = sources / "optim_family" / "sharpness" / "views.py"
    text = file.read_text(encoding="utf-8")
    first = '        View("raw", '
    assert text.count(first) == 1
    file.write_text(text.replace(first, f"        {TANGENT}\n{first}"), encoding="utf-8")
    (folder / "mine.toml").write_text(STUDY, encoding="utf-8")
    python = sys.executable, "-m", "optim_family"

    def command(*words):
        return call(*python, *words, cwd=folder, PYTHONPATH=str(sources), OMP_NUM_THREADS="1")

    command("run", *RUN.split(), "--out", "run")
    command("study", "run", "mine.toml", "--workers", "1", "--out", "study", "-q")
    call(sys.executable, "-c", RECORD, cwd=folder, PYTHONPATH=str(sources))
    return folder, command


def test_run_and_recorder_record_it(with_a_sixth_view):
    folder, _ = with_a_sixth_view
    for run in ("run", "recorded"):
        assert '"tangent":{"value":' in (folder / run / "metrics.jsonl").read_text(encoding="utf-8")


def test_measure_measures_it(with_a_sixth_view):
    _, command = with_a_sixth_view
    printed = command("measure", *"--model bn_mlp --limit 20 --rtol 1e-2 --view tangent --json".split())
    assert '"tangent"' in printed


def test_it_is_in_the_table_and_in_the_figure(with_a_sixth_view):
    folder, command = with_a_sixth_view
    table = command("compare", "run", "recorded", "--out", "compared")
    assert re.search(r"^tangent", table, re.MULTILINE)
    assert (folder / "run" / "figure.svg").exists()
    drawn = """
from optim_family.figures import run_figure
from pathlib import Path
from optim_family.runs.run import read_run
figure = run_figure.figure([read_run(Path("run"))])
legends = [axes.get_legend() for axes in figure.axes if axes.get_legend()]
print([text.get_text() for legend in legends for text in legend.get_texts()])
"""
    sources = str(folder / "sources")
    assert "tangent" in call(sys.executable, "-c", drawn, cwd=folder, PYTHONPATH=sources).lower()


def test_it_is_in_the_report(with_a_sixth_view):
    folder, _ = with_a_sixth_view
    report = folder / "study" / "report"
    assert "tangent" in (report / "readings.csv").read_text(encoding="utf-8")
    assert "tangent" in (report / "report.html").read_text(encoding="utf-8")


def test_no_two_views_or_variants_look_alike():
    styles = [view.style + variant.style for view in VIEWS.values() for variant in VARIANTS.values()]
    assert len(set(styles)) == len(styles)


def test_kinds_share_out_the_views():
    assert sorted(name for kind in KINDS for name in kind) == sorted(VIEWS)
    assert sorted(views.PRECONDITIONED + views.UNPRECONDITIONED) == sorted(VIEWS)


@pytest.mark.parametrize("suffix", VARIANTS)
@pytest.mark.parametrize("name", VIEWS)
def test_a_recorded_name_is_taken_apart_and_said_in_words(name, suffix):
    assert split_view_name(name + suffix) == (name, suffix)
    words = f"generalized ({views.LOWER_BOUND})" if name == "generalized" else name.replace("-", " ")
    assert label(name + suffix) == words + VARIANTS[suffix].label
    scaled, unscaled = VIEWS[name], VIEWS.get(unscaled_view(name))
    assert unscaled_view(name + suffix).endswith(suffix) and scaled.kind == unscaled.kind
