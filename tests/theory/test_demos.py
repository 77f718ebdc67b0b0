"""Every subject gives a figure, a table and numbers that JSON can hold."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from optim_family.theory import demos, flow_comparison
from optim_family.theory.demos import DEMOS, TITLES
from optim_family.theory.flow_comparison import SETTINGS
from optim_family.theory.run_drift import CUTS, Checkpoint, RunDrift
from tests.helpers.fake_runs import make_run


@pytest.fixture
def short_paths(monkeypatch):
    """Short paths, compared at few points: other tests check the numbers."""
    valley = replace(SETTINGS["valley"], eta_lambda=4e-3, end=0.6)
    monkeypatch.setitem(SETTINGS, "valley", valley)
    for name in SETTINGS.keys() - {"valley"}:
        monkeypatch.delitem(SETTINGS, name)
    monkeypatch.setattr(demos, "ETA_LAMBDAS", (8e-3, 4e-3))
    monkeypatch.setattr(demos, "END", 0.2)
    monkeypatch.setattr(flow_comparison.compare, "__defaults__", (6,))
    monkeypatch.setattr(flow_comparison.distances, "__defaults__", (6,))


def check_demo(demo):
    """The table has a cell for every header, the record survives JSON."""
    assert all(len(row) == len(demo.headers) for row in demo.rows) and demo.rows
    assert json.loads(json.dumps(demo.record, allow_nan=False))
    return demo


def test_every_toy_has_a_title_and_every_subject_a_name():
    assert TITLES.keys() == SETTINGS.keys()
    assert list(DEMOS) == ["sphere", *SETTINGS, "convergence"]


def test_a_toy_says_what_was_predicted_and_measured(short_paths):
    demo = check_demo(DEMOS["valley"]())
    assert demo.stem == "valley" and list(demo.headers) == ["quantity", "predicted", "measured"]
    assert [row[0].split()[0] for row in demo.rows] == ["S", "a²", "mean", "modulation"]
    assert demo.record["findings"][0]["predicted"] == demo.record["series"]["sharpness_flow"][-1]
    assert len({len(values) for values in demo.record["series"].values()}) == 1
    assert TITLES["valley"] in demo.figure.get_suptitle()


def test_convergence_gives_an_exponent_for_iterates_and_midpoints(short_paths):
    demo = check_demo(DEMOS["convergence"]())
    assert [row[1] for row in demo.rows] == ["0.5", "1"]
    assert all(finding["measured"] > 0.3 for finding in demo.record["findings"])


def test_the_sphere_has_a_film():
    demo = check_demo(DEMOS["sphere"]())
    assert demo.film.startswith(b"GIF89a")
    for finding in demo.record["findings"]:
        assert finding["measured"] == pytest.approx(finding["predicted"], rel=0.1)


def test_a_run_carries_its_evidence():
    steps = torch.arange(100, 1900, 10)
    sharpness = 300 * torch.exp(-1e-3 * steps.double())
    at = Checkpoint(1000, 110.0, 0.9, 0.5, (30.0, 20.0), tuple(20 * cut for cut in CUTS))
    run = make_run(path="runs/here")
    demo = check_demo(
        demos.network(run, RunDrift(1e-3, steps, sharpness, sharpness, torch.ones(2000), (at,)))
    )
    assert demo.record["run"]["path"] == Path("runs/here").name
    assert demo.record["run"]["spec"] == run.spec
    assert demo.record["checkpoints"][0]["q_by_removed"] == [30.0, 20.0]
    assert "slope measured" in demo.headers and len(demo.rows) == 1
