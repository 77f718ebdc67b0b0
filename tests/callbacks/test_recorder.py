"""A script's training, watched: nothing about it changes, and what is left behind is a run."""

import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from timm.optim.lion import Lion
from torch import nn

from optim_family import Reading, measure, registry
from optim_family.analysis import run_summary
from optim_family.callbacks.recorder import Recorder
from optim_family.errors import UsageError
from optim_family.optimizers.external.wrapper import wrap_external
from optim_family.optimizers.gd import GD
from optim_family.optimizers.rmsprop import RMSprop
from optim_family.runs.readings_table import load_runs, run_labels
from optim_family.runs.run import read_run
from optim_family.runs.store import RunStore
from optim_family.training.experiment import build_experiment
from optim_family.training.loop import train as train_run
from optim_family.training.spec import RunSpec
from tests.helpers.cli_runner import optim_family


def setup(make, seed=0):
    """A small network with BatchNorm and dropout, its optimizer, and data in two chunks."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 3))
    x, y = torch.randn(20, 6), torch.randint(0, 3, (20,))
    return model, make(model.parameters()), [(x[:12], y[:12]), (x[12:], y[12:])]


def adamw(parameters):
    return torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1)


def train(model, optimizer, chunks, steps, after=lambda: None):
    for step in range(steps):
        x, y = chunks[step % 2]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        after()


def everything(model, optimizer):
    tensors = [*model.state_dict().values(), *(p.grad for p in model.parameters())]
    for memory in optimizer.state.values():
        tensors += [torch.as_tensor(value) for value in memory.values()]
    return [*tensors, torch.get_rng_state()]


# --- the three lines --------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:the readings have no threshold")
@pytest.mark.parametrize("make", [adamw, lambda p: GD(p, lr=0.1), lambda p: Lion(p, lr=0.01)])
def test_recording_changes_nothing_about_the_training(make, tmp_path):
    plain = setup(make)
    train(*plain, 6)
    expected = everything(*plain[:2])
    watched = setup(make)
    recorder = Recorder(*watched[:2], nn.functional.cross_entropy, watched[2], every=3, out=tmp_path / "a")
    train(*watched, 6, recorder.step)
    recorder.close()
    assert all(map(torch.equal, everything(*watched[:2]), expected))
    assert [record["step"] for record in read_run(tmp_path / "a").records] == [0, 3, 6]


def test_a_record_is_what_measure_says(tmp_path):
    model, optimizer, chunks = setup(adamw)
    recorder = Recorder(model, optimizer, nn.functional.cross_entropy, chunks, every=4, out=tmp_path / "a")
    train(model, optimizer, chunks, 4, recorder.step)
    recorder.close()
    record = read_run(tmp_path / "a").records[-1]
    optimizer.zero_grad()
    views = ("raw", "preconditioned")
    expected = measure(model, nn.functional.cross_entropy, chunks, _Described(optimizer), views=views)
    assert list(record["views"]) == list(views)
    assert record["views"]["preconditioned"]["threshold"] == pytest.approx(
        2 * (1 - 1e-3 + 0.9) / (0.1 * 0.01)
    )
    assert record["views"]["raw"]["threshold"] is None
    for view in views:
        assert record["views"][view]["value"] == pytest.approx(expected[view].value, rel=2e-3)
    assert record["lr"] == 0.01 and record["tau"] == pytest.approx(4 * 0.01 * 0.1)


def test_a_record_is_that_of_a_run(tmp_path):
    """The parts of a run, trained by a script."""
    spec = RunSpec(
        optimizer="rmsprop",
        hyper={"lr": 0.02, "weight_decay": 0.5},
        model="bn_mlp",
        limit=40,
        steps=6,
        every=3,
    )
    train_run(spec, tmp_path / "run")
    experiment = build_experiment(spec)
    objective, optimizer = experiment.objective, experiment.optimizer
    x, y = objective.data.images(objective.data.x_train, torch.float32), objective.data.y_train
    options = {"every": 3, "views": experiment.views, "out": tmp_path / "script"}
    with Recorder(objective.model, optimizer, objective.loss_fn, [(x, y)], **options) as recorder:
        for step in range(6):
            loss = objective.gradient(step)
            optimizer.step()
            recorder.step(loss=float(loss))
    theirs, mine = (read_run(tmp_path / name).records for name in ("run", "script"))
    assert len(mine) == len(theirs) == 3
    before = 0.0  # a script tells the loss of a step after it: that at the last record comes once more
    for a, b in zip(mine, theirs, strict=True):
        assert a.keys() == b.keys() - {"hvp", "test_loss"}
        assert a["peak_loss"] == pytest.approx(max(before, b["peak_loss"]), rel=1e-4)
        before = b["train_loss"]
        for key in b.keys() - {"hvp", "views", "elapsed", "test_accuracy", "test_loss", "peak_loss"}:
            assert a[key] == pytest.approx(b[key], rel=1e-4), key
        assert a["views"].keys() == b["views"].keys()
        for view, reading in b["views"].items():
            assert a["views"][view]["value"] == pytest.approx(reading["value"], rel=1e-2)
            thresholds = [x["threshold"] or math.inf for x in (a["views"][view], reading)]
            assert thresholds[0] == pytest.approx(thresholds[1], rel=1e-4)


class _Described:
    """What `measure` asks of an optimizer."""

    def __init__(self, optimizer):
        self.param_groups, self._optimizer = optimizer.param_groups, optimizer

    def geometry(self):
        from optim_family.optimizers.external.inferred_geometry import geometry

        return geometry(self._optimizer)


@pytest.mark.parametrize(
    ("name", "norm", "views"),
    [
        ("gd", "frozen-affine", ("spherical",)),
        ("gd", "none", ("raw",)),
        ("adamw", "frozen-affine", ("spherical", "spherical-preconditioned")),
        ("adamw", "none", ("raw", "preconditioned")),
        ("signgd", "frozen-affine", ("spherical", "generalized")),
        ("signgd", "none", ("raw", "generalized")),
    ],
)
@pytest.mark.filterwarnings("ignore:.*rounding of the gradient behind the metric:UserWarning")
def test_run_measure_and_recorder_have_the_same_default_views(name, norm, views, tmp_path):
    hyper = registry.load(name).Hyper().model_dump()
    spec = RunSpec(optimizer=name, hyper=hyper, model="bn_mlp", norm=norm, limit=20)
    experiment = build_experiment(spec)
    objective, optimizer = experiment.objective, experiment.optimizer
    x, y = objective.data.images(objective.data.x_train, torch.float32), objective.data.y_train
    loss = objective.model, objective.loss_fn, [(x, y)]
    recorder = Recorder(loss[0], optimizer, *loss[1:], out=tmp_path / "a", rtol=0.3, budget=4)
    recorder.close()
    assert experiment.views == views == tuple(recorder.probes.names)
    assert tuple(measure(*loss, optimizer, rtol=0.3, budget=4)) == views


def test_a_recorder_warns_of_a_spherical_view_of_another_loss(tmp_path):
    model, optimizer, chunks = setup(adamw)
    loss = nn.functional.cross_entropy
    with pytest.warns(UserWarning, match="^spherical sharpness: the loss is not scale-invariant"):
        Recorder(model, optimizer, loss, chunks, out=tmp_path / "a", views=["spherical", "raw"]).close()
    assert [*read_run(tmp_path / "a").records[0]["views"]] == ["spherical", "raw"]


def test_loss_accuracy_and_norms_are_those_over_all_chunks(tmp_path):
    model, optimizer, chunks = setup(adamw)
    model.eval()  # no dropout, no batch statistics: the chunks do not matter
    Recorder(model, optimizer, nn.functional.cross_entropy, chunks, out=tmp_path / "a").close()
    (record,) = read_run(tmp_path / "a").records
    x, y = (torch.cat(parts) for parts in zip(*chunks, strict=True))
    loss = nn.functional.cross_entropy(model(x), y)
    gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(model.parameters()))])
    norm = math.sqrt(sum(float(p.detach().square().sum()) for p in model.parameters()))
    assert record["train_loss"] == record["peak_loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert record["train_accuracy"] == pytest.approx(float((model(x).argmax(1) == y).float().mean()))
    assert record["gradient_norm"] == pytest.approx(float(gradient.norm()), rel=1e-5)
    assert record["weight_norm"] == pytest.approx(norm, rel=1e-5)
    assert record["effective_lr"] == pytest.approx(0.01 / ((1 - 0.01 * 0.1) * norm**2), rel=1e-5)


def test_what_the_script_tells_is_recorded(tmp_path):
    model, optimizer, chunks = setup(adamw)
    with Recorder(
        model, optimizer, nn.functional.cross_entropy, chunks, every=2, out=tmp_path / "a"
    ) as recorder:
        recorder.step(loss=50.0)
        recorder.step(loss=2.0, test_accuracy=0.75)
        recorder.step()
        recorder.step()
    first, second, third = read_run(tmp_path / "a").records
    assert (second["peak_loss"], second["test_accuracy"]) == (50.0, 0.75)
    assert third["peak_loss"] == third["train_loss"] and third["test_accuracy"] is None
    assert first["test_accuracy"] is None


def test_thresholds_follow_a_scheduler(tmp_path):
    model, optimizer, chunks = setup(lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9))
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    recorder = Recorder(model, optimizer, nn.functional.cross_entropy, chunks, every=1, out=tmp_path / "a")
    train(model, optimizer, chunks, 3, lambda: (scheduler.step(), recorder.step()))
    recorder.close()
    thresholds = [record["views"]["raw"]["threshold"] for record in read_run(tmp_path / "a").records]
    assert thresholds == pytest.approx([38, 38, 380, 380])


def test_a_regression_has_no_accuracy(tmp_path):
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.randn(8, 3), torch.randn(8, 1)
    Recorder(model, optimizer, nn.functional.mse_loss, [(x, y)], out=tmp_path / "a").close()
    (record,) = read_run(tmp_path / "a").records
    matrix = torch.cat([x, torch.ones(8, 1)], 1).double()
    assert record["train_accuracy"] is None
    top = float(torch.linalg.eigvalsh(2 / 8 * matrix.T @ matrix)[-1])
    assert record["views"]["raw"]["value"] == pytest.approx(top, rel=1e-3)


def test_the_first_record_has_the_verdict_of_the_check(tmp_path):
    model, optimizer, chunks = setup(adamw)
    with Recorder(
        model, optimizer, nn.functional.cross_entropy, chunks, every=1, out=tmp_path / "a"
    ) as recorder:
        recorder.step()
    first, second = (record["views"].values() for record in read_run(tmp_path / "a").records)
    assert [reading["check"] for reading in first] == ["passed"] * 2
    assert not any("check" in reading for reading in second)
    names = {field.name for field in dataclasses.fields(Reading)}
    optional = {
        "top",
        "check",
        "note",
        "spread",
        "floor",
        "dual",
        "method",
        "sample_products",
        "sample_share",
        "audit",
        "point",
        "rounding",
    }
    assert all(reading.keys() - {"rounding"} == names - optional for reading in second)


# --- what a script adds -----------------------------------------------------------------------------------


def recorded(folder, steps=2, **options):
    model, optimizer, chunks = setup(adamw)
    with Recorder(model, optimizer, nn.functional.cross_entropy, chunks, every=1, out=folder, **options) as r:
        for step in range(steps):
            r.step(metrics={"perplexity": 10.0 - step})
    return read_run(folder)


def test_runs_of_a_script_differ_by_name_seed_and_config(tmp_path):
    runs = [
        recorded(
            tmp_path / f"{width}-{seed}", name="wide net", seed=seed, config={"width": width, "act": "relu"}
        )
        for width in (8, 64)
        for seed in (0, 1)
    ]
    assert run_labels(runs) == [
        f"wide net  lr 0.01, wd 0.1, seed {s}, width {w}" for w in (8, 64) for s in (0, 1)
    ]
    table = load_runs(tmp_path)
    assert {*table["config.width"]} == {8, 64} and {*table["config.act"]} == {"relu"}
    assert {*table["seed"]} == {0, 1} and "config" not in table
    assert table[table["step"] == 2]["perplexity"].tolist() == [9.0] * len(table[table["step"] == 2])


def test_the_name_is_that_of_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, optimizer, chunks = setup(adamw)
    Recorder(model, optimizer, nn.functional.cross_entropy, chunks, name="mine").close()
    assert read_run(tmp_path / "runs" / "mine").spec["name"] == "mine"


def test_a_recorder_says_what_it_does(tmp_path):
    lines: list[str] = []
    recorded(tmp_path / "a", steps=1, log=lines.append)
    assert "first measurement, of" in lines[0] and str(tmp_path / "a") in lines[0]
    assert [line.partition("  ")[0] for line in lines[1:]] == ["step 0", "step 1"]
    assert all("raw ratio" in line or "preconditioned ratio" in line for line in lines[1:])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"name": "a/b"}, "name must be a text without slashes"),
        ({"name": " "}, "name must be a text without slashes"),
        ({"seed": 0.5}, "seed must be a whole number, at least 0; got 0.5"),
        ({"seed": -1}, "seed must be a whole number, at least 0; got -1"),
        ({"config": {"width": [1]}}, "config: width must be a number or a text; got a list"),
    ],
)
def test_what_a_script_adds_wrongly_is_refused_before_anything_is_written(options, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        recorded(tmp_path / "a", **options)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("metrics", "says"),
    [
        ({"train_loss": 1.0}, "train_loss is a field of every record"),
        ({"views": 1.0}, "views is a field of every record"),
        ({"accuracy": "high"}, "accuracy must be one number; got a str"),
        ({"losses": torch.ones(2)}, "losses must be one number; got a Tensor"),
    ],
)
def test_a_metric_is_one_number_with_a_name_of_its_own(metrics, says, tmp_path):
    model, optimizer, chunks = setup(adamw)
    recorder = Recorder(model, optimizer, nn.functional.cross_entropy, chunks, every=1, out=tmp_path / "a")
    with recorder, pytest.raises(ValueError, match=says):
        recorder.step(metrics=metrics)


def test_readings_of_many_chunks_can_come_from_a_sample(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 32), nn.BatchNorm1d(32), nn.Tanh(), nn.Linear(32, 3))
    optimizer = adamw(model.parameters())
    x, y, options = torch.randn(400, 6), torch.randint(3, (400,)), {"every": 1, "views": ["raw"]}
    chunks = [*zip(x.split(40), y.split(40), strict=True)]
    loss_fn = nn.functional.cross_entropy
    with Recorder(model, optimizer, loss_fn, chunks, out=tmp_path / "a", reading="sampled", **options):
        pass
    with Recorder(model, optimizer, loss_fn, chunks, out=tmp_path / "b", **options):
        pass
    sampled, plain = (read_run(tmp_path / name) for name in "ab")
    reading, exact = (run.records[0]["views"]["raw"] for run in (sampled, plain))
    assert reading["sample_products"] and "sample_products" not in exact
    assert reading["value"] == pytest.approx(exact["value"], rel=1e-3)
    assert sampled.spec["reading"] == "sampled" and plain.spec["reading"] is None


# --- the run directory ------------------------------------------------------------------------------------


def test_compare_reads_it(tmp_path, capsys):
    folders = []
    for name, make in (("adamw", adamw), ("gd", lambda p: GD(p, lr=0.1))):
        model, optimizer, chunks = setup(make)
        with Recorder(
            model, optimizer, nn.functional.cross_entropy, chunks, every=2, out=tmp_path / name
        ) as recorder:
            train(model, optimizer, chunks, 8, recorder.step)
        folders.append(tmp_path / name)
    answer = optim_family(capsys, "compare", *folders)
    assert answer.code == 0 and (tmp_path / "comparison.svg").exists()
    assert "torch:AdamW  lr 0.01, wd 0.1" in answer.out and "gd  lr 0.1" in answer.out
    assert run_summary.summary(read_run(folders[0]))["status"] == "done"


@pytest.mark.filterwarnings("ignore:the readings have no threshold")
@pytest.mark.parametrize(
    ("make", "name", "hyper"),
    [
        (adamw, "torch:AdamW", {"lr": 0.01, "beta1": 0.9, "beta2": 0.999, "weight_decay": 0.1}),
        (lambda p: torch.optim.Adam(p, lr=torch.tensor(0.5)), "torch:Adam", {"lr": 0.5}),
        (lambda p: RMSprop(p, moment="scalar"), "rmsprop", {"moment": "scalar", "lr": 0.02}),
        (lambda p: wrap_external("timm:lambw")(p), "timm:lambw", {"lr": 1e-3, "beta2": 0.999}),
        (lambda p: Lion(p), "timm:Lion", {"lr": 1e-4}),
    ],
)
def test_it_says_what_was_trained(make, name, hyper, tmp_path):
    model, optimizer, chunks = setup(make)
    Recorder(model, optimizer, nn.CrossEntropyLoss(), chunks, out=tmp_path / "a", views=["raw"]).close()
    run = read_run(tmp_path / "a")
    assert run.spec["optimizer"] == name
    assert {field: run.spec["hyper"][field] for field in hyper} == hyper
    assert (run.spec["model"], run.spec["loss"]) == ("Sequential", "CrossEntropyLoss")
    assert run.provenance["data"] == {"train": 20, "chunks": 2}
    assert run.provenance["optimizer"]["target"].endswith(type(optimizer).__qualname__)


def test_folders_are_not_written_into_twice(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parts = setup(adamw)
    arguments = (*parts[:2], nn.functional.cross_entropy, parts[2])
    first, second = Recorder(*arguments), Recorder(*arguments)
    assert [str(recorder.store.path) for recorder in (first, second)] == [
        "runs/torch-AdamW",
        "runs/torch-AdamW-2",
    ]
    with pytest.raises(UsageError, match="runs/torch-AdamW holds a run already; choose another folder"):
        Recorder(*arguments, out="runs/torch-AdamW")
    first.close()
    first.close()
    assert read_run(tmp_path / "runs" / "torch-AdamW").status["status"] == "done"
    assert read_run(tmp_path / "runs" / "torch-AdamW-2").status["status"] == "running"
    del second  # frees the lock
    RunStore.open(
        tmp_path / "runs" / "torch-AdamW-2", read_run(tmp_path / "runs" / "torch-AdamW-2").spec
    ).close()


def test_a_name_that_is_taken_warns_with_the_folder_that_the_run_gets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, optimizer, chunks = setup(adamw)
    arguments = (model, optimizer, nn.functional.cross_entropy, chunks)
    Recorder(*arguments, name="mine", views=["raw"]).close()
    message = r"^runs/mine exists already; this run is written to runs/mine-2\.$"
    with pytest.warns(UserWarning, match=message) as caught:
        Recorder(*arguments, name="mine", views=["raw"]).close()
    assert len(caught) == 1 and caught[0].filename == __file__
    assert read_run(tmp_path / "runs" / "mine-2").spec["name"] == "mine"


def test_an_error_names_the_loss_of_the_script(tmp_path):
    model, optimizer, chunks = setup(adamw)
    chunks = [(x, torch.zeros(len(x), 3, dtype=torch.long)) for x, _ in chunks]
    for loss_fn, name in (
        (nn.functional.cross_entropy, "cross_entropy"),
        (nn.CrossEntropyLoss(), "CrossEntropyLoss"),
    ):
        with pytest.raises(ValueError, match=f"^chunk 0: {name}"):
            Recorder(model, optimizer, loss_fn, chunks, out=tmp_path / "a")


def test_an_exception_in_the_script_is_noted(tmp_path):
    parts = setup(adamw)
    with (
        pytest.raises(ZeroDivisionError),
        Recorder(*parts[:2], nn.functional.cross_entropy, parts[2], out=tmp_path / "a"),
    ):
        raise ZeroDivisionError
    assert read_run(tmp_path / "a").status["status"] == "failed"


def test_a_run_that_diverges_ends_there(tmp_path):
    model, optimizer, chunks = setup(adamw)
    with Recorder(
        model, optimizer, nn.functional.cross_entropy, chunks, every=1, out=tmp_path / "a"
    ) as recorder:
        with torch.no_grad():
            model[0].weight.fill_(math.inf)
        recorder.step()
        recorder.step()
    run = read_run(tmp_path / "a")
    assert [record["train_loss"] is None for record in run.records] == [False, True]
    assert run.records[1]["views"] == {} and run.status["status"] == "diverged"


# --- what cannot be recorded ------------------------------------------------------------------------------


def other(parameters):
    return torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)


@pytest.mark.parametrize(
    ("place", "value", "options", "says"),
    [
        (None, None, {"every": 0}, "every must be a whole number of steps, at least 1; got 0"),
        (None, None, {"every": 1.5}, r"every must be a whole number of steps, at least 1; got 1\.5"),
        (None, None, {"rtol": math.nan}, "rtol must lie between 0 and 1; got nan"),
        (None, None, {"rtol": "1e-3"}, "rtol must lie between 0 and 1; got '1e-3'"),
        (None, None, {"rtol": 0}, "rtol must lie between 0 and 1; got 0"),
        (None, None, {"budget": 0}, "needs a budget of at least 2 products; got 0"),
        (None, None, {"views": "raw"}, r"views must be a list of names; write \['raw'\]"),
        (1, None, {}, "the optimizer must be a torch.optim.Optimizer; got NoneType"),
        (1, other(()), {}, "SGD trains no weight of Sequential"),
        (1, torch.optim.SGD([torch.zeros(3)], lr=0.1), {}, "SGD trains no weight of Sequential"),
        (
            2,
            nn.CrossEntropyLoss(reduction="none"),
            {},
            r"mean loss of a chunk, one number with a graph; got shape \[12\]",
        ),
        (3, [], {}, r"`chunks` gave no \(x, y\) pair"),
        (3, [torch.randn(20, 6)], {}, r"is a list of pairs \(x, y\), or .*; got a Tensor"),
        (3, [(torch.randn(0, 6), torch.randint(0, 3, (0,)))], {}, "the chunks hold no examples"),
    ],
)
def test_a_wrong_argument_is_told_in_one_line_and_leaves_no_folder(place, value, options, says, tmp_path):
    model, optimizer, chunks = setup(adamw)
    arguments = [model, optimizer, nn.functional.cross_entropy, chunks]
    if place is not None:
        arguments[place] = value
    with pytest.raises(ValueError, match=says) as caught:
        Recorder(*arguments, out=tmp_path / "a", **options)
    assert "\n" not in str(caught.value) and not (tmp_path / "a").exists()


def test_accuracy_is_a_fraction(tmp_path):
    parts = setup(adamw)
    with Recorder(*parts[:2], nn.functional.cross_entropy, parts[2], every=1, out=tmp_path / "a") as recorder:
        recorder.step(test_accuracy=torch.tensor(0.0))
        with pytest.raises(ValueError, match="test_accuracy must be a fraction between 0 and 1; got 95"):
            recorder.step(test_accuracy=95)
        assert recorder.steps == recorder.count == 1
    assert [record["test_accuracy"] for record in read_run(tmp_path / "a").records] == [None, 0.0]


# --- what cannot be measured ------------------------------------------------------------------------------


def test_without_a_metric_the_raw_sharpness_is_recorded(tmp_path):
    parts = setup(lambda p: Lion(p))
    with pytest.warns(UserWarning, match="no threshold: there is no metric: Lion has none, for it uses only"):
        Recorder(*parts[:2], nn.functional.cross_entropy, parts[2], out=tmp_path / "a").close()
    (record,) = read_run(tmp_path / "a").records
    assert list(record["views"]) == ["raw", "generalized"] and record["views"]["raw"]["threshold"] is None
    assert "no threshold: with momentum" in record["views"]["generalized"]["note"]


def test_a_view_without_its_metric_is_refused_before_the_folder_is_made(tmp_path):
    parts = setup(lambda p: Lion(p))
    with pytest.raises(ValueError, match="there is no metric: Lion has none, for it uses only the sign"):
        Recorder(
            *parts[:2], nn.functional.cross_entropy, parts[2], out=tmp_path / "a", views=["preconditioned"]
        )
    with pytest.raises(ValueError, match="there is no view 'rough'"):
        Recorder(*parts[:2], nn.functional.cross_entropy, parts[2], out=tmp_path / "a", views=["rough"])
    assert not (tmp_path / "a").exists()


def test_chunks_that_share_their_labels_all_count_in_the_accuracy(tmp_path):
    model, labels = nn.Linear(2, 2, bias=False), torch.tensor([0, 1])
    with torch.no_grad():
        model.weight.copy_(torch.eye(2))
    right, wrong = torch.eye(2), torch.eye(2).flip(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    chunks = [(right, labels), (wrong, labels)]
    with Recorder(model, optimizer, nn.functional.cross_entropy, chunks, out=tmp_path / "run"):
        pass
    assert read_run(tmp_path / "run").records[0]["train_accuracy"] == 0.5


class AcceleratedOptimizer(torch.optim.Optimizer):
    """As accelerate's: holds another optimizer, and takes its step."""

    def __init__(self, optimizer):
        self.optimizer = optimizer
        self.step = optimizer.step

    @property
    def param_groups(self):
        return self.optimizer.param_groups


def test_an_optimizer_that_accelerate_wraps_is_recorded_as_itself(tmp_path):
    for folder, wrap in (("plain", lambda o: o), ("wrapped", AcceleratedOptimizer)):
        model, optimizer, chunks = setup(adamw)
        Recorder(model, wrap(optimizer), nn.functional.cross_entropy, chunks, out=tmp_path / folder).close()
    plain, wrapped = (read_run(tmp_path / folder) for folder in ("plain", "wrapped"))
    assert wrapped.spec == plain.spec
    ratios = [record.records[0]["views"]["preconditioned"]["ratio"] for record in (plain, wrapped)]
    assert ratios[0] == ratios[1] is not None


@pytest.mark.parametrize("triples", [True, False])
def test_the_weights_of_chunks_can_be_given(triples, tmp_path):
    model, optimizer, ((x, y), *_) = setup(adamw)
    model.eval()
    pairs = [(x[:2], y[:2]), (x[2:8], y[2:8])]
    chunks = [(x, y, 4) for x, y in pairs] if triples else pairs
    count = None if triples else (lambda x, y: 4)
    Recorder(model, optimizer, nn.functional.cross_entropy, chunks, count=count, out=tmp_path / "a").close()
    losses = [nn.functional.cross_entropy(model(x), y).item() for x, y in pairs]
    assert read_run(tmp_path / "a").records[0]["train_loss"] == pytest.approx(sum(losses) / 2, rel=1e-6)


def test_steps_that_accelerate_skips_are_not_counted(tmp_path: Path) -> None:
    class AcceleratedOptimizer(torch.optim.Optimizer):
        """As that of accelerate: it steps when gradients are synchronized."""

        def __init__(self, optimizer: torch.optim.Optimizer) -> None:
            self.optimizer, self.gradient_state = optimizer, SimpleNamespace(sync_gradients=True)

    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer = AcceleratedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1))
    chunks = [(torch.randn(4, 3), torch.randn(4, 1))]
    with Recorder(
        model, optimizer, nn.functional.mse_loss, chunks, every=1, out=tmp_path / "run"
    ) as recorder:
        for sync in (False, True, False, True):
            optimizer.gradient_state.sync_gradients = sync
            recorder.step()
        assert recorder.steps == 2
