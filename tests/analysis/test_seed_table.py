from statistics import median

from optim_family.analysis.run_summary import summary
from optim_family.analysis.seed_table import setting_rows, spreads
from tests.helpers.fake_runs import holding, in_norm, make_run, with_along

RUNS = [make_run(seed=seed, records=9) for seed in range(3)]
SUMMARIES = [summary(run) for run in RUNS]


def cells(*groups):
    headers, rows = setting_rows([f"setting {i}" for i in range(len(groups))], groups)
    assert headers == ["setting", *(f"setting {i}" for i in range(len(groups)))]
    return {name: values for name, *values in rows}


def test_every_number_has_median_range_and_n():
    table = spreads(SUMMARIES)
    for key, numbers in {
        "train_loss": [each["train_loss"] for each in SUMMARIES],
        "views.spherical.ratio": [each["views"]["spherical"]["ratio"] for each in SUMMARIES],
    }.items():
        assert table[key] == (median(numbers), min(numbers), max(numbers), 3)
    assert "label" not in table and "status" not in table


def test_one_column_a_setting_and_one_row_a_quantity():
    rows = cells(SUMMARIES, [summary(make_run("rmsprop", records=9))])
    ratios = sorted(each["views"]["spherical"]["ratio"] for each in SUMMARIES)
    low, middle, high = (f"{ratio:.2f}" for ratio in ratios)
    assert rows["runs"] == ["3", "1"] and rows["status"] == ["done", "done"]
    assert rows["spherical / threshold"] == [f"{middle} ({low} to {high})", "–"]
    assert rows["spherical-preconditioned / threshold"][0] == "–"
    assert rows["steps"] == ["80", "80"]  # equal numbers have no range
    accuracies = sorted(100 * each["test_accuracy"] for each in SUMMARIES)
    assert rows["test accuracy, %: end"][0] == "{1:.1f} ({0:.1f} to {2:.1f})".format(*accuracies)


def test_n_stands_where_some_runs_lack_the_number_and_a_quantity_that_none_has_is_left_out():
    early = [{**each, "fit_step": step} for each, step in zip(SUMMARIES, (30, None, 40), strict=True)]
    early[1] |= {"status": "diverged", "train_loss": None}
    rows = cells(early)
    assert rows["100 % training accuracy at step"] == ["35 (30 to 40, n = 2)"]
    assert rows["training loss"][0].endswith(", n = 2)")
    assert rows["status"] == ["2 done, 1 diverged"]
    never = [{**each, "fit_step": None} for each in SUMMARIES]
    assert "100 % training accuracy at step" not in cells(never)


def test_a_norm_is_a_lower_bound_and_measurements_along_the_update_have_their_rows():
    rows = cells(
        [summary(in_norm(make_run("rmsprop", records=5)))], [summary(with_along(make_run(records=9)))]
    )
    assert rows["generalized (lower bound) / threshold"][1] == "–"
    assert rows["directional smoothness / its limit"][0] == "–"
    assert rows["directional smoothness / its limit"][1] != "–" != rows["rotation per step, radians: end"][1]


def test_a_run_without_a_record_is_counted():
    rows = cells([*SUMMARIES, summary(holding(RUNS[0], []))])
    assert rows["runs"] == ["4"] and rows["training loss"][0].endswith(", n = 3)")
