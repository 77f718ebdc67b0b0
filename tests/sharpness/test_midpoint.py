import pytest
import torch
from torch import Tensor, nn

from optim_family.curvature.chunked_loss import chunk_losses
from optim_family.curvature.hessian import Hessian
from optim_family.sharpness.midpoint import WeightHistory, midpoint, moved_to
from optim_family.sharpness.probe import Probe
from optim_family.space import ParameterSpace
from tests.helpers.operators_for_tests import draw


def trail(*weights: Tensor) -> WeightHistory:
    made = WeightHistory()
    for w in weights:
        made.push(w)
    return made


@pytest.mark.parametrize("t", [0, 1, 6])
def test_an_oscillation_of_period_two_and_a_constant_drift_leave_no_trace(t):
    phi, drift, amplitude = draw(5), draw(5, seed=1), draw(5, seed=2)
    before, now, after = (phi + s * drift + (-1) ** s * amplitude for s in (t - 1, t, t + 1))
    torch.testing.assert_close(midpoint(before, now, after), phi + t * drift, rtol=0, atol=1e-14)


def test_a_bend_of_the_path_moves_it_by_half_its_second_difference():
    """φ(t) = c t²: the mean of the neighbours lies c above."""
    c = draw(5)
    torch.testing.assert_close(midpoint(c * 1, c * 4, c * 9), 4 * c + c / 2, rtol=1e-14, atol=0)


def test_a_trail_keeps_the_last_three_and_is_a_copy():
    w = draw(4)
    points = trail(w)
    assert points.midpoint is None
    w.mul_(2)  # as an optimizer does
    points.push(w)
    assert points.midpoint is None
    assert torch.equal(points.weights[0], draw(4))
    for seed in (1, 2, 3):
        points.push(draw(4, seed=seed))
    assert torch.equal(points.midpoint, midpoint(*(draw(4, seed=seed) for seed in (1, 2, 3))))


@pytest.mark.parametrize("pushed", range(5))
def test_a_trail_resumes_where_another_stood(pushed):
    straight, resumed = trail(*(draw(4, seed=s) for s in range(pushed))), WeightHistory()
    resumed.load_state_dict(straight.state_dict())
    for step in range(3):
        for each in (straight, resumed):
            each.push(draw(4, seed=10 + step))
        a, b = straight.midpoint, resumed.midpoint
        assert (a is None) == (b is None) and (a is None or torch.equal(a, b))


def test_in_a_valley_the_iterate_reads_high_and_the_midpoint_reads_its_floor():
    """L = ½(1 + u²)x², x = ±a: H = [[1 + u², 2ux], [2ux, x²]], with 1 + u² at the floor alone."""
    u, a = 1.2, 0.4
    w = torch.tensor([a, u], dtype=torch.float64, requires_grad=True)
    space = ParameterSpace({"w": w})

    def reading() -> float:
        hessian = Hessian([lambda: 0.5 * (1 + w[1] ** 2) * w[0] ** 2], [w])
        return Probe("raw", rtol=1e-12)(hessian, space.weights()).value

    mirrored = torch.tensor([-a, u], dtype=torch.float64)
    points = trail(mirrored, w, mirrored)
    exact = torch.tensor([[1 + u**2, 2 * u * a], [2 * u * a, a**2]], dtype=torch.float64)
    assert reading() == pytest.approx(float(torch.linalg.eigvalsh(exact)[-1]), rel=1e-12)
    with moved_to(space, points.midpoint):
        assert reading() == pytest.approx(1 + u**2, rel=1e-12)
    assert reading() > 1.1 * (1 + u**2)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2))


@pytest.mark.parametrize("fails", [False, True])
def test_the_network_is_where_it_was_to_the_last_bit_whatever_happens(fails):
    model = network()
    space = ParameterSpace.of(model)
    space.tensors[0].data[0, 0] = -0.0
    space.tensors[0].data[0, 1] = 1e-42  # not normal
    before = {name: t.clone() for name, t in model.state_dict().items()}
    pointers = [t.data_ptr() for t in space.tensors]
    try:
        with moved_to(space, 1.7 * space.weights()) as weights:
            assert torch.equal(space.weights(), weights)
            assert not torch.equal(weights, torch.cat([before[n].reshape(-1) for n in space.names]))
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    for name, tensor in model.state_dict().items():
        bits, old = (t.reshape(-1).view(torch.uint8) for t in (tensor, before[name]))
        assert torch.equal(bits, old), name
    assert pointers == [t.data_ptr() for t in space.tensors]


def test_a_hessian_made_before_does_not_silently_speak_of_other_weights():
    model = network()
    space = ParameterSpace.of(model)
    losses = chunk_losses(model, nn.functional.mse_loss, [(draw(6, 3).float(), draw(6, 2).float())])
    hessian = Hessian(losses, space.tensors, "retained")
    hessian @ space.weights()
    with moved_to(space, 2 * space.weights()), pytest.raises(RuntimeError, match="modified by an inplace"):
        hessian @ space.weights()
