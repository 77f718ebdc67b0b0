"""Schedule-free optimizers are measured at the average x, or at y on request, and are left as they were."""

import math

import pytest
import torch
from torch import nn

from optim_family import Recorder, measure
from optim_family.errors import Stopped, UsageError
from optim_family.networks.pretrained import load_weights
from optim_family.optimizers.external.averaging import at_point, point_of
from optim_family.optimizers.external.inferred_geometry import geometry
from optim_family.optimizers.gd import GD
from optim_family.optimizers.motion import MomentumUpdate
from optim_family.runs.run import read_run
from optim_family.training.checkpoint_spectrum import checkpoint_spectrum
from optim_family.training.experiment import build_experiment
from optim_family.training.loop import train
from tests.helpers.broken_plugin import GOOD, HYPER, UPDATE, broken
from tests.helpers.cli_runner import optim_family
from tests.helpers.operators_for_tests import draw
from tests.helpers.schedule_free import ScheduleFree
from tests.helpers.training_runs import StopAfter, spec, untimed, weights_hash

LOSS = nn.functional.cross_entropy
pytestmark = pytest.mark.filterwarnings("ignore:the readings have no threshold")


def trained(steps=8, seed=0):
    """A network with BatchNorm after some steps, its optimizer, and its chunks."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)).double()
    chunks = [(torch.randn(24, 6, dtype=torch.float64), torch.randint(0, 3, (24,)))]
    optimizer = ScheduleFree(model.parameters(), lr=0.5)
    walk(model, optimizer, chunks, steps)
    return model, optimizer, chunks


def walk(model, optimizer, chunks, steps, after=lambda: None):
    for _ in range(steps):
        optimizer.zero_grad()
        LOSS(model(chunks[0][0]), chunks[0][1]).backward()
        optimizer.step()
        after()


def held(model, optimizer):
    """What must be the same bits afterwards."""
    memory = [entry for state in optimizer.state.values() for entry in state.values()]
    return [tensor.clone() for tensor in (*model.state_dict().values(), *memory)]


def weights(model):
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()]).clone()


def same(before, after):
    return all(map(torch.equal, before, after))


# --- measure ----------------------------------------------------------------------------------------------


def value(model, chunks, optimizer=None, **options):
    return measure(model, LOSS, chunks, optimizer, views=("raw",), rtol=1e-6, **options)["raw"]


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_measure_is_at_x_by_default_and_at_y_on_request_in_either_mode(mode):
    model, optimizer, chunks = trained()
    at_y = value(model, chunks).value
    optimizer.eval()
    at_x = value(model, chunks).value
    assert abs(at_x / at_y - 1) > 0.01  # else the test could not tell
    getattr(optimizer, mode)()
    before = held(model, optimizer)
    default, asked = value(model, chunks, optimizer), value(model, chunks, optimizer, point="y")
    assert (default.point, asked.point) == ("x", "y") and default.as_record()["point"] == "x"
    assert default.value == pytest.approx(at_x, rel=1e-9)
    assert asked.value == pytest.approx(at_y, rel=1e-9)
    assert same(before, held(model, optimizer))
    assert point_of(optimizer) == {"train": "y", "eval": "x"}[mode]


def test_the_weights_return_bitwise_after_an_error_too():
    model, optimizer, _ = trained()
    before = held(model, optimizer)
    with pytest.raises(RuntimeError, match="inside"), at_point(optimizer, "x") as moved:
        assert moved and not torch.equal(weights(model), torch.cat([w.reshape(-1) for w in before[:2]]))
        raise RuntimeError("inside")
    assert same(before, held(model, optimizer)) and point_of(optimizer) == "y"


def test_there_is_one_point_without_an_average():
    model, _, chunks = trained()
    assert value(model, chunks, GD(model.parameters())).point == ""
    with pytest.raises(ValueError, match="the point y exists with schedule-free optimizers only; with GD"):
        value(model, chunks, GD(model.parameters()), point="y")
    with pytest.raises(ValueError, match=r"the point is x, the average, or y, where .*; got 'z'"):
        value(model, chunks, point="z")


def test_statistics_of_batch_norm_that_belong_to_y_are_announced():
    model, optimizer, chunks = trained()
    model.eval()
    with pytest.warns(UserWarning, match="BatchNorm has running statistics of the training at y: recompute"):
        value(model, chunks, optimizer)
    optimizer.eval()
    value(model, chunks, optimizer)  # a warning would be an error


def test_the_metric_is_that_of_the_next_step_whose_gradient_is_taken_at_y(tmp_path):
    package = pytest.importorskip("schedulefree", reason="the extra schedulefree is not installed")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    chunks = [(torch.randn(12, 3, dtype=torch.float64), torch.randint(0, 3, (12,)))]
    optimizer = package.AdamWScheduleFree(model.parameters(), lr=0.1, betas=(0.5, 0.8))
    optimizer.train()
    walk(model, optimizer, chunks, 5)
    names = [name for name, _ in model.named_parameters()]

    def loss(*weights):
        outputs = torch.func.functional_call(model, dict(zip(names, weights, strict=True)), chunks[0][0])
        return LOSS(outputs, chunks[0][1])

    y = [p.detach().clone().requires_grad_() for p in model.parameters()]
    gradients = torch.autograd.grad(loss(*y), y)
    squares = [optimizer.state[p]["exp_avg_sq"] for p in model.parameters()]
    next_squares = [0.8 * v + 0.2 * g.square() for v, g in zip(squares, gradients, strict=True)]
    root = torch.cat([((v / (1 - 0.8**6)).sqrt() + 1e-8).reshape(-1) for v in next_squares]).rsqrt()
    with at_point(optimizer, "x"):
        blocks = torch.autograd.functional.hessian(
            loss, tuple(p.detach().clone() for p in model.parameters())
        )
    sizes = [p.numel() for p in model.parameters()]
    rows = [
        [b.reshape(n, m) for b, m in zip(row, sizes, strict=True)]
        for row, n in zip(blocks, sizes, strict=True)
    ]
    dense = torch.cat([torch.cat(row, 1) for row in rows])
    expected = torch.linalg.eigvalsh(root[:, None] * dense * root)[-1].item()

    reading = measure(model, LOSS, chunks, optimizer, views=["preconditioned"], rtol=1e-8)["preconditioned"]
    assert reading.value == pytest.approx(expected, rel=1e-7)
    options = {"views": ["preconditioned"], "rtol": 1e-8, "out": tmp_path / "run"}
    Recorder(model, optimizer, LOSS, chunks, **options).close()
    (record,) = read_run(tmp_path / "run").records
    assert record["views"]["preconditioned"]["value"] == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_before_the_first_step_there_is_a_threshold_in_either_mode(mode):
    package = pytest.importorskip("schedulefree", reason="the extra schedulefree is not installed")
    model, _, chunks = trained(0)
    optimizer = package.SGDScheduleFree(model.parameters(), lr=0.1)
    getattr(optimizer, mode)()
    assert value(model, chunks, optimizer).threshold == pytest.approx(2 / 0.1)  # c = 1: the newest z is x
    assert point_of(optimizer) == {"train": "y", "eval": "x"}[mode]


def test_a_run_has_the_metric_of_measure(tmp_path):
    run = wanted("AdamWScheduleFree", steps=4, every=4, rtol=1e-5)
    train(run, tmp_path / "run")
    objective, optimizer = (experiment := build_experiment(run)).objective, experiment.optimizer
    for step in range(4):
        objective.gradient(step)
        optimizer.step()
    chunk = objective.data.images(objective.data.x_train, torch.float32), objective.data.y_train
    (name,) = {"spherical-preconditioned"} & {*experiment.views}
    reading = measure(objective.model, objective.loss_fn, [chunk], optimizer, views=[name], rtol=1e-5)[name]
    record = read_run(tmp_path / "run").records[-1]["views"][name]
    assert record["value"] == pytest.approx(reading.value, rel=1e-3)
    assert record["threshold"] == pytest.approx(reading.threshold, rel=1e-6)


# --- Recorder ---------------------------------------------------------------------------------------------


def test_a_recorder_measures_at_x_and_changes_nothing_about_the_training(tmp_path):
    model, optimizer, chunks = trained(0)
    with Recorder(model, optimizer, LOSS, chunks, every=4, out=tmp_path / "run", views=["raw"]) as recorder:
        walk(model, optimizer, chunks, 8, recorder.step)
    other, _, _ = trained(8)
    assert torch.equal(weights(model), weights(other))
    last = read_run(tmp_path / "run").records[-1]
    assert last["point"] == read_run(tmp_path / "run").spec["point"] == "x"
    optimizer.eval()
    expected = value(model, chunks)
    assert last["views"]["raw"]["value"] == pytest.approx(expected.value, rel=2e-3)
    expected = LOSS(model(chunks[0][0]), chunks[0][1]).item()
    assert last["train_loss"] == pytest.approx(expected, rel=1e-9)
    assert last["weight_norm"] == pytest.approx(float(weights(model).norm()), rel=1e-9)


def test_a_recorder_at_y(tmp_path):
    model, optimizer, chunks = trained()
    options = {"every": 4, "views": ["raw"], "point": "y"}
    Recorder(model, optimizer, LOSS, chunks, out=tmp_path / "run", **options).close()
    (record,) = read_run(tmp_path / "run").records
    assert record["point"] == "y"
    assert record["weight_norm"] == pytest.approx(float(weights(model).norm()), rel=1e-9)


def test_a_step_in_the_wrong_mode_is_refused(tmp_path):
    model, optimizer, chunks = trained(2)
    recorder = Recorder(model, optimizer, LOSS, chunks, out=tmp_path / "run", views=["raw"])
    optimizer.eval()
    with pytest.raises(ValueError, match=r"ScheduleFree takes a step in evaluation mode, .*; call its train"):
        walk(model, optimizer, chunks, 1)
    optimizer.train()
    walk(model, optimizer, chunks, 1)
    recorder.close()
    optimizer.eval()
    walk(model, optimizer, chunks, 1)  # nobody watches it any more


def test_groups_in_both_modes_are_refused(tmp_path):
    model, optimizer, chunks = trained(2)
    optimizer.add_param_group({"params": [torch.ones(3, requires_grad=True)], "train_mode": False})
    says = "some parameter groups of ScheduleFree are in training mode, others .*; call its train"
    with pytest.raises(ValueError, match=says):
        value(model, chunks, optimizer)
    with pytest.raises(ValueError, match=says):
        Recorder(model, optimizer, LOSS, chunks, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# --- threshold --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("c", [1.0, 0.5, 0.01, 0.0])
@pytest.mark.parametrize("beta", [0.9, 0.5])
def test_the_threshold_is_where_the_step_matrix_of_x_and_z_has_the_eigenvalue_minus_one(c, beta):
    lr = 0.1
    threshold = MomentumUpdate(1.0, lr, 1 - c, 1 - beta, c * beta).threshold()
    assert threshold == pytest.approx(2 * (2 - c) / (lr * ((1 - beta) * (2 - c) + c * beta)), rel=1e-12)
    z = torch.tensor([1 - lr * threshold * (1 - beta), -lr * threshold * beta], dtype=torch.float64)
    x = torch.tensor([0.0, 1 - c], dtype=torch.float64) + c * z
    eigenvalues = torch.linalg.eigvals(torch.stack([z, x])).real
    assert float(eigenvalues.min()) == pytest.approx(-1, abs=1e-9)


@pytest.mark.parametrize(
    ("module", "name", "options"),
    [
        ("schedulefree", "SGDScheduleFree", {}),
        ("schedulefree", "SGDScheduleFree", {"warmup_steps": 20}),
        ("schedulefree", "SGDScheduleFree", {"warmup_steps": 20, "weight_lr_power": 1.0}),
        ("schedulefree", "SGDScheduleFree", {"r": 0.7}),
        ("schedulefree", "AdamWScheduleFree", {"r": 0.7, "warmup_steps": 20}),
        ("pytorch_optimizer", "ScheduleFreeSGD", {"r": 0.7, "warmup_steps": 20}),
        ("pytorch_optimizer", "ScheduleFreeAdamW", {"decoupling_c": 3}),
    ],
)
def test_the_share_of_the_newest_step_is_that_of_the_real_optimizer(module, name, options):
    """c from how far x goes to the new z in a real step, and the threshold of that c."""
    package = pytest.importorskip(module, reason=f"{module} is not installed")
    w = torch.ones(3, dtype=torch.float64, requires_grad=True)
    optimizer = getattr(package, name)([w], lr=0.1, **options)
    optimizer.train()
    for step in range(1, 30):
        w.grad = draw(3, seed=step)
        declared = geometry(optimizer).threshold
        with at_point(optimizer, "x"):
            before = w.detach().clone()
        optimizer.step()
        with at_point(optimizer, "x"):
            x, z = w.detach().clone(), optimizer.state[w]["z"]
        c = float((x - before).norm() / (z - before).norm())
        lr = 0.1 * min(1.0, step / options.get("warmup_steps", 1))
        expected = 2 * (2 - c) / (lr * (0.1 * (2 - c) + c * 0.9))
        assert declared == pytest.approx(expected, rel=1e-9)


# --- run --------------------------------------------------------------------------------------------------


def wanted(name="SGDScheduleFree", **options):
    pytest.importorskip("schedulefree", reason="the extra schedulefree is not installed")
    return spec(f"schedulefree:{name}", hyper={"lr": 0.5}, **options)


@pytest.mark.parametrize(("name", "batch_size"), [("SGDScheduleFree", None), ("AdamWScheduleFree", 10)])
def test_a_resumed_run_is_bitwise_the_uninterrupted_one(tmp_path, name, batch_size):
    run = wanted(name, batch_size=batch_size, steps=6)
    train(run, tmp_path / "whole")
    for n in (5, 31):  # between steps and in the middle of a measurement
        with pytest.raises(Stopped):
            train(run, tmp_path / "pieces", resume=True, stop=StopAfter(n))
    train(run, tmp_path / "pieces", resume=True)
    whole, pieces = (read_run(tmp_path / part).records for part in ("whole", "pieces"))
    assert [*map(untimed, whole)] == [*map(untimed, pieces)] and {r["point"] for r in whole} == {"x"}
    assert weights_hash(tmp_path / "whole") == weights_hash(tmp_path / "pieces")


def test_the_record_is_of_x_and_the_steps_go_on_from_y(tmp_path):
    run = wanted(steps=6, every=3)
    train(run, tmp_path / "x")
    train(run.model_copy(update={"point": "y"}), tmp_path / "y")
    experiment, norms = build_experiment(run), {"x": [], "y": []}
    objective, optimizer = experiment.objective, experiment.optimizer
    losses = []
    for step in range(7):
        objective.gradient(step)
        if step % 3 == 0:
            norms["y"].append(float(objective.space.weights().norm()))
            with at_point(optimizer, "x"):
                norms["x"].append(float(objective.space.weights().norm()))
                losses.append(objective.evaluate().test_loss)
        optimizer.step()
    for point, expected in norms.items():
        records = read_run(tmp_path / point).records
        assert [record["weight_norm"] for record in records] == pytest.approx(expected, rel=1e-6)
        assert [record["test_loss"] for record in records] == pytest.approx(losses, rel=1e-5)
        assert all(math.isfinite(record["views"]["spherical"]["ratio"]) for record in records)
    assert abs(norms["x"][-1] / norms["y"][-1] - 1) > 1e-4


AVERAGES = """
    def __init__(self, *a, **k):
        super().__init__(*a, **k)
        self.param_groups[0]["train_mode"] = False
    def train(self):
        self.param_groups[0]["train_mode"] = True
    def eval(self):
        self.param_groups[0]["train_mode"] = False
"""


@pytest.mark.parametrize("leaves", ["", "self.eval(); "])
def test_a_run_begins_in_training_mode_and_refuses_a_step_in_the_other_one(
    broken_plugin, capsys, tmp_path, leaves
):
    broken_plugin(broken(broken(GOOD, HYPER, HYPER + AVERAGES), UPDATE, leaves + UPDATE))
    words = "run --optimizer plain --model bn_mlp --limit 20 --steps 3 --every 3 --quiet --out".split()
    answer = optim_family(capsys, *words, tmp_path / "run")
    if leaves:
        assert answer.code == 6 and answer.err.count("\n") == 1
        says = "of test-plugin 1.5 failed in step(): ValueError: Plain takes a step in evaluation mode, where"
        assert says in answer.err
    else:
        assert (answer.code, answer.err) == (0, "")
        assert [record["point"] for record in read_run(tmp_path / "run").records] == ["x", "x"]


def test_a_checkpoint_holds_y_which_is_no_network_to_measure(tmp_path):
    run = wanted(steps=2)
    train(run, tmp_path / "run")
    (path,) = (tmp_path / "run" / "checkpoints").glob("*.safetensors")
    with pytest.raises(UsageError, match="at which a schedule-free optimizer computes gradients"):
        load_weights(build_experiment(run).objective.model, path, "bn_mlp")


def test_the_spectrum_of_a_checkpoint_is_at_the_measured_point(tmp_path):
    for point in ("x", "y"):
        train(wanted(steps=6, every=6, rtol=1e-4, point=point), tmp_path / point)
        _, spectrum = checkpoint_spectrum(tmp_path / point, ["layers"])
        assert spectrum["point"] == point
        expected = read_run(tmp_path / point).records[-1]["views"]["spherical"]["value"]
        assert spectrum["reading"]["value"] == pytest.approx(expected, rel=1e-3)


def test_the_update_that_a_record_describes_is_one_of_y(tmp_path):
    run = wanted(steps=3, every=3, along=True)
    train(run, tmp_path / "run")
    objective, optimizer = (experiment := build_experiment(run)).objective, experiment.optimizer
    path = []
    for step in range(3):
        objective.gradient(step)
        path.append(objective.space.weights().double())
        optimizer.step()
    before, after = path[-1], objective.space.weights().double()
    angle = torch.acos(before @ after / (before.norm() * after.norm())).item()
    assert read_run(tmp_path / "run").records[-1]["along"]["rotation"] == pytest.approx(angle, rel=1e-3)


def test_what_has_no_meaning_is_refused_in_one_line():
    with pytest.raises(UsageError, match="--point: the point y exists with schedule-free optimizers only"):
        build_experiment(spec(point="y"))
    with pytest.raises(
        UsageError, match="--midpoint removes an oscillation that the average x does not have"
    ):
        build_experiment(wanted(midpoint=True))
