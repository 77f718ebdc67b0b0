import math

import pytest

from optim_family.analysis import study_table
from optim_family.runs import readings_table
from tests.helpers.fake_runs import make_run


def falling(slope, *, shrink=0.01, fitted_from=4, records=20, **options):
    """S = 100 exp(slope · τ) from the first record on, and 100 % training accuracy from one on."""
    run = make_run(hyper={"lr": 0.1, "weight_decay": shrink / 0.1}, records=records, **options)
    for i, record in enumerate(run.records):
        record["tau"] = shrink * record["step"]
        record["train_accuracy"] = float(i >= fitted_from)
        record["test_accuracy"] = 0.5 + 0.01 * i
        value = 100 * math.exp(slope * record["step"] * 0.01)
        record["views"]["spherical"] |= {"value": value, "threshold": 80.0, "ratio": value / 80}
    return run


def row(run):
    return study_table.run_rows([run]).iloc[0]


@pytest.mark.parametrize("slope", [-2.0, -0.3, 0.0, 1.0])
def test_the_slope_and_the_fitted_fall_of_an_exponential(slope):
    cells = row(falling(slope))
    then, end = 0.01 * 40, 0.01 * 190
    assert cells["sharpness_slope"] == pytest.approx(slope, abs=1e-12)
    assert cells["sharpness_fitted_reduction"] == pytest.approx(math.exp(-slope * (end - then)))
    assert cells["sharpness_reduction"] == pytest.approx(cells["sharpness_fitted_reduction"])
    assert cells["sharpness_at_fit"] == pytest.approx(100 * math.exp(slope * then))
    assert cells["sharpness_peak"] == pytest.approx(100 * math.exp(max(0.0, slope * end)))
    assert cells["sharpness_end"] == pytest.approx(100 * math.exp(slope * end))


def test_without_weight_decay_there_is_a_fall_but_no_slope():
    cells = row(falling(-1.0, shrink=0.0))
    assert math.isnan(cells["sharpness_slope"])
    assert cells["sharpness_fitted_reduction"] == pytest.approx(math.exp(1.5))


def test_what_happened_after_the_fit():
    cells = row(falling(-0.3))
    assert (cells["fit_step"], cells["fit_tau"]) == (40, pytest.approx(0.4))
    assert cells["test_accuracy_gain"] == pytest.approx(0.15)
    assert cells["ratio_readings"] == 16


def test_the_gain_ends_with_the_last_record_that_fits():
    run = falling(-0.3)
    run.records[-1] |= {"train_accuracy": 0.5, "test_accuracy": 0.2}
    assert row(run)["test_accuracy_gain"] == pytest.approx(0.14)


def test_one_record_that_fits_has_no_gain():
    assert math.isnan(row(falling(-0.3, fitted_from=19))["test_accuracy_gain"])


def test_a_run_that_never_fits_has_no_then():
    cells = row(falling(-0.3, fitted_from=99))
    for name in (
        "fit_step",
        "test_accuracy_at_fit",
        "test_accuracy_gain",
        "sharpness_at_fit",
        "sharpness_slope",
    ):
        assert math.isnan(cells[name])
    assert cells["ratio"] > 0


@pytest.mark.parametrize(
    ("ratios", "step"),
    [
        ([15.0, 3.0, 1.2, 1.1], 20),
        ([1.0, 3.0, 1.2, 1.1], 20),
        ([1.0, 1.1, 1.2, 1.1], 0),
        ([1.0, 1.1, math.nan, 0.9], 0),
        ([1.0, 1.1, 1.2, 0.7], math.nan),
        ([15.0, 9.0, 5.0, 3.0], math.nan),
        ([math.nan] * 4, math.nan),
    ],
)
def test_a_run_is_at_the_edge_from_the_record_on_after_which_the_ratio_stays_there(ratios, step):
    run = falling(-0.3, records=4)
    for record, ratio in zip(run.records, ratios, strict=True):
        record["views"]["spherical"]["ratio"] = ratio
    assert row(run)["edge_step"] == pytest.approx(step, nan_ok=True)


def test_an_optimizer_without_a_metric_has_no_sharpness_in_its_own():
    run = falling(-0.3)
    for record in run.records:
        record["views"]["spherical"] |= {"threshold": None, "ratio": None}
    cells = row(run)
    assert (cells["own_view"], cells["sharpness_view"]) == ("", "spherical")
    assert cells["sharpness_end"] > 0 and all(
        math.isnan(cells[name]) for name in ("own_at_fit", "own_end", "own_reduction", "ratio")
    )


def unstable(accuracies, ratios=()):
    run = falling(-0.3, records=len(accuracies), fitted_from=0)
    for i, (record, accuracy) in enumerate(zip(run.records, accuracies, strict=True)):
        record |= {"train_accuracy": accuracy, "test_accuracy": 0.1 * i}
        record["views"]["spherical"]["ratio"] = dict(ratios).get(i, 1.0)
    return run


@pytest.mark.parametrize(
    ("accuracies", "ratios", "number", "before", "after"),
    [
        ([0.9, 1, 1, 1, 1], {}, 0, None, None),
        ([0.9, 1, 0.9, 0.8, 1], {}, 1, 0.1, 0.4),
        ([0.9, 1, 0.9, 1, 0.8], {}, 2, 0.1, None),
        ([0.9, 1, 1, 1, 1], {0: 9.0, 3: 2.1}, 1, 0.2, 0.4),
        ([0.9, 1, 0.9, 1, 1], {3: 2.1}, 1, 0.1, 0.4),
    ],
)
def test_destabilisations_are_counted_after_the_fit(accuracies, ratios, number, before, after):
    cells = row(unstable(accuracies, ratios))
    assert cells["destabilisations"] == number
    assert cells["test_accuracy_before_first"] == pytest.approx(before or math.nan, nan_ok=True)
    assert cells["test_accuracy_after_last"] == pytest.approx(after or math.nan, nan_ok=True)


def test_a_run_that_never_fits_is_not_destabilised():
    assert math.isnan(row(unstable([0.5, 0.9, 0.7, 0.9]))["destabilisations"])


def test_an_adaptive_optimizer_has_a_metric_of_its_own():
    cells = row(make_run("rmsprop"))
    assert (cells["sharpness_view"], cells["own_view"]) == ("spherical", "spherical-preconditioned")
    gd = row(make_run())
    assert gd["own_view"] == "spherical" and gd["own_end"] == gd["sharpness_end"]


def test_where_the_spherical_view_does_not_apply_there_is_the_raw_one():
    run = make_run(norm="none")
    for record in run.records:
        record["views"] = {"spherical": None, "raw": record["views"]["spherical"]}
    assert row(run)["sharpness_view"] == "raw"


@pytest.mark.parametrize(
    ("peaks", "count"),
    [
        ({}, 0),
        ({12: 9.9}, 0),
        ({12: 10.1}, 1),
        ({12: 11.0, 13: 12.0}, 1),
        ({12: 11.0, 14: 12.0}, 2),
        ({3: 99.0}, 0),
    ],
)
def test_spikes_are_counted(peaks, count):
    run = make_run(records=20)
    for i, record in enumerate(run.records):
        record |= {"train_loss": 1.0, "peak_loss": peaks.get(i, 1.0)}
    assert study_table.count_loss_spikes(run) == count


def test_a_spike_is_measured_against_the_records_before_even_if_one_of_them_was_high():
    run = make_run(records=20)
    for i, record in enumerate(run.records):
        record |= {"train_loss": 50.0 if i == 10 else 1.0, "peak_loss": 50.0 if i in (10, 14) else 1.0}
    assert study_table.count_loss_spikes(run) == 2


def test_runs_that_begin_high_are_no_spikes():
    run = make_run(records=30)
    for i, record in enumerate(run.records):
        record |= {"train_loss": 0.5**i, "peak_loss": 1.01 * 0.5**i}
    assert study_table.count_loss_spikes(run) == 0


def test_arms_are_what_is_compared_and_settings_what_is_held_equal():
    runs = [
        make_run(model="bn_cnn"),
        make_run(model="bn_cnn", seed=1),
        make_run("rmsprop", model="bn_cnn"),
        make_run("rmsprop", {"preconditioning": "raw"}, model="bn_cnn", norm="none"),
        make_run(model="bn_mlp", batch_size=50),
        make_run(model="bn_mlp", limit=100, norm="affine"),
    ]
    frame = study_table.run_rows(runs)
    arms, settings = frame["arm"].tolist(), frame["setting"].tolist()
    assert arms[0] == arms[1] == arms[5] and len(set(arms)) == 4
    assert "batch 50" in arms[4] and "full batch" in arms[0] and "raw" in arms[3]
    assert settings == [
        *["bn_cnn, all images"] * 3,
        "bn_cnn, no normalisation, all images",
        "bn_mlp, all images",
        "bn_mlp, trained affine, 100 images",
    ]


def test_a_group_is_mean_spread_and_number():
    runs = [falling(-0.1 * (1 + seed), seed=seed, fitted_from=4 if seed else 99) for seed in range(3)]
    (group,) = study_table.seed_groups(study_table.run_rows(runs)).to_dict("records")
    assert group["runs"] == 3
    assert group["sharpness_slope.n"] == 2
    assert group["sharpness_slope.mean"] == pytest.approx(-0.25)
    assert group["sharpness_slope.sd"] == pytest.approx(0.1 / math.sqrt(2))
    assert not {"seed.mean", "lr.mean", "limit.mean"} & group.keys()


def test_runs_without_a_number_are_rows_too():
    empty = make_run(records=1, status="diverged")
    empty.records[0] = {"step": 0, "tau": 0.0, "train_loss": None, "views": {}, "elapsed": 1.0}
    frame = study_table.run_rows([empty, falling(-1.0)])
    assert frame["status"].tolist() == ["diverged", "done"]
    assert math.isnan(frame["sharpness_end"][0]) and frame["sharpness_view"][0] == ""
    groups = study_table.seed_groups(frame)
    assert groups["runs"].tolist() == [1, 1]
    assert groups.filter(regex=r"\.sd$").isna().all(axis=None)  # one number has no spread


def test_readings_are_rows_for_each_record_and_view():
    table = readings_table.readings([make_run(records=7, path="a"), make_run("rmsprop", records=5, path="b")])
    assert table.groupby(["run", "view"]).size().to_dict() == {
        ("a", "spherical"): 7,
        ("b", "spherical"): 5,
        ("b", "spherical-preconditioned"): 5,
    }
    assert {"step", "train_loss", "value", "threshold"} <= set(table)
    assert readings_table.readings([]).empty


@pytest.mark.parametrize("order", [1, -1])
def test_a_schedule_is_part_of_the_arm_and_not_of_the_setting(order):
    runs = [make_run(schedule="cosine", records=3), make_run(records=3)][::order]
    frame = study_table.run_rows(runs)
    assert frame["setting"].tolist() == ["bn_cnn", "bn_cnn"] and frame["arm"].nunique() == 2
