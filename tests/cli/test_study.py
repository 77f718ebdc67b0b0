import json
import re
import signal
import time

import pytest
from matplotlib.figure import Figure

from optim_family.cli import study as study_work
from optim_family.cli import study_progress
from optim_family.runs.run import read_run
from optim_family.study import execution, report
from optim_family.study.cost import Cost
from optim_family.study.launchers import Job, JobResult, Launcher
from optim_family.study.spec import StudySpec
from optim_family.training.loop import train
from optim_family.training.progress import ProgressListener
from optim_family.training.spec import RunSpec
from tests.helpers.cli_runner import optim_family, refusal

STUDY = """
question = "Does <b>it</b> fall?"
claims = ["edge", "decay-matters"]
data = { name = "digits", limit = 20 }
train = { model = "bn_mlp", batch_size = "full", steps = 6, device = "cpu" }
measure = { every = 2 }

[[grid]]
optimizer = "gd"
weight_decay = [0.01, 0]

[[grid]]
optimizer = "rmsprop"
"""


class Counter(ProgressListener):
    """Asks for a stop after so many records."""

    def __init__(self, stop):
        self.stop = stop

    def on_record(self, record):
        Here.records_left -= 1
        if not Here.records_left:
            self.stop.signal = signal.SIGINT


class Here(Launcher):
    """Trains in this process, one run after another."""

    records_left = -1
    begun: list[str] = []

    def __init__(self, workers):
        self.threads = 1

    def map(self, jobs, stop, on_poll):
        for job in jobs:
            Here.begun.append(job.spec.optimizer)
            status = train(job.spec, job.out, resume=True, listener=Counter(stop), stop=stop)
            on_poll()
            yield JobResult(job, 0 if status == "done" else 3, "")


@pytest.fixture
def mine(tmp_path, monkeypatch, capsys):
    """`optim-family study COMMAND mine.toml …`, with the runs in this process."""
    (tmp_path / "mine.toml").write_text(STUDY, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(study_work, "Local", Here)
    monkeypatch.setattr(Here, "records_left", -1)
    monkeypatch.setattr(Here, "begun", [])
    monkeypatch.setattr(report.run_figure, "figure", sketch)
    return lambda command, *args: optim_family(capsys, "study", command, "mine.toml", *args)


@pytest.fixture
def plain_report(monkeypatch):
    """No figures where nobody looks at them."""
    monkeypatch.setattr(report, "figures", lambda runs: ())


def sketch(runs, title=None, names=None, **options):
    """What is drawn much faster than a figure of runs, and shows their losses all the same."""
    figure = Figure(figsize=(2, 1))
    for run in runs:
        figure.add_subplot().plot([record["train_loss"] for record in run.records])
    return figure


def folders(tmp_path):
    return sorted(path for path in (tmp_path / "runs" / "mine").iterdir() if path.name != "report")


def test_a_study_ends_with_its_verdicts_and_its_report(mine, tmp_path):
    answer = mine("run")
    assert answer.code == 0, answer.err
    assert Here.begun == ["gd", "gd", "rmsprop"]
    assert len(folders(tmp_path)) == 3
    assert "report: runs/mine/report/report.html" in answer.out
    assert re.search(
        r"^(holds|does not hold|cannot tell) +Every full-batch optimizer", answer.out, re.MULTILINE
    )
    assert "3 of 3 finished" in answer.err
    page = (tmp_path / "runs/mine/report/report.html").read_text(encoding="utf-8")
    assert "Does &lt;b&gt;it&lt;/b&gt; fall?" in page


def test_what_is_done_is_not_done_again(mine, plain_report):
    mine("run", "--only", "optimizer=gd")
    assert Here.begun == ["gd", "gd"]
    answer = mine("run", "-q")
    assert (answer.code, answer.err) == (0, "") and Here.begun == ["gd", "gd", "rmsprop"]


def test_interrupted_in_the_middle_and_started_again_it_comes_to_the_same_bytes(mine, tmp_path, monkeypatch):
    monkeypatch.setattr(time, "perf_counter", lambda: 0.0)  # all else in a report is decided by the study
    assert mine("run", "--out", "whole").code == 0
    Here.records_left = 6  # in the second run, which has four
    answer = mine("run", "--out", "parts")
    assert answer.code == 130
    assert answer.err.splitlines()[-1] == "optim-family: stopped; repeat the command to go on"
    assert not (tmp_path / "parts" / "report").exists()
    Here.records_left, Here.begun[:] = -1, []
    assert mine("run", "--out", "parts").code == 0
    assert Here.begun == ["gd", "rmsprop"]
    one, other = (sorted((tmp_path / name / "report").iterdir()) for name in ("whole", "parts"))
    assert [path.name for path in one] == [path.name for path in other]
    for a, b in zip(one, other, strict=True):
        assert a.read_bytes() == b.read_bytes(), a.name


def test_a_run_that_failed_is_named_and_the_rest_is_reported(mine, plain_report, monkeypatch):
    class Broken(Launcher):
        def __init__(self, workers):
            self.threads = 1

        def map(self, jobs, stop, on_poll):
            for job in jobs:
                if job.spec.optimizer == "rmsprop":
                    yield JobResult(job, 6, "the plugin is broken")
                else:
                    yield from Here(1).map([job], stop, on_poll)

    monkeypatch.setattr(study_work, "Local", Broken)
    answer = mine("run", "--json")
    assert answer.code == 1 and "the plugin is broken" in answer.err
    printed = json.loads(answer.out)
    ((path, words),) = printed["failed"].items()
    assert "rmsprop" in path and words == "the plugin is broken"
    assert {finding["claim"] for finding in printed["findings"]} == {"edge", "decay-matters"}


def test_a_study_of_which_every_run_failed_says_why(mine, monkeypatch):
    class Broken(Launcher):
        def __init__(self, workers):
            self.threads = 1

        def map(self, jobs, stop, on_poll):
            yield from (JobResult(job, 5, "the data are damaged") for job in jobs)

    monkeypatch.setattr(study_work, "Local", Broken)
    answer = mine("run")
    assert answer.code == 1
    assert re.search(r"all 3 runs failed; runs/mine/gd-\S+: the data are damaged$", answer.err, re.MULTILINE)


def test_status_says_how_far_every_run_is(mine, plain_report):
    mine("run", "--only", "optimizer=rmsprop")
    answer = mine("status")
    lines = answer.out.splitlines()
    assert [line.split("  ")[0] for line in lines if "waiting" in line] == ["gd", "gd"]
    assert re.search(r"^rmsprop .* done +6/6 .* loss ", answer.out, re.MULTILINE)
    assert lines[-1].startswith("mine in runs/mine: 1 of 3 finished")
    runs = json.loads(mine("status", "--json").out)["runs"]
    assert sorted(run["status"] for run in runs) == ["done", "waiting", "waiting"]


def test_a_report_of_nothing_is_refused(mine):
    answer = mine("report")
    assert answer.code == 2 and "no run of mine with these settings has a record in runs/mine" in answer.err


def test_the_report_goes_where_it_is_asked_to(mine, plain_report, tmp_path):
    mine("run", "--only", "optimizer=rmsprop")
    answer = mine("report", "--to", "elsewhere")
    assert "report: elsewhere/report.html" in answer.out
    assert (tmp_path / "elsewhere" / "summary.csv").exists()


def test_settings_make_other_runs_beside_the_first(mine, plain_report, tmp_path):
    mine("run", "--only", "optimizer=rmsprop")
    mine("run", "--only", "optimizer=rmsprop", "--set", "train.steps=4")
    assert sorted(read_run(path).spec["steps"] for path in folders(tmp_path)) == [4, 6]


def test_a_dry_run_prints_time_and_memory_and_writes_nothing(mine, tmp_path, monkeypatch):
    asked = []

    def cost(spec):
        asked.append(spec)
        return Cost(trained=8192, seconds=120.0, bytes=2**30)

    monkeypatch.setattr(study_work, "cost", cost)
    answer = mine("run", "--dry-run", "--workers", "2")
    assert answer.code == 0 and not (tmp_path / "runs").exists()
    assert "3 of 3 runs are left in runs/mine: 2 at a time" in answer.out
    assert "about 3 min and 2.0 GiB of memory" in answer.out
    assert len(asked) == 2  # weight decay costs nothing
    assert len(json.loads(mine("run", "--dry-run", "--json").out)["plan"]) == 3


def test_a_plan_tries_nothing_and_a_dry_run_takes_no_name_for_its_value(mine, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(study_work, "cost", lambda spec: pytest.fail("a plan tries nothing"))
    plan = json.loads(mine("run", "--dry-run=plan", "--json").out)["plan"]
    assert [(run["state"], run["steps"], run["records"]) for run in plan] == [("waiting", 6, 4)] * 3
    assert not (tmp_path / "runs").exists()
    answer = mine("run", "--dry-run=plan", "--set", "data.ghost_batch=7")
    assert "a ghost batch of 7 does not divide the training set of 20" in refusal(answer)
    monkeypatch.setattr(study_work, "cost", lambda spec: Cost(trained=1, seconds=1.0, bytes=1))
    answer = optim_family(capsys, "study", "run", "--dry-run", "digits")
    assert answer.code == 0 and "trying 1 of " in answer.err and "trying 2 of " in answer.err


def test_a_dry_run_of_what_cannot_be_says_why(mine):
    answer = mine("run", "--dry-run", "--only", "optimizer=rmsprop", "--set", "data.ghost_batch=7")
    assert answer.code == 2
    assert "a ghost batch of 7 does not divide the training set of 20" in answer.out


def test_a_study_without_claims_says_so_and_prints_no_bare_header(mine, plain_report, tmp_path):
    source = tmp_path / "mine.toml"
    claims = 'claims = ["edge", "decay-matters"]'
    source.write_text(STUDY.replace(claims, "claims = []"), encoding="utf-8")
    shown, ran = mine("show").out, mine("run", "--only", "optimizer=gd", "--only", "weight_decay=0").out
    assert "\nThis study has no claims: " in shown and "\nclaim" not in shown
    assert ran.startswith("This study has no claims: ") and "\nverdict" not in ran
    page = (tmp_path / "runs/mine/report/report.html").read_text(encoding="utf-8")
    assert "<h2>Verdicts</h2>" not in page
    source.write_text(STUDY, encoding="utf-8")
    mine("report")
    assert "<h2>Verdicts</h2>" in (tmp_path / "runs/mine/report/report.html").read_text(encoding="utf-8")


def test_show_and_the_list(mine, capsys):
    text = mine("show").out
    assert text.startswith("Does <b>it</b> fall?\n") and text.count("runs/mine/") == 3
    assert len(json.loads(mine("show", "--json").out)["runs"]) == 3
    listed = json.loads(optim_family(capsys, "study", "--json").out)
    assert "digits" in [each["name"] for each in listed]


def test_mistakes_are_usage_errors(mine, capsys):
    answer = mine("run", "--set", "train.stepz=4")
    assert answer.code == 2 and "did you mean 'train.steps'?" in answer.err
    assert optim_family(capsys, "study", "run", "digitz").code == 2


def test_each_mistake_of_a_study_file_is_one_line(tmp_path, capsys):
    path = tmp_path / "wrong.toml"
    grid = '[[grid]]\noptimizer = "gd"\nmodel = "bn_mlp"\nseeds = [0, 0]\ndata = "mine.npz"\nlr = -1'
    path.write_text(f'question = "?"\n[train]\nepochs = 3\n{grid}')
    answer = optim_family(capsys, "study", "run", path)
    lines = answer.err.splitlines()
    assert answer.code == 2 and len(lines) == 4
    assert all(line.startswith(f"optim-family: {path}, ") for line in lines)
    words = ("no key 'epochs'", "seeds: 0 stands twice", "did you mean 'npz:mine.npz'?", "lr: it must be")
    assert all(word in line for word, line in zip(words, lines, strict=True))


@pytest.mark.parametrize(
    ("gigabytes", "gpu", "device", "workers"),
    [
        (99, False, "auto", 4),
        (2.5, False, "auto", 2),
        (0.3, False, "auto", 1),
        (99, True, "auto", 1),
        (99, True, "cpu", 4),
    ],
)
def test_as_many_workers_as_cores_and_memory_allow(monkeypatch, gigabytes, gpu, device, workers):
    import psutil
    import torch

    monkeypatch.setattr(study_work, "cores", lambda: 4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    memory = type("memory", (), {"available": int(gigabytes * 2**30)})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    run = RunSpec(optimizer="gd", hyper={}, device=device)
    assert study_work._workers(StudySpec("mine", "?", {}, (run,), "")) == workers


def progress(tmp_path, seeds=3, workers=2):
    specs = [RunSpec(optimizer="gd", hyper={"lr": 0.1}, steps=100, seed=seed) for seed in range(seeds)]
    return study_progress.Progress([Job(spec, tmp_path / str(spec.seed)) for spec in specs], workers)


def test_the_table_has_those_first_that_somebody_works_on(tmp_path, monkeypatch):
    state_table = progress(tmp_path, 5)
    states = ["done", "waiting", "running", "diverged", "failed"]
    monkeypatch.setattr(
        execution,
        "state",
        lambda job: execution.State(job, states[job.spec.seed], 50, {"elapsed": 5, "step": 50}),
    )
    assert [state.status for state in state_table.refresh_states()] == [
        "running",
        "failed",
        "waiting",
        "diverged",
        "done",
    ]
    # 0.1 s a step; 50 steps are left of each of three runs, for two workers.
    assert state_table.headline() == "2 of 5 finished, 1 running, 1 failed, 8 s left"
    assert state_table.row(state_table.refresh_states()[0])[:4] == [
        "gd  lr 0.1, seed 2",
        "running",
        "50/100",
        "5 s",
    ]


def test_a_failure_is_a_line_that_stays(tmp_path, capsys):
    state_table = progress(tmp_path)
    with study_progress.Display(state_table, quiet=True) as display:
        display.refresh()
        display.on_result(JobResult(state_table.jobs[0], 4, "in use"))
        display.on_result(JobResult(state_table.jobs[1], 6, ""))
        display.on_result(JobResult(state_table.jobs[2], -9, "killed by SIGKILL"))
    assert capsys.readouterr().err.splitlines() == [
        "gd  lr 0.1, seed 1: exit code 6",
        "gd  lr 0.1, seed 2: killed by SIGKILL",
    ]
    assert [state_table.status(state) for state in state_table.refresh_states()] == [
        "failed",
        "failed",
        "waiting",
    ]


def test_plain_lines_come_now_and_then(tmp_path, capsys, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(study_progress.time, "monotonic", lambda: clock[0])
    with study_progress.Display(progress(tmp_path), quiet=False) as lines:
        for now in (0.0, 1.0, 19.0, 20.0, 39.0):
            clock[0] = now
            lines.refresh()
    assert capsys.readouterr().err == "0 of 3 finished\n" * 3


def test_a_terminal_has_a_live_table(tmp_path, monkeypatch):
    import io

    from rich.console import Console

    screen = io.StringIO()
    monkeypatch.setattr(
        study_progress,
        "Console",
        lambda stderr: Console(file=screen, force_terminal=True, width=100, height=6),
    )
    monkeypatch.setattr(study_progress, "can_redraw", lambda: True)
    display = study_progress.Display(progress(tmp_path, 9), quiet=False)
    with display:
        display.refresh()
        display.log("[red] is only text")
    text = screen.getvalue()
    assert "[red] is only text" in text and "0 of 9 finished" in text
    assert "seed 1" in text and "seed 2" not in text  # what fits
