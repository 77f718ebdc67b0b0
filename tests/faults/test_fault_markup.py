"""Markup in names and in the texts of plugins: text in every report, never a tag, a script or a formula."""

import pytest
from matplotlib.figure import Figure

from optim_family.analysis.claims import CLAIMS
from optim_family.analysis.study_results import evaluate_study
from optim_family.cli import run_progress
from optim_family.study import report
from optim_family.study.spec import StudySpec
from optim_family.training.spec import RunSpec
from tests.helpers.fake_runs import make_run

TEXTS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</title><script>alert(1)</script>",
    "</style><svg onload=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "<!-- --><b>x</b>",
    "]]><script>alert(1)</script>",
    "javascript:alert(1)//<a href=x>",
    "$\\frac{$ <i>q</i>",
    "'--><iframe srcdoc=x>",
)


ALIVE = ("<script>alert", "<img src=x", "<svg onload", "<iframe srcdoc", "<b>x</b>", "<i>q</i>", "<a href=x")


@pytest.mark.parametrize("text", TEXTS)
def test_markup_is_shown_as_it_is_written(tmp_path, monkeypatch, held, text):
    runs = [
        make_run("gd", model=text, data=text, path=f"runs/{seed}", seed=seed, records=4) for seed in (0, 1)
    ]
    for run in runs:
        run.spec["hyper"][text] = text
        run.provenance["optimizer"] = {"target": text, "distribution": text}
    if text != TEXTS[0]:  # one page has its real figures
        monkeypatch.setattr(report.run_figure, "figure", named_figure)
    specs = tuple(RunSpec.model_validate(run.spec) for run in runs)
    study = StudySpec(text, text, {"edge": CLAIMS["edge"]}, specs, f"# {text}")
    page = report.write(study, evaluate_study(study.claims, runs), tmp_path)
    for path in (page, *page.parent.glob("*.svg")):
        written = path.read_text(encoding="utf-8")
        tags = [piece for piece in ALIVE if piece in written]
        assert not tags, (path.name, tags)
    held("markup in names and plugin texts", of=10)


def named_figure(runs, title=None, names=None, ends=None):
    figure = Figure(figsize=(2, 1))
    figure.add_subplot().set_title((title or runs[0].spec["model"]).replace("$", r"\$"))
    return figure


def test_the_markup_of_the_terminal_is_text_too(capsys):
    bar = run_progress.Bar("[red]title[/red]")
    bar.on_start(2, 0)
    bar.on_message("[bold]note[/bold]")
    bar.on_end()
    assert "[bold]note[/bold]" in "".join(capsys.readouterr())
