"""Every tool holds afterwards what the run holds: read back by the tool's own reader."""

import importlib.util

import pandas
import pytest

from optim_family.analysis import export, run_summary
from optim_family.cli.commands import export as command
from optim_family.errors import OptimFamilyError, UsageError
from optim_family.runs import readings_table
from tests.helpers.cli_runner import optim_family
from tests.helpers.fake_runs import make_run, stored, with_along

EVERY = sorted(export.TARGETS)


@pytest.fixture
def run():
    """A run with a reading that is not there, and a loss that is no number."""
    made = make_run("rmsprop", records=4)
    made.records[1]["views"]["riemannian"] = None
    made.records[2]["train_loss"] = None
    return made


def held(run):
    """(name, step) → number of all that is to be found in the tool."""
    return {(name, step): x for step, _, numbers in export.points(run) for name, x in numbers.items()}


def test_the_points_are_the_finite_numbers_of_the_records(run):
    points = held(run)
    for record, step in zip(run.records, (0, 10, 20, 30), strict=True):
        assert ("spherical/ratio", step) not in points  # rmsprop has no threshold in this view
        assert points["spherical/value", step] == record["views"]["spherical"]["value"]
        assert points["test_accuracy", step] == record["test_accuracy"]
    assert ("train_loss", 20) not in points and ("train_loss", 30) in points
    assert not [name for name, _ in points if name.startswith("riemannian")]
    assert [seconds for _, seconds, _ in export.points(run)] == [r["elapsed"] for r in run.records]


def test_measurements_along_updates_are_exported(run):
    points = held(with_along(run))
    assert points["along/rotation", 30] == run.records[3]["along"]["rotation"]
    assert ("along/critical", 20) not in points and ("along/critical", 30) in points


def test_the_numbers_of_test_sets_are_exported(run):
    run.records[3] |= {"test_loss": 0.5, "test_loss_clear": 0.75, "test_accuracy_clear": 0.25}
    points = held(run)
    assert (points["test_loss", 30], points["test_loss_clear", 30]) == (0.5, 0.75)
    assert points["test_accuracy_clear", 30] == 0.25 and ("test_loss", 0) not in points


def test_what_was_asked_is_flat_and_leaves_out_what_was_left_open(run):
    parameters = export.parameters(run)
    assert parameters["hyper.lr"] == 0.01 and parameters["optimizer"] == "rmsprop"
    assert all(isinstance(value, str | int | float) for value in parameters.values())
    assert "hyper" not in parameters and "limit" not in parameters
    run.spec["views"] = ["raw", "spherical"]
    assert export.parameters(run)["views"] == "raw+spherical"


def test_the_results_are_those_of_the_summary(run):
    results, summary = export.results(run), run_summary.summary(run)
    assert results["result/test_accuracy"] == summary["test_accuracy"]
    assert results["result/spherical/peak"] == summary["views"]["spherical"]["peak"]


def test_tensorboard_reads_the_same_numbers(run, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (place,) = export.export([run], "tensorboard", tmp_path)
    events = EventAccumulator(place).Reload()
    scalars = {
        (name, event.step): (event.value, event.wall_time)
        for name in events.Tags()["scalars"]
        if not name.startswith("result/")
        for event in events.Scalars(name)
    }
    expected = held(run)
    assert scalars.keys() == expected.keys()
    seconds = {record["step"]: record["elapsed"] for record in run.records}
    for (name, step), (value, wall) in scalars.items():
        assert value == pytest.approx(expected[name, step], rel=2**-23) and wall == seconds[step]
    (results,) = {e.value for e in events.Scalars("result/test_accuracy")}
    assert results == pytest.approx(export.results(run)["result/test_accuracy"], rel=2**-23)


def test_tensorboard_does_not_mix_two_exports(run, tmp_path):
    pytest.importorskip("tensorboard")
    export.export([run], "tensorboard", tmp_path)
    with pytest.raises(UsageError, match="exists already"):
        export.export([run], "tensorboard", tmp_path)


def test_runs_of_one_name_have_folders_of_their_own(run, tmp_path):
    other = make_run(path="elsewhere/a")
    assert [path.name for path in export._places([run, other], tmp_path)] == ["a-0", "a-1"]


@pytest.mark.filterwarnings("ignore")
def test_mlflow_reads_the_same_numbers(run, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="the extra [mlflow] is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "tracked").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setattr(export, "_MOST_METRICS", 7)
    for _ in range(2):  # the experiment is there the second time
        (place,) = export.export([run], "mlflow", tmp_path, "mine")
    client = mlflow.MlflowClient()
    name, _, made = place.partition("/")
    tracked = client.get_run(made)
    assert name == "mine" and tracked.info.status == "FINISHED" and tracked.info.run_name == "a"
    assert tracked.data.params == {k: str(v) for k, v in export.parameters(run).items()}
    expected = held(run)
    names = {name for name, _ in expected}
    metrics = [metric for name in names for metric in client.get_metric_history(made, name)]
    assert {(m.key, m.step): m.value for m in metrics} == expected
    assert tracked.data.metrics.keys() == names | export.results(run).keys()


@pytest.mark.filterwarnings("ignore")
def test_wandb_reads_the_same_numbers(run, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="the extra [wandb] is not installed")
    logged, init = {}, wandb.init

    def spy(**arguments):
        """A run of W&B that also tells what it is told."""
        made = init(**arguments)
        log = made.log
        made.log = lambda numbers, step: (logged.update({step: numbers}), log(numbers, step=step))
        return made

    monkeypatch.setattr(wandb, "init", spy)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.chdir(tmp_path)
    (place,) = export.export([run], "wandb", tmp_path, "mine")
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert file.parent == tmp_path / place
    seconds = {("seconds", record["step"]): record["elapsed"] for record in run.records}
    points = {(name, step): x for step, numbers in logged.items() for name, x in numbers.items()}
    assert points == held(run) | seconds


def test_parquet_holds_the_table_of_all_runs(run, tmp_path):
    pytest.importorskip("pyarrow")
    runs = [run, make_run(records=3, path="runs/b")]
    (place,) = export.export(runs, "parquet", tmp_path / "new")
    table = pandas.read_parquet(place)
    pandas.testing.assert_frame_equal(table, readings_table.frame(runs), check_dtype=False)
    assert len(table) == 4 * 3 + 3 and table["value"].isna().sum() == 4


@pytest.mark.parametrize("to", EVERY)
def test_an_extra_that_is_missing_is_named(run, to, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=rf"pip install 'optim-family\[{to}\]'"):
        export.export([run], to, tmp_path)


def test_a_tool_that_fails_is_named(run, tmp_path, monkeypatch):
    def send(runs, folder, project):
        raise RuntimeError("no\nserver")

    monkeypatch.setitem(export.TARGETS, "parquet", ("json", send))
    with pytest.raises(OptimFamilyError, match=r"^parquet failed: RuntimeError: no server$"):
        export.export([run], "parquet", tmp_path)


def test_the_command_exports_every_run_below_a_folder(run, tmp_path, capsys):
    pytest.importorskip("pyarrow")
    stored(tmp_path / "runs" / "a", run)
    stored(tmp_path / "runs" / "b", make_run(records=2))
    answer = optim_family(capsys, "export", tmp_path / "runs", "--to", "parquet", "--out", tmp_path)
    assert (answer.code, answer.out) == (0, f"{tmp_path / 'runs.parquet'}\n")
    assert len(pandas.read_parquet(tmp_path / "runs.parquet")["run"].unique()) == 2


def test_the_command_offers_every_tool():
    assert sorted(command.TARGETS) == EVERY
