import json
from collections.abc import Sequence

import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from optim_family.curvature.chunked_loss import ChunkLoss, chunk_losses
from optim_family.curvature.hessian import Hessian
from optim_family.geometry import Decay, DiagonalMetric, Geometry, ScalarMetric
from optim_family.sharpness.batch_sharpness import batch_sharpness
from optim_family.sharpness.views import VIEWS, View
from optim_family.space import ParameterSpace, flatten
from tests.helpers.operators_for_tests import draw, rotated

D = 6


class Quadratics:
    """L_i(w) = ½ wᵀAᵢw − bᵢᵀw over two tensors; counts how often it is asked for a loss."""

    def __init__(self, count: int) -> None:
        self.params = [draw(2, 2, seed=9).requires_grad_(), draw(2, seed=8).requires_grad_()]
        self.matrices = [rotated([5.0, -1, 2, 0.3, 1, i], i) for i in range(count)]
        self.slopes = [draw(D, seed=100 + i) for i in range(count)]
        self.asked = 0

    @property
    def w(self) -> Tensor:
        return flatten(p.detach() for p in self.params)

    def loss(self, i: int, share: float = 1.0) -> ChunkLoss:
        def closure() -> Tensor:
            self.asked += 1
            w = flatten(self.params)
            return share * (0.5 * w @ self.matrices[i] @ w - self.slopes[i] @ w)

        return closure

    def quotient(self, *members: int) -> float:
        """gᵀAg / ‖g‖² of the mean over members, in closed form."""
        a = torch.stack([self.matrices[i] for i in members]).mean(0)
        g = a @ self.w - torch.stack([self.slopes[i] for i in members]).mean(0)
        return float(g @ a @ g / (g @ g))


def network() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    readout = nn.Linear(5, 2).requires_grad_(False)
    model = nn.Sequential(
        nn.Linear(4, 5, bias=False), nn.BatchNorm1d(5, affine=False, eps=1e-300), nn.Tanh(), readout
    )
    return model.double(), draw(24, 4), draw(24, 2, seed=1)


def batches_of(model: nn.Module, x: Tensor, y: Tensor, size: int) -> list[Sequence[ChunkLoss]]:
    return [chunk_losses(model, F.mse_loss, [b]) for b in zip(x.split(size), y.split(size), strict=True)]


# --- closed forms -----------------------------------------------------------------------------------------


def test_on_quadratics_it_is_the_mean_of_their_quotients():
    toy = Quadratics(5)
    sharpness = batch_sharpness([[toy.loss(i)] for i in range(5)], toy.params)
    exact = [toy.quotient(i) for i in range(5)]
    assert sharpness.quotients == pytest.approx(exact, rel=1e-12)
    assert sharpness.value == pytest.approx(sum(exact) / 5, rel=1e-12)


def test_a_mini_batch_of_several_chunks_is_one_loss():
    toy = Quadratics(4)
    chunks = [[toy.loss(0, 0.5), toy.loss(1, 0.5)], [toy.loss(2, 0.5), toy.loss(3, 0.5)]]
    sharpness = batch_sharpness(chunks, toy.params)
    assert sharpness.quotients == pytest.approx([toy.quotient(0, 1), toy.quotient(2, 3)], rel=1e-12)


def test_the_full_batch_alone_is_the_rayleigh_quotient_of_the_gradient_at_most_the_top_eigenvalue():
    model, x, y = network()
    space = ParameterSpace.of(model)
    losses = chunk_losses(model, F.mse_loss, [(x, y)])
    h = Hessian(losses, space.tensors).dense()
    g = flatten(torch.autograd.grad(losses[0](), space.tensors))
    sharpness = batch_sharpness([losses], space.tensors)
    assert sharpness.value == pytest.approx(float(g @ h @ g / (g @ g)), rel=1e-12)
    assert sharpness.value < float(torch.linalg.eigvalsh(h)[-1])
    assert sharpness.standard_error is None and sharpness.error is None


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
@pytest.mark.parametrize("n", [2, 3, 12])
def test_the_interval_is_students(n, confidence):
    toy = Quadratics(n)
    sharpness = batch_sharpness([[toy.loss(i)] for i in range(n)], toy.params, confidence=confidence)
    error = scipy.stats.sem(sharpness.quotients)
    assert sharpness.standard_error == pytest.approx(error, rel=1e-12)
    exact = scipy.stats.t.interval(confidence, n - 1, loc=sharpness.value, scale=error)
    assert (sharpness.value - sharpness.error, sharpness.value + sharpness.error) == pytest.approx(
        exact, rel=1e-9
    )


# --- views ------------------------------------------------------------------------------------------------


def preconditioned(toy: Quadratics, i: int, half: Tensor) -> float:
    """The quotient of L(P^{-1/2} u) at u = P^{1/2} w, by differentiating in u; `half` is P^{-1/2}."""
    u = torch.linalg.solve(half, toy.w).requires_grad_()
    w = half @ u
    (g,) = torch.autograd.grad(0.5 * w @ toy.matrices[i] @ w - toy.slopes[i] @ w, u, create_graph=True)
    (hg,) = torch.autograd.grad(g, u, g.detach())
    return float(g.detach() @ hg / (g.detach() @ g.detach()))


def test_in_a_metric_it_is_the_batch_sharpness_of_the_preconditioned_weights():
    toy, p = Quadratics(3), torch.linspace(0.2, 4.0, D, dtype=torch.float64)
    geometry = Geometry(DiagonalMetric(p), 7.0, Decay(0.0))
    sharpness = batch_sharpness(
        [[toy.loss(i)] for i in range(3)], toy.params, geometry, view="preconditioned"
    )
    exact = [preconditioned(toy, i, torch.diag(p**-0.5)) for i in range(3)]
    assert sharpness.quotients == pytest.approx(exact, rel=1e-10)
    assert (sharpness.threshold, sharpness.ratio) == (7.0, pytest.approx(sharpness.value / 7.0))


def test_several_factors_act_on_the_gradient_in_their_order():
    toy, p = Quadratics(2), torch.linspace(0.2, 4.0, D, dtype=torch.float64)
    view = View("both", tangent=True, preconditioned=True)
    sharpness = batch_sharpness(
        [[toy.loss(0)], [toy.loss(1)]], toy.params, Geometry(DiagonalMetric(p), 1.0, Decay(0.0)), view=view
    )
    half = torch.diag(p**-0.5)
    tangent = torch.eye(D, dtype=torch.float64) - torch.outer(toy.w, toy.w) / (toy.w @ toy.w)
    for i, quotient in enumerate(sharpness.quotients):
        g = half @ tangent @ (toy.matrices[i] @ toy.w - toy.slopes[i])
        a = half @ tangent @ toy.matrices[i] @ tangent @ half
        assert quotient == pytest.approx(float(g @ a @ g / (g @ g)), rel=1e-10)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_the_spherical_one_is_that_on_the_unit_sphere_and_knows_the_threshold_there(scale):
    model, x, y = network()
    space = ParameterSpace.of(model)
    direction = space.weights() / space.weights().norm()
    space.assign(direction)
    on_sphere = batch_sharpness(batches_of(model, x, y, 8), space.tensors)
    space.assign(scale * direction)
    geometry = Geometry(ScalarMetric(space.dim), 4.0, Decay(0.0))
    sharpness = batch_sharpness(batches_of(model, x, y, 8), space.tensors, geometry, view=VIEWS["spherical"])
    assert sharpness.quotients == pytest.approx(on_sphere.quotients, rel=1e-9)
    assert sharpness.threshold == pytest.approx(4.0 * scale**2)
    assert sharpness.ratio == pytest.approx(sharpness.value / sharpness.threshold)


def test_without_a_geometry_there_is_no_threshold_and_no_preconditioned_view():
    toy = Quadratics(2)
    sharpness = batch_sharpness([[toy.loss(0)], [toy.loss(1)]], toy.params)
    assert sharpness.threshold is None and sharpness.ratio is None
    with pytest.raises(ValueError, match="needs an optimizer with a known metric"):
        batch_sharpness([[toy.loss(0)]], toy.params, view="preconditioned")


# --- conduct ----------------------------------------------------------------------------------------------


def test_a_batch_costs_one_gradient_and_one_product():
    toy = Quadratics(3)
    sharpness = batch_sharpness([[toy.loss(i)] for i in range(3)], toy.params)
    assert sharpness.products == 3
    assert toy.asked == 6  # once for the gradient, once for the graph that the product needs
    assert sharpness.seconds > 0


def test_batches_may_come_one_at_a_time():
    toy = Quadratics(3)
    sharpness = batch_sharpness(([toy.loss(i)] for i in range(3)), toy.params)
    assert sharpness.quotients == pytest.approx([toy.quotient(i) for i in range(3)])


def test_nothing_about_the_model_changes_and_gradients_need_not_be_enabled():
    model, x, y = network()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    batches = batches_of(model, x, y, 8)
    with torch.no_grad():
        sharpness = batch_sharpness(batches, ParameterSpace.of(model).tensors)
    assert sharpness.quotients == batch_sharpness(batches, ParameterSpace.of(model).tensors).quotients
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters()) and model.training


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_a_batch_whose_gradient_has_no_direction_is_named(bad):
    toy = Quadratics(3)
    with pytest.raises(FloatingPointError, match="gradient of batch 1 is zero or not finite"):
        batch_sharpness([[toy.loss(0)], [toy.loss(1, bad)], [toy.loss(2)]], toy.params)


def test_no_batch_is_refused():
    with pytest.raises(ValueError, match="gave no mini-batch"):
        batch_sharpness([], Quadratics(1).params)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95])
def test_a_confidence_lies_between_0_and_1(confidence):
    with pytest.raises(ValueError, match=f"between 0 and 1; got {confidence}"):
        batch_sharpness([], Quadratics(1).params, confidence=confidence)


def test_a_record_is_json_with_all_the_evidence():
    toy = Quadratics(3)
    sharpness = batch_sharpness([[toy.loss(i)] for i in range(3)], toy.params)
    record = json.loads(json.dumps(sharpness.as_record()))
    assert record["quotients"] == list(sharpness.quotients) and record["error"] == sharpness.error > 0
    assert record["confidence"] == 0.95 and record["products"] == 3


@pytest.mark.parametrize("beta", [0.0, 0.9])
def test_momentum_has_a_plateau_of_small_batches_too(beta: float) -> None:
    problem = Quadratics(3)
    geometry = Geometry(ScalarMetric(D), 2 * (1 + beta) / 0.1, Decay(0.0), momentum=beta)
    batches = [[problem.loss(i)] for i in range(3)]
    record = batch_sharpness(batches, problem.params, geometry, view="spherical").as_record()
    if not beta:
        assert "small_batch_threshold" not in record
        return
    assert record["threshold"] / record["small_batch_threshold"] == pytest.approx(19)
    assert record["small_batch_ratio"] == pytest.approx(record["value"] / record["small_batch_threshold"])
    assert record["small_batch_ratio"] / record["ratio"] == pytest.approx(19)
