import math
from statistics import median

import pytest

from optim_family.analysis.seed_medians import seed_medians
from optim_family.runs.run import column, views
from tests.helpers.fake_runs import holding, make_run

RUNS = [make_run(seed=seed, records=9) for seed in range(3)]


def test_median_and_range_at_every_step():
    (group,) = seed_medians(RUNS)
    low, high = group.ends
    assert group.runs == RUNS and views(group.median) == views(RUNS[0])
    for field in ("train_loss", "spherical.value", "spherical.ratio"):
        lists = [column(run, field) for run in RUNS]
        assert column(group.median, field) == [median(values) for values in zip(*lists, strict=True)]
        assert column(low, field) == [min(values) for values in zip(*lists, strict=True)]
        assert column(high, field) == [max(values) for values in zip(*lists, strict=True)]


def test_a_seed_that_ended_early_counts_where_it_is():
    short = holding(RUNS[2], RUNS[2].records[:4])
    (group,) = seed_medians([*RUNS[:2], short])
    losses = [column(run, "train_loss") for run in RUNS]
    assert column(group.median, "train_loss")[3] == median(values[3] for values in losses)
    assert column(group.median, "train_loss")[8] == pytest.approx(sum(values[8] for values in losses[:2]) / 2)


def test_a_reading_that_is_missing_everywhere_is_missing():
    runs = [make_run(seed=seed, records=3) for seed in range(2)]
    for run in runs:
        run.records[1]["views"]["spherical"] = None
    (group,) = seed_medians(runs)
    assert [math.isnan(value) for value in column(group.median, "spherical.value")] == [False, True, False]


def test_a_median_converged_if_all_seeds_did():
    runs = [make_run(seed=seed, records=2) for seed in range(3)]
    for run, converged in zip(runs, (True, False, True), strict=True):
        for record in run.records:
            record["views"]["spherical"]["converged"] = converged
    (group,) = seed_medians(runs)
    assert column(group.median, "spherical.converged") == [0.0, 0.0]


def test_settings_and_arms_stay_apart():
    runs = [*RUNS, make_run("rmsprop", records=9), make_run(records=9, norm="none")]
    groups = seed_medians(runs)
    assert [len(group.runs) for group in groups] == [3, 1, 1]
    assert [group.ends is None for group in groups] == [False, True, True]
