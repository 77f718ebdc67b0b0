"""Runs that the previous version wrote: the present version reads, compares, resumes and reports them.

`tests/stored_runs/uninterrupted` holds the records of `interrupted` from a process that nobody stopped.
"""

import hashlib
import json
import shutil

import pytest
import torch
from torch.nn import functional as F

from optim_family.analysis.study_results import evaluate_study
from optim_family.runs.readings_table import load_runs
from optim_family.runs.run import read_run
from optim_family.study import execution, report
from optim_family.study.spec import load
from optim_family.training.loop import train
from optim_family.training.spec import RunSpec
from tests.helpers import ROOT
from tests.helpers.cli_runner import optim_family
from tests.helpers.training_runs import untimed

STORED = ROOT / "tests" / "stored_runs"
STATUS = {"finished": "done", "interrupted": "stopped", "diverged": "diverged"}
# `arithmetic_fingerprint` of the processor and the libraries that wrote the runs.
FINGERPRINT = "f508bdad1a326b22"


def arithmetic_fingerprint():
    """Hash of a gradient in plain torch: equal where this machine rounds as the one that wrote the runs."""
    generator = torch.Generator().manual_seed(0)
    x, w = (torch.randn(*shape, generator=generator) for shape in ((20, 64), (16, 64)))
    loss = F.relu(F.batch_norm(F.linear(x, w.requires_grad_()), None, None, training=True)).square().mean()
    (gradient,) = torch.autograd.grad(loss, w)
    return hashlib.sha256(gradient.numpy().tobytes()).hexdigest()[:16]


def records(name):
    return [json.loads(line) for line in (STORED / name / "metrics.jsonl").read_text().splitlines()]


def without_checksum(record):
    return untimed({name: value for name, value in record.items() if name != "check"})


@pytest.fixture
def study(tmp_path, monkeypatch):
    """The jobs of `study.toml` by the names of the stored runs, in a copy that may be changed."""
    monkeypatch.chdir(ROOT)  # the model card in the specifications is a relative path
    jobs = execution.jobs(load("tests/stored_runs/study.toml"), tmp_path)
    job_of = dict(zip(STATUS, jobs, strict=True))
    for name, job in job_of.items():
        shutil.copytree(STORED / name, job.out)
    return job_of


def test_specification_records_and_status_are_read(study):
    for name, job in study.items():
        run = read_run(STORED / name)
        assert RunSpec.model_validate(run.spec) == job.spec
        assert run.status["status"] == STATUS[name] == execution.state(job).status
        assert [without_checksum(record) for record in run.records] == list(
            map(without_checksum, records(name))
        )


def test_a_table_of_all_readings_is_made():
    table = load_runs(STORED / "finished")
    assert set(table["view"]) >= {"spherical", "spherical-midpoint"}


def test_they_are_compared(study, capsys, tmp_path):
    paths = [job.out for job in study.values()]
    answer = optim_family(capsys, "compare", *paths, "--out", tmp_path / "figure.svg", "--json")
    assert answer.code == 0, answer.err


@pytest.mark.parametrize("name", ["finished", "diverged"])
def test_a_run_that_has_ended_is_not_trained_again(study, name):
    before = (study[name].out / "metrics.jsonl").read_bytes()
    assert execution.finished(study[name])
    if name == "finished":
        train(study[name].spec, study[name].out, resume=True)
    assert (study[name].out / "metrics.jsonl").read_bytes() == before


def test_an_interrupted_run_is_resumed_and_ends_with_the_numbers_of_an_uninterrupted_one(study):
    job, expected = study["interrupted"], list(map(without_checksum, records("uninterrupted")))
    assert train(job.spec, job.out, resume=True) == "done"
    # A field that the previous version did not write, such as the test loss, has nothing to be equal to.
    resumed = [
        {name: record[name] for name in wanted}
        for record, wanted in zip(read_run(job.out).records, expected, strict=True)
    ]
    resumed = list(map(untimed, resumed))
    stored = len(records("interrupted"))
    assert resumed[:stored] == expected[:stored]
    if arithmetic_fingerprint() == FINGERPRINT:
        # Training is the same to the bit; a sharpness agrees within its error, for the search has changed.
        views = [
            (record.pop("views"), wanted.pop("views"))
            for record, wanted in zip(resumed, expected, strict=True)
        ]
        assert resumed == expected
        for got, wanted in views:
            assert got.keys() == wanted.keys()
            for name, reading in wanted.items():
                error = max(got[name]["error"] + reading["error"], 1e-3 * reading["value"])
                assert got[name]["value"] == pytest.approx(reading["value"], abs=error)
    else:  # another processor or library rounds differently
        for record, wanted in zip(resumed, expected, strict=True):
            assert record["step"] == wanted["step"]
            assert record["train_loss"] == pytest.approx(wanted["train_loss"], rel=1e-2)


def test_a_study_reports_them(study, tmp_path):
    spec = load("tests/stored_runs/study.toml")
    runs = execution.runs(study.values())
    assert [run.status["status"] for run in runs] == list(STATUS.values())
    page = report.write(spec, evaluate_study(spec.claims, runs), tmp_path / "report")
    assert all(run.path.name in page.read_text() for run in runs)
