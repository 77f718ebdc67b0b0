"""The card that does not exist refuses what a real one refuses: each mistake here is planted."""

import pytest
import torch
from torch import nn

from optim_family.curvature.precision import deterministic, find_nondeterministic
from optim_family.curvature.trace import trace
from optim_family.operators import Scalar
from optim_family.sharpness.midpoint import WeightHistory
from optim_family.training.evaluation import recomputing_statistics
from optim_family.training.objective import Objective
from tests.helpers.rehearsed_cuda import rehearsed_cuda
from tests.helpers.rehearsed_tensor import count_waits


@pytest.fixture(autouse=True)
def card():
    with rehearsed_cuda(cards=2):
        yield


def test_a_tensor_made_on_the_cpu(run, monkeypatch):
    real = Objective._loss
    monkeypatch.setattr(
        Objective, "_loss", lambda self, part: real(self, part) + torch.zeros(1).sum(0, True)[0:1]
    )
    with pytest.raises(RuntimeError, match="two devices, cuda:0 and cpu"):
        run("cuda", steps=1)


def test_a_generator_of_the_cpu(run, monkeypatch):
    monkeypatch.setattr(torch, "Generator", lambda device=None, made=torch.Generator: made("cpu"))
    with pytest.raises(RuntimeError, match="Expected a 'cuda' device type for generator but found 'cpu'"):
        trace(Scalar(3), torch.zeros(3, device="cuda"))


def test_weights_that_a_checkpoint_leaves_on_the_cpu(monkeypatch):
    history = WeightHistory()
    history.load_state_dict({"weights": torch.zeros(2, 3)})
    history.weights += [torch.zeros(3, device="cuda")]  # without what `push` does
    with pytest.raises(RuntimeError, match="two devices, cuda:0 and cpu"):
        history.midpoint  # noqa: B018
    history.weights.pop()
    history.push(torch.ones(3, device="cuda"))
    assert history.midpoint.tolist() == [0.25] * 3


def test_tensors_of_two_cards():
    with pytest.raises(RuntimeError, match="two devices, cuda:0 and cuda:1"):
        torch.ones(2, device="cuda:0") + torch.ones(2, device="cuda:1")


def test_batch_normalisation_without_a_weight():
    x = torch.ones(3, 2, device="cuda")
    masks = [True, True, True]
    with pytest.raises(RuntimeError, match="undefined tensor"):
        torch.ops.aten.native_batch_norm_backward(x, x, None, None, None, x[0], x[0], True, 0.0, masks)


def test_an_operation_without_a_deterministic_kernel_is_named():
    names: list[str] = []
    x = torch.ones(1, 1, 4, 4, device="cuda", requires_grad=True)
    with deterministic(), find_nondeterministic(names):
        nn.functional.adaptive_avg_pool2d(x, 3).sum().backward()
    assert names == ["_adaptive_avg_pool2d_backward_cuda"]
    assert not torch.are_deterministic_algorithms_enabled()


def test_numbers_read_on_the_host_are_counted_with_their_line():
    net = nn.BatchNorm1d(2).cuda()
    with recomputing_statistics(net), count_waits() as waits, torch.no_grad():
        net(torch.ones(3, 2, device="cuda"))
        assert waits.total == 0
        net.momentum = None  # torch then reads its counter of batches
        nn.BatchNorm1d.forward(net, torch.ones(3, 2, device="cuda"))
    assert waits.total == 1
    with pytest.raises(TypeError, match=r"Tensor\.cpu"):
        torch.ones(3, device="cuda").numpy()
