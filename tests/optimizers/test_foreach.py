"""On a GPU the built-in optimizers update all tensors at once; the loop over `update` is the reference."""

import pytest
import torch

from optim_family import registry
from optim_family.optimizers import base
from optim_family.optimizers.base import FamilyOptimizer
from optim_family.optimizers.gd import GD

CASES = [
    ("gd", {}),
    ("gd", {"momentum": 0.9}),
    ("sgd", {"momentum": 0.9}),
    ("sgd", {"momentum": 0.9, "nesterov": True}),
    ("rmsprop", {}),
    ("rmsprop", {"preconditioning": "raw", "beta2": 1.0}),
    ("rmsprop", {"moment": "scalar"}),
    ("rmsprop", {"norm": "tensor"}),
    ("adamw", {}),
    ("adamw", {"beta1": 0.0, "beta2": 1.0, "eps": 0.1}),
    ("signgd", {"weight_decay": 0.1}),
    ("lion", {"weight_decay": 0.1}),
    ("lion", {"beta1": 0.0}),
    ("muon", {"weight_decay": 0.1}),
    ("muon", {"nesterov": False}),
    ("muon:signgd", {"momentum": 0.0, "polar": "svd"}),
]


def trajectory(name, values, dtype):
    """Weights and state after each of four steps; one tensor gets its first gradient in the third."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((4, 3), (5,), (2, 1, 3))
    weights = [torch.randn(s, generator=generator, dtype=dtype).requires_grad_() for s in shapes]
    optimizer, seen = registry.load(name)(weights, **values), []
    for step in range(4):
        for i, w in enumerate(weights):
            gradient = torch.randn(w.shape, generator=generator, dtype=dtype)
            w.grad = None if i == 1 and step < 2 else gradient
        optimizer.step()
        seen += [w.detach().clone() for w in weights]
        seen += [torch.as_tensor(x).clone() for w in weights for _, x in sorted(optimizer.state[w].items())]
    return seen


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("name", "values"), CASES, ids=str)
def test_all_at_once_is_one_by_one_to_the_last_bit(name, values, dtype, monkeypatch):
    loop = trajectory(name, values, dtype)
    monkeypatch.setattr(base, "_shares_kernels", bool)  # not for an inner optimizer without gradients
    own = registry.load(name).update_all
    assert own is not FamilyOptimizer.update_all
    at_once = trajectory(name, values, dtype)
    assert len(at_once) == len(loop) and all(map(torch.equal, at_once, loop))


def test_tensors_of_one_format_on_a_gpu_are_updated_at_once():
    class Card:
        dtype, device, is_cuda = torch.float32, "cuda:0", True

    assert base._shares_kernels([Card(), Card()])
    assert not base._shares_kernels([torch.ones(1)]) and not base._shares_kernels([])
    other = Card()
    other.dtype = torch.float64
    assert not base._shares_kernels([Card(), other])


def test_a_class_with_an_update_of_its_own_does_not_inherit_the_kernels_of_another():
    class Own(GD):
        def update(self, w, grad, state, h):
            w.zero_()

    assert Own.update_all is FamilyOptimizer.update_all is not GD.update_all
    w = torch.ones(2, requires_grad=True)
    w.grad = torch.ones(2)
    Own([w]).move(at_once=True)
    assert w.tolist() == [0, 0]
