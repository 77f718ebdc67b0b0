"""What docs/comparison.md says of other packages, tried on a network with BatchNorm in training mode."""

import numpy as np
import pytest
import torch
from torch import nn

from optim_family import measure

LOSS = nn.MSELoss()


def network(*, running: bool = True) -> nn.Module:
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(8, track_running_stats=running)
    return nn.Sequential(nn.Linear(6, 8), norm, nn.Tanh(), nn.Linear(8, 3)).double()


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(32, n, generator=generator, dtype=torch.float64) for n in (6, 3))


def dense(model, x, y):
    """The Hessian [d, d] by double backward."""
    weights = [*model.parameters()]
    gradient = torch.autograd.grad(LOSS(model(x), y), weights, create_graph=True)
    rows = [
        torch.autograd.grad(g, weights, retain_graph=True) for g in torch.cat([*map(torch.flatten, gradient)])
    ]
    return torch.stack([torch.cat([*map(torch.flatten, row)]) for row in rows])


def minus(output, target):
    """A loss whose most negative eigenvalue is the largest in magnitude."""
    return -LOSS(output, target)


def steps_of_batch_norm(model):
    return int(model[1].num_batches_tracked)


def test_ours_is_the_loss_of_training_mode_and_moves_no_buffer(data):
    model, expected = network(), torch.linalg.eigvalsh(dense(network(), *data))[-1].item()
    assert measure(model, LOSS, [data])["raw"].value == pytest.approx(expected, rel=1e-3)
    assert steps_of_batch_norm(model) == 0 and model.training


@pytest.mark.filterwarnings("ignore")
def test_pyhessian_leaves_training_mode_and_has_no_density(data):
    package = pytest.importorskip("pyhessian")
    model, (x, y) = network().float(), (part.float() for part in data)
    batch = x, y
    hessian = package.hessian(model, LOSS, data=batch, cuda=False)
    assert not model.training
    value = hessian.eigenvalues()[0][0]
    evaluated = torch.linalg.eigvalsh(dense(network().eval(), *data))
    assert value == pytest.approx(float(evaluated[evaluated.abs().argmax()]), rel=0.02)
    assert (
        package.hessian(model, minus, data=batch, cuda=False).eigenvalues()[0][0] < 0
    )  # largest in magnitude
    with pytest.raises(RuntimeError, match="is now removed"):
        hessian.density(iter=3)


@pytest.mark.filterwarnings("ignore")
def test_curvlinops_refuses_running_statistics_and_is_wrong_without_them(data):
    package = pytest.importorskip("curvlinops")
    model = network()
    with pytest.raises(RuntimeError, match="in-place operation"):
        package.HessianLinearOperator(model, LOSS, [*model.parameters()], [data])
    model = network(running=False)
    operator = package.HessianLinearOperator(
        model, LOSS, [*model.parameters()], [data], check_deterministic=False
    )
    true = dense(model, *data)
    error = operator @ torch.eye(len(true), dtype=true.dtype) - true
    if error.norm() < 1e-6 * true.norm():
        pytest.skip("this torch has mended jvp(jacrev) through BatchNorm: change docs/comparison.md")
    assert error.norm() > 0.01 * true.norm()


@pytest.mark.filterwarnings("ignore")
def test_hessian_eigenthings_moves_the_statistics_and_weights_batches_equally(data):
    package = pytest.importorskip("hessian_eigenthings")
    model, (x, y) = network(), data
    operator = package.HessianOperator(model, [data], package.supervised_loss(LOSS))
    true = dense(network(), x, y)
    v = torch.from_numpy(np.random.default_rng(0).standard_normal(len(true)))
    assert torch.allclose(operator.matvec(v), true @ v)
    assert steps_of_batch_norm(model) == 1
    negative = package.HessianOperator(network(), [data], package.supervised_loss(minus))
    assert package.lanczos(negative, k=1, max_iter=40, seed=0).eigenvalues[0] < 0  # largest in magnitude
    assert package.lanczos(negative, k=1, max_iter=40, seed=0, which="LA").eigenvalues[0] > 0
    unequal = [(x[:24], y[:24]), (x[24:], y[24:])]
    product = package.HessianOperator(network(), unequal, package.supervised_loss(LOSS)).matvec(v)
    halves = [dense(network(), *part) @ v for part in unequal]
    assert torch.allclose(product, sum(halves) / 2) and not torch.allclose(
        product, halves[0] * 0.75 + halves[1] / 4
    )
