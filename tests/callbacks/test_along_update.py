"""`run --along` and `Recorder(along=True)`."""

import json
from contextlib import suppress

import pytest
import torch
from torch import nn

from optim_family import Recorder
from optim_family.errors import Stopped
from optim_family.runs.run import read_run
from optim_family.training.loop import train
from tests.helpers.broken_plugin import GEOMETRY, GOOD, HYPER, broken
from tests.helpers.cli_runner import optim_family
from tests.helpers.operators_for_tests import draw
from tests.helpers.training_runs import StopAfter, spec

X, Y = draw(32, 4, seed=1).float(), draw(32, 1, seed=2).float()


@pytest.fixture(autouse=True)
def same_weights():
    """An update of some random networks does not descend, and has no critical sharpness."""
    torch.manual_seed(0)


class NoSecondDerivative(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0].cos()


class Fused(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 5), nn.Linear(5, 1)

    def forward(self, x):
        return self.last(NoSecondDerivative.apply(self.first(x)))


def trained(path, model, *, steps=4, tamper=False, make=torch.optim.AdamW, **options):
    optimizer = make(model.parameters(), lr=0.05)
    loss_fn = nn.functional.mse_loss
    with Recorder(model, optimizer, loss_fn, [(X, Y)], every=2, out=path, along=True, **options) as recorder:
        for _ in range(steps):
            optimizer.zero_grad()
            loss_fn(model(X), Y).backward()
            optimizer.step()
            if tamper:
                with torch.no_grad():
                    model.last.weight.mul_(1.01)
            recorder.step()
    return read_run(path)


def test_a_model_without_second_derivatives_has_a_critical_sharpness(tmp_path):
    run = trained(tmp_path / "a", Fused(), views=[])
    first, *later = run.records
    assert "along" not in first and run.status["status"] == "done" and len(later) == 2
    for record in later:
        assert record["views"] == {} and record["along"]["curvature"] is None
        assert record["along"]["critical"] > 0 and record["along"]["rotation"] > 0
        assert (record["along"]["critical_ratio"] < 1) == (record["along"]["loss_change"] < 0)


def test_beside_views_the_curvature_is_measured_too(tmp_path):
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1))
    (record, *_) = trained(tmp_path / "a", model).records[1:]
    assert record["along"]["curvature"] is not None
    assert record["along"]["curvature"] <= record["views"]["raw"]["value"] * 1.5


def test_gradient_descent_has_its_quadratic_closed_form(tmp_path):
    torch.manual_seed(0)
    model = nn.Linear(4, 1).double()
    x, y = X.double(), Y.double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Recorder(
        model, optimizer, nn.functional.mse_loss, [(x, y)], every=1, out=tmp_path / "a", along=True
    ) as recorder:
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
        recorder.step()
    along = read_run(tmp_path / "a").records[1]["along"]
    assert along["smoothness"] == pytest.approx(along["curvature"], rel=1e-9)
    assert along["critical"] == pytest.approx(along["curvature"], rel=0.01)  # Δ = g


def test_weights_that_change_outside_the_step_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"changed since optimizer\.step\(\)"):
        trained(tmp_path / "a", Fused(), views=[], tamper=True)


@pytest.mark.parametrize("every", [1, 2])
def test_a_step_that_a_scaler_skips_leaves_a_record_without_an_update(every, tmp_path):
    """A GradScaler skips optimizer.step() where a gradient overflows: the last update is an older one."""
    model = Fused()
    optimizer, scaler = torch.optim.SGD(model.parameters(), lr=0.05), torch.amp.GradScaler("cpu")
    options = {"every": every, "along": True, "views": [], "out": tmp_path / "a"}
    with Recorder(model, optimizer, nn.functional.mse_loss, [(X, Y)], **options) as recorder:
        for step in range(1, 7):
            optimizer.zero_grad()
            scaler.scale(nn.functional.mse_loss(model(X), Y)).backward()
            if step == 4:
                model.last.weight.grad.fill_(torch.inf)
            scaler.step(optimizer)
            scaler.update()
            recorder.step()
    steps = {record["step"] for record in read_run(tmp_path / "a").records if "along" in record}
    assert steps == {*range(every, 7, every)} - {4}


@pytest.mark.parametrize("every", [1, 2])
def test_run_records_it_and_a_resumed_run_has_the_same(every, tmp_path):
    wanted = spec(steps=4, every=every, along=True)
    train(wanted, tmp_path / "whole")
    for n in (2, 12, 12):
        with suppress(Stopped):
            train(wanted, tmp_path / "parts", resume=True, stop=StopAfter(n))
    train(wanted, tmp_path / "parts", resume=True)
    logs = [
        [json.dumps(record.get("along")) for record in read_run(tmp_path / name).records]
        for name in ("whole", "parts")
    ]
    assert logs[0] == logs[1] and len(logs[0]) == 4 // every + 1 and logs[0][1] != "null"


LATER = "        self.calls = getattr(self, 'calls', 0) + 1\n"
MOVES = LATER + "        if self.calls == 3:\n            self.weights[0].data.mul_(1.01)\n"
HIDES = (
    HYPER
    + """
    def __init__(self, *a, **k):
        super().__init__(*a, **k)
        step = type(self).step.__wrapped__
        self.step = lambda closure=None: step(self, closure)
"""
)


@pytest.mark.parametrize("every", ["1", "2"])
@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (GEOMETRY, MOVES + GEOMETRY, "moves the weights outside step(); move them in it"),
        (HYPER, HIDES, "replaces step() in its objects, where no hook sees it; define step() in the class"),
    ],
)
def test_an_update_that_cannot_be_seen_is_refused_in_one_line(
    broken_plugin, capsys, tmp_path, old, new, says, every
):
    broken_plugin(broken(GOOD, old, new))
    words = f"run --optimizer plain --model bn_mlp --limit 20 --steps 4 --every {every} --quiet --out".split()
    answer = optim_family(capsys, *words, tmp_path / "along", "--along")
    line = f"optim-family: optimizer 'plain' of test-plugin 1.5 {says}, or leave out --along\n"
    assert (answer.code, answer.out, answer.err) == (6, "", line)
    assert read_run(tmp_path / "along").status["status"] == "failed"
    assert optim_family(capsys, *words, tmp_path / "without").code == 0


def test_the_option_is_one_of_run(capsys, tmp_path):
    out = str(tmp_path / "a")
    words = "run --optimizer signgd --model bn_mlp --limit 20 --steps 2 --every 1 --view raw --along --quiet"
    optim_family(capsys, *words.split(), "--out", out)
    assert read_run(tmp_path / "a").records[-1]["along"]["forward_passes"] > 2
