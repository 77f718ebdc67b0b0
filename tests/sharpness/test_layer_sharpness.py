import pytest
import torch
from torch import Tensor, nn

from optim_family.curvature.chunked_loss import chunk_losses
from optim_family.curvature.hessian import Hessian
from optim_family.geometry import Decay, DiagonalMetric, Geometry, ScalarMetric
from optim_family.operators import Matrix
from optim_family.sharpness.layer_sharpness import DiagonalBlock, layer_sharpness, layers
from optim_family.sharpness.probe import Probe, view_operator
from optim_family.sharpness.probe_set import ProbeSet
from optim_family.sharpness.views import VIEWS
from optim_family.space import ParameterSpace
from tests.helpers.operators_for_tests import Counting, Sloping, draw, rotated

SHAPES = {
    "stem.weight": (2, 3),
    "stem.bias": (2,),
    "stage.0.conv.weight": (3, 2),
    "stage.1.conv.weight": (4,),
}
D = 18


@pytest.fixture
def space() -> ParameterSpace:
    return ParameterSpace({name: draw(*shape, seed=i) for i, (name, shape) in enumerate(SHAPES.items())})


def matrix(seed: int = 0) -> Tensor:
    return rotated([9.0, -12.0, 5.0, *(i / 10 for i in range(D - 3))], seed)


def tops(whole: Tensor, parts_of: dict[str, list[slice]]) -> dict[str, float]:
    """λ₁ of every diagonal block, by dense algebra."""
    index = {name: torch.cat([torch.arange(D)[part] for part in parts]) for name, parts in parts_of.items()}
    return {name: float(torch.linalg.eigvalsh(whole[i][:, i])[-1]) for name, i in index.items()}


# --- blocks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [[slice(0, 4)], [slice(2, 3)], [slice(0, 2), slice(5, 9)], [slice(0, D)]])
def test_a_block_is_the_submatrix_and_takes_one_product(parts):
    whole = Counting(Matrix(matrix()))
    block, index = DiagonalBlock(whole, parts), torch.cat([torch.arange(D)[part] for part in parts])
    assert torch.equal(block.dense(), matrix()[index][:, index])
    assert whole.count == block.dim == len(index)
    v = draw(D)
    assert torch.equal(block.restrict(v), v[index])
    gradient = DiagonalBlock(Sloping(whole, v), parts).gradient()
    assert gradient is not None and torch.equal(gradient, v[index]) and block.gradient() is None


def test_layers_are_tensors_or_share_the_beginning_of_their_names(space):
    assert list(layers(space)) == list(SHAPES)
    assert layers(space, 1) == {"stem": [slice(0, 6), slice(6, 8)], "stage": [slice(8, 14), slice(14, 18)]}
    assert list(layers(space, 2)) == ["stem.weight", "stem.bias", "stage.0", "stage.1"]
    assert list(layers(space, 9)) == list(SHAPES)


@pytest.mark.parametrize("depth", [0, -1])
def test_a_layer_without_a_name_is_refused(space, depth):
    with pytest.raises(ValueError, match=f"got the depth {depth}"):
        layers(space, depth)


# --- values -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [None, 1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_every_layer_has_the_top_eigenvalue_of_its_block_at_most_that_of_the_whole(space, depth, seed):
    readings = layer_sharpness(Matrix(matrix(seed)), space, depth=depth, rtol=1e-9)
    exact = tops(matrix(seed), layers(space, depth))
    assert list(readings) == list(exact)
    assert {name: r.value for name, r in readings.items()} == pytest.approx(exact, rel=1e-8)
    assert all(r.value <= 9.0 + 1e-12 and r.converged for r in readings.values())


def test_layers_that_do_not_interact_share_the_top_eigenvalue_out(space):
    blocks = torch.block_diag(*[rotated(torch.arange(1.0, n + 1) * (-1) ** n, n) for n in (6, 2, 6, 4)])
    readings = layer_sharpness(Matrix(blocks), space, rtol=1e-9)
    assert max(r.value for r in readings.values()) == pytest.approx(6.0, rel=1e-9)
    assert float(torch.linalg.eigvalsh(blocks)[-1]) == pytest.approx(6.0, rel=1e-12)


def test_of_a_network_they_are_the_hessians_of_each_tensor_by_itself():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    losses = chunk_losses(model, nn.functional.mse_loss, [(draw(8, 3), draw(8, 2, seed=1))])
    space = ParameterSpace.of(model)
    readings = layer_sharpness(Hessian(losses, space.tensors), space, rtol=1e-9)
    for name, tensor in zip(space.names, space.tensors, strict=True):
        alone = torch.linalg.eigvalsh(Hessian(losses, [tensor]).dense())
        assert readings[name].value == pytest.approx(float(alone[-1]), rel=1e-8)


@pytest.mark.parametrize("name", [name for name, view in VIEWS.items() if not view.generalized])
def test_every_view_shares_out_its_own_operator_and_keeps_its_threshold(space, name):
    p, w = torch.linspace(0.3, 5.0, D, dtype=torch.float64), space.weights()
    geometry = Geometry(DiagonalMetric(p), 2.0, Decay(0.0))
    whole = view_operator(VIEWS[name], Matrix(matrix()), w, geometry).dense()
    scale = float(w @ w) if VIEWS[name].spherical else 1.0
    readings = layer_sharpness(Matrix(matrix()), space, geometry, view=name, rtol=1e-9)
    exact = {layer: scale * top for layer, top in tops(whole, layers(space)).items()}
    assert {layer: r.value for layer, r in readings.items()} == pytest.approx(exact, rel=1e-8)
    reading = ProbeSet([name])(Matrix(matrix()), w, geometry)[name]
    assert all(
        r.threshold == reading.threshold and r.value <= reading.value + 1e-9 for r in readings.values()
    )


def test_the_rounding_of_a_layer_is_that_of_its_own_entries_of_the_metric(space):
    rounding = torch.cat([torch.full((t.numel(),), 0.1 * i) for i, t in enumerate(space.tensors, 1)]).double()
    geometry = Geometry(DiagonalMetric(torch.ones(D).double(), rounding), 2.0, Decay(0.0))
    readings = layer_sharpness(Matrix(matrix()), space, geometry, view="preconditioned")
    assert [r.rounding for r in readings.values()] == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_ratios_are_to_the_threshold_of_all_weights(space):
    geometry = Geometry(ScalarMetric(D), 3.0, Decay(0.0))
    readings = layer_sharpness(Matrix(matrix()), space, geometry, view=VIEWS["spherical"])
    rho2 = float(space.weights().square().sum())
    for reading in readings.values():
        assert reading.threshold == pytest.approx(3.0 * rho2)
        assert reading.ratio == pytest.approx(reading.value / reading.threshold)


def test_options_reach_the_search(space):
    readings = layer_sharpness(Matrix(matrix()), space, k=2)
    assert all(len(reading.top) == 2 for reading in readings.values())
    assert not any(r.converged for r in layer_sharpness(Matrix(matrix()), space, max_products=1).values())


def test_a_layer_is_measured_as_its_block_by_itself(space):
    readings, w = layer_sharpness(Matrix(matrix()), space, rtol=1e-6), space.weights()
    for name, parts in layers(space).items():
        block = DiagonalBlock(Matrix(matrix()), parts)
        assert readings[name].value == Probe("raw", rtol=1e-6)(block, block.restrict(w)).value
