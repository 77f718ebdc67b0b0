"""Losses are read in blocks; a divergence has its own step, and nothing after it is recorded."""

import math

import pytest
import torch

from optim_family.optimizers.gd import GD
from optim_family.runs.run import read_run
from optim_family.training import loss_log
from optim_family.training.loop import train
from optim_family.training.loss_log import LossLog, NotFinite
from tests.helpers.training_runs import spec, untimed, weights_hash

DIVERGING = {"hyper": {"lr": 1e25, "weight_decay": 0.0}, "steps": 40, "every": 20, "norm": "none"}


@pytest.fixture
def blocks(monkeypatch):
    monkeypatch.setattr(loss_log, "STEPS_PER_READ", {"cpu": 10})


def run(folder, **changes):
    status = train(spec(**changes), folder)
    record = read_run(folder)
    return status, [untimed(r) for r in record.records], record.status["step"]


def test_losses_come_in_their_order_up_to_one_that_is_not_finite(blocks):
    log = LossLog(torch.device("cpu"))
    for step, loss in enumerate((1.0, 2.0, math.nan, 3.0)):
        log.append(step, step / 2, torch.tensor(loss))
    assert not log.is_full
    read = log.read()
    assert [next(read), next(read)] == [(0, 1.0), (1, 2.0)]
    with pytest.raises(NotFinite) as error:
        next(read)
    assert (error.value.step, error.value.tau) == (2, 1.0)
    assert not [*log.read()]


def test_a_run_is_the_same_in_blocks(tmp_path, request):
    changes = {"limit": 20, "steps": 7, "every": 3}
    one = run(tmp_path / "one", **changes)
    request.getfixturevalue("blocks")
    assert run(tmp_path / "blocks", **changes) == one
    assert weights_hash(tmp_path / "blocks") == weights_hash(tmp_path / "one")


def test_a_divergence_is_dated_to_its_step(tmp_path, request):
    one = status, records, step = run(tmp_path / "one", **DIVERGING)
    assert (status, step) == ("diverged", records[-1]["step"]) and 0 < step < 9
    request.getfixturevalue("blocks")
    assert run(tmp_path / "blocks", **DIVERGING) == one


def test_an_optimizer_that_fails_after_a_divergence_does_not_hide_it(tmp_path, blocks, monkeypatch):
    real = GD.update

    def update(self, w, grad, state, h):
        if not grad.isfinite().all():
            raise ArithmeticError("the gradient is not finite")
        real(self, w, grad, state, h)

    monkeypatch.setattr(GD, "update", update)
    assert run(tmp_path, **DIVERGING)[0] == "diverged"
