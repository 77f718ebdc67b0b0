"""Every subject gives a figure, a table and numbers that JSON can hold."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from optim_family.theory import demos, flow_comparison
from optim_family.theory.demos import SUBJECTS, TITLES
from optim_family.theory.flow_comparison import SETTINGS
from optim_family.theory.run_drift import CUTS, Checkpoint, Drift
from tests.helpers.fake_runs import make_run


@pytest.fixture
def hasty(monkeypatch):
    """Short paths, looked at in few places: whether the numbers are right is the business of others."""
    valley = replace(SETTINGS["valley"], shrink=4e-3, end=0.6)
    monkeypatch.setitem(SETTINGS, "valley", valley)
    for name in SETTINGS.keys() - {"valley"}:
        monkeypatch.delitem(SETTINGS, name)
    monkeypatch.setattr(demos, "SHRINKS", (8e-3, 4e-3))
    monkeypatch.setattr(demos, "END", 0.2)
    monkeypatch.setattr(flow_comparison.compare, "__defaults__", (6,))
    monkeypatch.setattr(flow_comparison.distances, "__defaults__", (6,))


def whole(shown):
    """The table has a cell for every header, the record survives JSON."""
    assert all(len(row) == len(shown.headers) for row in shown.rows) and shown.rows
    assert json.loads(json.dumps(shown.record, allow_nan=False))
    return shown


def test_every_toy_has_a_title_and_every_subject_a_name():
    assert TITLES.keys() == SETTINGS.keys()
    assert list(SUBJECTS) == ["sphere", *SETTINGS, "convergence"]


def test_a_toy_says_what_was_predicted_and_measured(hasty):
    shown = whole(SUBJECTS["valley"]())
    assert shown.stem == "valley" and list(shown.headers) == ["quantity", "predicted", "measured"]
    assert [row[0].split()[0] for row in shown.rows] == ["S", "a²", "mean", "modulation"]
    assert shown.record["findings"][0]["predicted"] == shown.record["series"]["sharpness_flow"][-1]
    assert len({len(values) for values in shown.record["series"].values()}) == 1
    assert TITLES["valley"] in shown.figure.get_suptitle()


def test_convergence_gives_an_exponent_for_iterates_and_midpoints(hasty):
    shown = whole(SUBJECTS["convergence"]())
    assert [row[1] for row in shown.rows] == ["0.5", "1"]
    assert all(finding["measured"] > 0.3 for finding in shown.record["findings"])


def test_the_sphere_has_a_film():
    shown = whole(SUBJECTS["sphere"]())
    assert shown.film.startswith(b"GIF89a")
    for finding in shown.record["findings"]:
        assert finding["measured"] == pytest.approx(finding["predicted"], rel=0.1)


def test_a_run_carries_its_evidence():
    steps = torch.arange(100, 1900, 10)
    sharpness = 300 * torch.exp(-1e-3 * steps.double())
    at = Checkpoint(1000, 110.0, 0.9, 0.5, (30.0, 20.0), tuple(20 * cut for cut in CUTS))
    run = make_run(path="runs/here")
    shown = whole(demos.network(run, Drift(1e-3, steps, sharpness, sharpness, torch.ones(2000), (at,))))
    assert shown.record["run"]["path"] == Path("runs/here").name
    assert shown.record["run"]["spec"] == run.spec
    assert shown.record["checkpoints"][0]["q_by_removed"] == [30.0, 20.0]
    assert "slope measured" in shown.headers and len(shown.rows) == 1
