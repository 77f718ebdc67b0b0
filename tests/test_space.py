import pytest
import torch
from torch import nn

from optim_family.space import BLOCK, ParameterSpace, flatten, norm, unflatten


class Odd(nn.Module):
    """A matrix, a scalar, a frozen tensor, and a tensor that is used under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3, bias=False)
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.frozen = nn.Parameter(torch.ones(4), requires_grad=False)
        self.again = nn.Linear(3, 3, bias=False)
        self.again.weight = self.first.weight
        self.bias = nn.Parameter(torch.arange(2.0))


def test_flatten_and_unflatten_are_inverse_for_any_shapes() -> None:
    tensors = [torch.randn(2, 3), torch.randn(()), torch.randn(4), torch.randn(0, 5), torch.randn(1, 1, 2)]
    back = unflatten(flatten(tensors), tensors)
    assert [t.shape for t in back] == [t.shape for t in tensors]
    assert all(map(torch.equal, back, tensors))


def test_flatten_keeps_the_logical_order_whatever_the_memory_format() -> None:
    weight = torch.randn(2, 3, 4, 4)
    assert torch.equal(flatten([weight.to(memory_format=torch.channels_last)]), weight.reshape(-1))
    assert torch.equal(flatten([torch.arange(6.0).view(2, 3).T]), torch.tensor([0.0, 3, 1, 4, 2, 5]))


def test_unflatten_gives_views_so_that_writing_to_one_writes_to_the_vector() -> None:
    vector = torch.zeros(5)
    unflatten(vector, [torch.empty(2), torch.empty(3)])[1].fill_(7.0)
    assert torch.equal(vector, torch.tensor([0.0, 0, 7, 7, 7]))


def test_a_vector_of_the_wrong_length_does_not_fit() -> None:
    with pytest.raises(RuntimeError):
        unflatten(torch.zeros(6), [torch.empty(2), torch.empty(3)])


def test_the_space_of_a_module_holds_trained_tensors_once_each_in_order() -> None:
    model = Odd()
    space = ParameterSpace.of(model)
    assert space.names == ("scale", "bias", "first.weight")
    assert space.tensors[2] is model.first.weight is model.again.weight
    assert space.dim == 1 + 2 + 9


def test_weights_are_a_copy_and_assign_moves_the_module_to_them() -> None:
    model = Odd()
    space = ParameterSpace.of(model)
    before = space.weights()
    space.assign(2 * before)
    assert torch.equal(before, space.weights() / 2)
    assert not space.weights().requires_grad
    assert model.scale.item() == 4.0
    assert torch.equal(model.frozen, torch.ones(4))
    assert model.scale.requires_grad and model.scale.is_leaf


def test_the_gradient_is_zero_where_there_is_none_and_a_copy_elsewhere() -> None:
    model = Odd()
    space = ParameterSpace.of(model)
    model.bias.grad = torch.tensor([5.0, 6.0])
    gradient = space.gradient()
    gradient.mul_(2)
    assert torch.equal(space.gradient(), torch.cat([torch.tensor([0.0, 5, 6]), torch.zeros(9)]))
    assert model.scale.grad is None


def test_a_space_of_one_tensor_copies_too() -> None:
    model = nn.Linear(2, 1, bias=False)
    space = ParameterSpace.of(model)
    space.weights().zero_()
    assert model.weight.abs().sum() > 0


def test_a_module_without_trained_tensors_is_refused_by_name() -> None:
    model = nn.Linear(2, 1).requires_grad_(False)
    with pytest.raises(ValueError, match="Linear has no parameter that requires a gradient"):
        ParameterSpace.of(model)


@pytest.mark.parametrize("length", [1, 7, BLOCK, 3 * BLOCK + 5])
@pytest.mark.parametrize("size", [1e-25, 1.0, 1e25])
def test_the_norm_of_any_length_and_size(length: int, size: float) -> None:
    vector = size * torch.randn(length, generator=torch.Generator().manual_seed(0))
    assert float(norm(vector)) == pytest.approx(
        float(vector.double().square().sum().sqrt()), rel=1e-12, abs=0
    )
