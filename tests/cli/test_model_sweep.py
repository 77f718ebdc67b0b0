"""`optim-family models check --sweep`: what it measures, keeps, prints, and how it ends."""

import json
import os
import signal
import subprocess
import sys

import pytest

from optim_family.cli import model_sweep
from optim_family.conformance.model_rows import FILE, read_rows
from optim_family.networks.families.torch import MODULES
from tests.helpers.cli_runner import optim_family, refusal
from tests.helpers.environments import ENVIRONMENT, wait_until

GOOD = {"parameters": 5, "value": 2.0, "by differences": 2.0, "check": "passed", "changed": []}
TORCH = [f"torch/{name}" for name in MODULES]
MODELS = TORCH[:3]


@pytest.fixture
def sweep(capsys, tmp_path, monkeypatch):
    """The command in a new folder; `measured` lists its measurements, whose rows are `rows` or good ones."""

    def measure_model(model, seconds, on_poll):
        on_poll()
        call.measured.append((model, seconds))
        return {"model": model, **call.rows.get(model, GOOD)}

    def call(*args):
        call.measured = []
        return optim_family(capsys, "models", "check", "--sweep", "--to", tmp_path, *args)

    call.rows = {}
    monkeypatch.setattr(model_sweep, "measure_model", measure_model)
    return call


def test_every_model_has_a_line_while_it_runs_and_a_row_at_the_end(sweep, tmp_path):
    sweep.rows["torch/gru"] = {"refused": "more than 300 s of a core", "limit": 300}
    answer = sweep(*MODELS)
    assert answer.code == 0 and sweep.measured == [(model, 300) for model in MODELS]
    lines = answer.err.splitlines()
    assert lines[:3] == [
        "1 of 3: torch/rnn: agrees, 0 s",
        "2 of 3: torch/gru: more than 300 s of a core, 0 s",
        "3 of 3: torch/lstm: agrees, 0 s",
    ]
    assert answer.err.endswith(f"\npage: {tmp_path / 'sweep.md'}\n")
    header, *rows = answer.out.splitlines()
    assert header.split()[0] == "model" and [row.split("  ")[0] for row in rows] == MODELS
    assert rows[1].endswith("not measured: more than 300 s of a core")
    assert list(read_rows(tmp_path)) == MODELS
    assert "| torch/rnn | 5 | 2 | 2 | agrees |" in (tmp_path / "sweep.md").read_text()


def test_json_has_the_rows_with_versions_and_verdicts(sweep, tmp_path):
    answer = sweep("torch/rnn", "--json")
    value = json.loads(answer.out)
    assert value["page"] == str(tmp_path / "sweep.md") and value["missing"] == []
    (row,) = value["models"]
    assert row["verdict"] == "agrees" and row["versions"].keys() == {"optim-family", "torch"}
    assert sweep("torch/gru", "-q").err == ""


def test_finished_models_are_not_measured_again(sweep):
    sweep("torch/gru")
    answer = sweep(*MODELS, "--seconds", "7")
    assert sweep.measured == [("torch/rnn", 7), ("torch/lstm", 7)]
    assert answer.err.startswith("1 of 3 models are measured already\n")
    assert sweep("torch/*", "-q").code == 0 and len(sweep.measured) == len(TORCH) - 3


def test_a_higher_limit_and_another_version_measure_again(sweep, monkeypatch):
    sweep.rows["torch/rnn"] = {"refused": "more than 5 s of a core", "limit": 5}
    sweep("torch/rnn", "torch/gru", "--seconds", "5")
    sweep("torch/rnn", "torch/gru", "--seconds", "5")
    assert sweep.measured == []
    sweep("torch/rnn", "torch/gru", "--seconds", "6")
    assert sweep.measured == [("torch/rnn", 6)]
    monkeypatch.setattr(model_sweep.resources, "version", lambda name: "9.9")
    sweep("torch/gru")
    assert sweep.measured == [("torch/gru", 300)]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({**GOOD, "by differences": 2.1}, "λ₁ of torch/gru differs from differences of gradients: see "),
        ({**GOOD, "changed": ["1.running_mean"]}, "measuring torch/gru changes it: see "),
    ],
)
def test_a_defect_ends_with_1_now_and_when_it_is_repeated(sweep, row, says):
    sweep.rows["torch/gru"] = row
    for _ in range(2):
        answer = sweep(*MODELS)
        assert answer.code == 1 and f"optim-family: {says}" in answer.err.splitlines()[-1]
        assert len(answer.out.splitlines()) == 4
    assert sweep("torch/rnn").code == 0  # not selected


def test_numbers_that_cannot_be_compared_and_refusals_end_with_0(sweep):
    sweep.rows["torch/rnn"] = {**GOOD, "by differences": 3.0, "spread": 0.4}
    sweep.rows["torch/gru"] = {"refused": "its process was killed by SIGSEGV"}
    answer = sweep(*MODELS)
    assert answer.code == 0 and "cannot tell 1, not measured 1." in answer.err


def test_a_package_that_is_not_installed_is_one_line(sweep, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "transformers", None)
    answer = sweep("transformers/bert", "transformers/gpt2", "torch/rnn")
    line = "transformers is not installed; its models need: pip install transformers"
    assert answer.code == 0 and answer.err.splitlines().count(line) == 1
    assert "| transformers: all models | not installed |" in (tmp_path / "sweep.md").read_text()
    assert sweep.measured == [("torch/rnn", 300)]
    assert refusal(sweep("transformers/bert")) == f"optim-family: {line}\n"


def test_a_dry_run_lists_the_models_and_writes_nothing(sweep, tmp_path):
    sweep("torch/gru")
    before = sorted(path.stat().st_mtime_ns for path in tmp_path.iterdir())
    answer = sweep("torch/gru", "torch/rnn", "--dry-run")
    assert [line.split() for line in answer.out.splitlines()] == [
        *(["model", "state"], ["torch/gru", "agrees"], ["torch/rnn", "waiting"]),
    ]
    assert json.loads(sweep("torch/rnn", "--dry-run", "--json").out)["models"] == [
        {"model": "torch/rnn", "state": "waiting"}
    ]
    assert sweep.measured == []
    assert sorted(path.stat().st_mtime_ns for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--sweep", "torch/rn"], "there is no model 'torch/rn'; the nearest are torch/rnn, "),
        (["--sweep", "torch/zz*"], "no model of the sweep matches 'torch/zz*'; "),
        (["--sweep", "--norm", "none"], "models check with --sweep takes no --norm; leave it out"),
        (["--sweep", "--size", "8"], "models check with --sweep takes no --size; leave it out"),
        (["bn_mlp", "--to", "x"], "models check without --sweep takes no --to; leave it out"),
        (["bn_mlp", "--dry-run"], "models check without --sweep takes no --dry-run; leave it out"),
        ([], "models check takes one NAME; with --sweep any number of them, or none for all"),
        (["bn_mlp", "bn_cnn"], "models check takes one NAME; with --sweep any number of them"),
        (["--sweep", "--seconds", "0"], "Invalid value for '--seconds': 0 is not in the range x>=1."),
        (["--sweep", "--to", __file__], "Invalid value for '--to': "),
    ],
)
def test_a_mistake_gets_one_line(capsys, tmp_path, monkeypatch, args, says):
    monkeypatch.chdir(tmp_path)
    answer = optim_family(capsys, "models", "check", "-q", *args)
    assert refusal(answer).startswith(f"optim-family: {says}")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_and_another_command_in_the_folder_are_refused(sweep, tmp_path):
    (tmp_path / FILE).write_text("{}\n")
    assert "is damaged in line 1" in refusal(sweep("torch/rnn", "-q"), 5)
    (tmp_path / FILE).unlink()
    with model_sweep.RowFile(tmp_path):
        assert "is in use by another process" in refusal(sweep("torch/rnn", "-q"), 4)


def test_ctrl_c_keeps_what_is_finished_and_the_command_resumes(sweep, tmp_path):
    command = [sys.executable, "-m", "optim_family", "models", "check", "--sweep", *MODELS, "--to", tmp_path]
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    assert wait_until(lambda: len(read_rows(tmp_path)) == 1, process)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == ("optim-family: stopped; 2 models are left: repeat the command to go on")
    assert list(read_rows(tmp_path)) == MODELS[:1]
    assert "2 more are still to be measured" in (tmp_path / "sweep.md").read_text()
    assert read_rows(tmp_path)["torch/rnn"]["value"] == pytest.approx(1.4343537462380183, rel=1e-6)
    assert sweep(*MODELS).code == 0 and sweep.measured == [(model, 300) for model in MODELS[1:]]
