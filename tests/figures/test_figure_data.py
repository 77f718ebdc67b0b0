"""The data of the interactive figure: what records hold, thinned without losing a spike."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from optim_family.analysis.study_table import settings
from optim_family.figures import figure_data as module
from optim_family.figures.figure_data import figure_data
from optim_family.figures.html import as_json
from optim_family.runs.columns import Columns
from optim_family.runs.labels import arms
from tests.helpers.fake_runs import make_run


def data_of(*runs):
    return figure_data(runs, arms([run.spec for run in runs]), settings(runs))


def test_every_number_of_a_reading_is_there():
    run = make_run(records=9)
    columns = data_of(run)["runs"][0]["columns"]
    for i, record in enumerate(run.records):
        reading = record["views"]["spherical"]
        for name in ("value", "threshold", "ratio"):
            assert columns[f"spherical.{name}"][i] == pytest.approx(reading[name], rel=1e-5)
        for name in ("error", "bound"):
            assert columns[f"spherical.{name}"][i] == pytest.approx(reading[name], rel=1e-2)
        assert columns["spherical.products"][i] == reading["products"]
        assert columns["spherical.converged"][i] == reading["converged"]
        assert columns["train_loss"][i] == pytest.approx(record["train_loss"], rel=1e-5)


def test_a_missing_number_is_null_and_a_column_without_one_is_left_out():
    run = make_run(records=4)
    run.records[2]["train_loss"] = None
    run.records[1]["views"]["spherical"] = None
    for record in run.records:
        record["test_accuracy"] = None
    columns = data_of(run)["runs"][0]["columns"]
    assert columns["train_loss"][2] is None and columns["spherical.value"][1] is None
    assert "test_accuracy" not in columns
    json.loads(as_json(data_of(run)))  # no NaN


def test_seeds_are_one_group_in_their_order():
    runs = [make_run(seed=seed, records=4, path=f"runs/{seed}") for seed in (2, 0, 1)]
    data = data_of(*runs, make_run("rmsprop", records=4))
    assert [group["runs"] for group in data["groups"]] == [[1, 2, 0], [3]]
    assert [run["name"] for run in data["runs"]] == ["seed 2", "seed 0", "seed 1", "seed 0"]
    twins = [make_run(records=4, path=f"runs/{name}") for name in "ab"]
    assert [run["name"] for run in data_of(*twins)["runs"]] == ["a", "b"]


def test_arms_and_settings_differ_in_their_style():
    rates = [0.1 * (1 + i) for i in range(10)]
    runs = [make_run(hyper={"lr": lr}, records=2, norm=norm) for norm in ("affine", "none") for lr in rates]
    styles = [(group["color"], tuple(group["dash"])) for group in data_of(*runs)["groups"]]
    assert len(styles) == 20 == len(set(styles))


def long_run(seed, spike):
    """Ten thousand records, and one that stands out."""
    run = make_run(seed=seed, records=1, path=f"runs/{seed}")
    step = np.arange(10_000.0)
    columns = {
        "step": step,
        "tau": 1e-3 * step,
        "train_loss": np.exp(-1e-3 * step),
        "train_accuracy": np.where(step < 4321, 0.5, 1.0),
        "views.spherical": np.full(10_000, math.nan),
        "views.spherical.value": 2 + np.sin(step / 500),
        "views.spherical.ratio": 1 + 0.1 * np.sin(step / 500),
        "views.spherical.threshold": np.full(10_000, 2.0),
    }
    columns["train_loss"][spike] = 50.0
    columns["views.spherical.value"][spike + 7] = 900.0
    return replace(run, columns=Columns.from_arrays(columns), read=list)


def test_thinning_keeps_spikes_marks_and_ends(monkeypatch):
    monkeypatch.setattr(module, "RECORDS", 1000)
    runs = [long_run(0, 5555), long_run(1, 7777)]
    data = data_of(*runs)
    for run, spike in zip(data["runs"], (5555, 7777), strict=True):
        columns = run["columns"]
        steps = columns["step"]
        assert 100 < len(steps) <= 500 and {0, 9999, 5555, 7777, 5562, 7784, 4321} <= set(steps)
        assert columns["train_loss"][steps.index(spike)] == 50
        assert columns["spherical.value"][steps.index(spike + 7)] == 900
        assert steps[run["fit"]] == 4321
    assert data["runs"][0]["columns"]["step"] == data["runs"][1]["columns"]["step"]  # a band needs both
    assert data["thinned"] == 20_000 - 2 * len(data["runs"][0]["columns"]["step"])


def test_predictions_stand_at_their_records():
    run = make_run(records=60)
    columns = data_of(run)["runs"][0]["columns"]
    first = next(i for i, value in enumerate(columns["drift"]) if value is not None)
    reading = run.records[first]["views"]["spherical"]
    assert columns["drift"][first] == pytest.approx(reading["threshold"], rel=1e-5)
    assert columns["drift"][first - 1] is None and columns["drift"][-1] < columns["drift"][first]
