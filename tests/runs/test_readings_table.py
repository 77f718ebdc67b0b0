import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import optim_family
from optim_family.analysis.run_summary import summary, summary_rows
from optim_family.errors import UsageError
from optim_family.runs.readings_table import load_runs, readings, run_labels
from optim_family.runs.run import column, first_fit_index, views
from tests.helpers.fake_runs import holding, make_run, stored, with_along, with_batches


def known(fit=True):
    """Five records with numbers that are easy to check; training is at 100 % from the third on."""
    run = make_run("rmsprop", records=5)
    for i, record in enumerate(run.records):
        record |= {
            "train_accuracy": (0.4, 0.99, 1.0, 1.0, 0.98)[i] if fit else 0.5,
            "test_accuracy": (3, 5, 6, 8, 7)[i] / 10,
        }
        record["views"] = {
            "spherical": {"value": 10.0 * (i + 1), "threshold": 40.0, "ratio": (i + 1) / 4, "residual": 0.0}
            | {"error": 0.1, "products": 7, "seconds": 0.5, "converged": i != 1},
            "riemannian": None,
        }
    return run


def test_runs_are_loaded_with_one_row_a_record_and_view(tmp_path):
    run = known()
    stored(tmp_path, run)
    table = optim_family.load_runs(tmp_path)
    assert len(table) == 5 * 2 and set(table["view"]) == {"spherical", "riemannian"}
    spherical = table[table["view"] == "spherical"]
    assert spherical["step"].tolist() == [0, 10, 20, 30, 40] and table["step"].dtype.kind == "i"
    assert spherical["value"].tolist() == [10, 20, 30, 40, 50]
    assert spherical["converged"].tolist() == [1, 0, 1, 1, 1]
    assert spherical["train_loss"].tolist() == column(run, "train_loss")
    assert table[table["view"] == "riemannian"]["value"].isna().all()
    numbers = {*run.records[0], *run.records[0]["views"]["spherical"]} - {"step", "views"}
    assert all(table[name].dtype.kind == "f" for name in numbers)


def test_every_number_of_a_record_is_a_column(tmp_path):
    old, new = known(), known()
    for i, record in enumerate(new.records):
        record |= {"test_loss": 0.5, "test_loss_clear": i / 10, "test_accuracy_clear": 0.25}
        record["views"]["spherical"] |= {"share": 0.1, "check": "passed", "top": [2.0, 1.0]}
    stored(tmp_path / "old", old)
    further = {"test_loss", "test_loss_clear", "test_accuracy_clear", "share"}
    assert not further & {*load_runs(tmp_path)}
    stored(tmp_path / "new", new)
    table = load_runs(tmp_path)
    assert further <= {*table} and not {"check", "top"} & {*table}
    first = table[(table["run"] == str(tmp_path / "new")) & (table["view"] == "spherical")]
    assert first["test_loss_clear"].tolist() == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert set(first["test_loss"]) == {0.5} and set(first["test_accuracy_clear"]) == {0.25}
    assert table[table["run"] == str(tmp_path / "old")]["test_loss"].isna().all()
    assert "test_loss_clear" in readings([old, new])


def test_every_row_says_what_run_it_is_of(tmp_path):
    stored(tmp_path / "a", known())
    stored(tmp_path / "deep" / "b", make_run("gd", records=3, limit=200))
    table = load_runs(str(tmp_path))
    first, second = (table[table["run"] == str(tmp_path / name)] for name in ("a", "deep/b"))
    assert (len(first), len(second), len(table)) == (10, 3, 13)
    assert (
        set(second["optimizer"]) == {"gd"}
        and set(second["limit"]) == {200}
        and set(second["status"]) == {"done"}
    )
    assert (
        set(first["hyper.lr"]) == {0.01} and set(first["lr"]) == {0.01} and set(second["hyper.lr"]) == {0.2}
    )
    assert second["hyper.beta2"].isna().all() and set(first["hyper.moment"]) == {"diagonal"}


def test_no_record_is_lost_for_want_of_a_view(tmp_path):
    run = known()
    ending = {"step": 45, "tau": 0.1, "train_loss": None, "views": {}, "elapsed": 1.0}
    run.records.append(ending)
    stored(tmp_path / "late", run)
    stored(tmp_path / "at once", holding(run, [ending]))
    stored(tmp_path / "empty", make_run(records=0))
    table = load_runs(tmp_path)
    late, once = (table[table["run"] == str(tmp_path / name)] for name in ("late", "at once"))
    assert late[late["view"] == "spherical"]["ratio"].isna().tolist() == [False] * 5 + [True]
    assert once["step"].tolist() == [45] and once[["view", "train_loss", "value"]].isna().all(axis=None)
    assert len(table) == 12 + 1 and load_runs(tmp_path / "empty").empty


def test_a_folder_without_runs_is_no_empty_table(tmp_path):
    with pytest.raises(UsageError, match=r"there is no run directory in .*; give a folder in which"):
        load_runs(tmp_path / "missing")


def test_a_summary_tells_the_fit_the_end_and_the_best():
    quantities = summary(known())
    assert (quantities["fit_step"], quantities["fit_tau"]) == (20, pytest.approx(20 * 0.01 * 0.05))
    assert (
        quantities["test_accuracy_at_fit"],
        quantities["test_accuracy"],
        quantities["test_accuracy_best"],
    ) == (
        0.6,
        0.7,
        0.8,
    )
    assert (quantities["status"], quantities["steps"], quantities["records"]) == ("done", 40, 5)
    assert quantities["label"] == "rmsprop  lr 0.01, wd 0.05, β₂ 0.99"
    spherical = quantities["views"]["spherical"]
    assert (spherical["at_fit"], spherical["peak"], spherical["last"]) == (30, 50, 50)
    assert (spherical["readings"], spherical["products"], spherical["unconverged"]) == (5, 35, 1)
    assert spherical["seconds"] == 2.5
    assert (
        quantities["views"]["riemannian"]["readings"] == 0
        and quantities["views"]["riemannian"]["peak"] is None
    )


def test_the_ratio_is_the_median_after_the_fit_or_over_the_last_half():
    spherical = summary(known())["views"]["spherical"]
    assert (spherical["ratio"], spherical["ratio_quartiles"]) == (1.0, [0.875, 1.125])
    assert spherical["ratio_readings"] == 3
    never = summary(known(fit=False))
    assert never["fit_step"] is None and never["test_accuracy_at_fit"] is None
    assert never["views"]["spherical"]["at_fit"] is None
    assert (never["views"]["spherical"]["ratio"], never["views"]["spherical"]["ratio_readings"]) == (1.0, 3)


def test_views_that_share_a_measurement_count_once():
    run = known()
    for record in run.records:
        record["views"]["raw"] = record["views"]["spherical"]
        record["views"]["spherical-preconditioned"] = record["views"]["spherical"]
    quantities = summary(run)
    assert (quantities["products"], quantities["seconds"], quantities["unconverged"]) == (70, 5.0, 2)


def test_the_audits_of_sampled_readings_are_summed_up_once_for_views_of_one_kind():
    assert "sampled" not in summary(known())
    assert "readings from a sample" not in dict(summary_rows([known()])[1])
    run = known()
    for index, record in enumerate(run.records):
        reading = record["views"]["spherical"] | {"sample_products": 15, "sample_share": 0.05}
        record["views"]["spherical"] = reading | ({"audit": 1e-4 * index} if index in (1, 3) else {})
        record["views"]["raw"] = record["views"]["spherical"]
    assert summary(run)["sampled"] == {"readings": 5, "audits": 2, "largest": pytest.approx(3e-4)}
    _, rows = summary_rows([run, known()])
    cells = {name: texts for name, *texts in rows}["readings from a sample"]
    assert cells == ["5, no bound for any spectrum but at the 2 audits: largest difference 3e-04", "–"]


@pytest.mark.parametrize("records", [0, 1, 2, 30])
@pytest.mark.parametrize("optimizer", ["gd", "rmsprop"])
def test_a_summary_of_any_run_is_json(records, optimizer):
    run = make_run(optimizer, records=records)
    if records == 30:
        run.records.append({"step": 300, "tau": math.nan, "train_loss": None, "views": {}})
    quantities = summary(run)
    assert json.loads(json.dumps(quantities, allow_nan=False)) == quantities
    assert quantities["records"] == len(run.records)


def test_fitted_is_the_first_record_at_100_percent():
    assert first_fit_index(known()) == 2
    assert first_fit_index(known(fit=False)) is None
    assert views(known()) == ["spherical", "riemannian"]


def test_one_run_is_a_table_of_quantities():
    headers, rows = summary_rows([known()])
    quantities = dict(rows)
    assert headers == ["run", "rmsprop  lr 0.01, wd 0.05, β₂ 0.99"]
    assert quantities["100 % training accuracy at"] == "step 20 (τ 0.01)"
    assert quantities["test accuracy, %: then → end (best)"] == "60.0 → 70.0 (80.0)"
    assert quantities["spherical: then → end (peak)"] == "30 → 50 (50)"
    assert quantities["spherical / threshold: median (quartiles)"] == "1.00 (0.88 to 1.12, n = 3)"
    assert quantities["riemannian: then → end (peak)"] == "not applicable"
    assert quantities["HVPs"] == "35"


def test_several_runs_are_one_column_each():
    runs = [known(), known(fit=False), make_run("gd", records=0, path="runs/b", status="running")]
    headers, rows = summary_rows(runs)
    quantities = {name: cells for name, *cells in rows}
    assert headers == ["run", *run_labels(runs)]
    assert all(len(cells) == len(runs) for cells in quantities.values())
    assert quantities["riemannian: then → end (peak)"][2] == "–"
    assert quantities["100 % training accuracy at"][1:] == ["never", "–"]
    assert summary_rows([]) == ([], [])


def test_measurements_along_updates_are_loaded_and_summed_up_where_there_are_any(tmp_path):
    run = with_along(make_run(records=5))
    table = readings_of(tmp_path, run)
    assert table["along.rotation"].tolist()[1:] == [record["along"]["rotation"] for record in run.records[1:]]
    assert math.isnan(table["along.critical"][2]) and "along" not in table
    quantities = {name: cells for name, *cells in summary_rows([make_run(records=5), run])[1]}
    assert quantities["rotation per step, radians: then → end (peak)"] == ["–", "0.021 → 0.023 (0.023)"]
    assert quantities["critical sharpness / (2/η): median (quartiles)"][1] == "0.93 (0.92 to 0.93, n = 2)"
    assert not [name for name, *_ in summary_rows([make_run(records=5)])[1] if "rotation" in name]


def readings_of(folder, run):
    stored(folder / "run", run)
    return load_runs(folder)


def test_with_momentum_batch_sharpness_is_given_against_both_plateaus():
    run = with_batches(make_run(records=5))
    names = [name for name, *_ in summary_rows([make_run("rmsprop", records=5), run])[1]]
    small = "spherical-batch / plateau of small batches: median (quartiles)"
    assert names.index(small) == names.index("spherical-batch / threshold: median (quartiles)") + 1
    assert summary(run)["views"]["spherical-batch"]["small_batches"]["ratio"] == pytest.approx(5.7)


def test_runs_with_one_specification_are_named_by_folder_or_path():
    a, b = make_run(path="x/a"), make_run(path="x/b")
    assert [text.rpartition(", ")[2] for text in run_labels([a, b])] == ["a", "b"]
    c = replace(a, path=Path("y/a"))
    assert [text.rpartition(", ")[2] for text in run_labels([a, c])] == ["x/a", "y/a"]


def test_reading_results_loads_nothing_heavy():
    heavy = "{'torch', 'pandas', 'matplotlib'}"
    code = f"import sys, optim_family.runs.readings_table; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
