import dataclasses
import functools
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from optim_family.curvature import krylov, sampled_lanczos
from optim_family.curvature.chunked_loss import chunk_losses
from optim_family.curvature.hessian import Hessian
from optim_family.curvature.lanczos import Eigenpairs
from optim_family.geometry import Decay, DiagonalMetric, Geometry, Metric, ScalarMetric
from optim_family.operators import Diagonal, Matrix
from optim_family.sharpness import probe as sharpness
from optim_family.sharpness.probe import Probe, Reading, view_operator
from optim_family.sharpness.probe_set import ProbeSet
from optim_family.sharpness.views import VIEWS, View
from optim_family.space import ParameterSpace, flatten
from tests.helpers.operators_for_tests import Counting, Sloping, SumOfMatrices, draw, rotated, top_eigenvalue

D, TIGHT = 9, 1e-11


H = draw(D, D) + draw(D, D).T
W = 3.0 * draw(D, seed=1)
P = draw(D, seed=2).abs() + 0.1
THETA = W / W.norm()
TANGENT = torch.eye(D, dtype=torch.float64) - torch.outer(THETA, THETA)
HALF = torch.diag(P**-0.5)
RHO2 = float(W @ W)


def geometry(metric: Metric, threshold: float = 20.0) -> Geometry:
    return Geometry(metric, threshold, Decay(0.0))


def untimed(reading: Reading) -> Reading:
    return dataclasses.replace(reading, seconds=0.0)


# --- five views against dense algebra ---------------------------------------------------------------------

DENSE = {
    "raw": H,
    "spherical": RHO2 * H,
    "riemannian": RHO2 * TANGENT @ H @ TANGENT,
    "preconditioned": HALF @ H @ HALF,
    "spherical-preconditioned": RHO2 * HALF @ H @ HALF,
}


def test_five_views_are_eigenvalues_and_one_is_a_maximum_over_a_norm() -> None:
    assert [name for name, view in VIEWS.items() if not view.generalized] == list(DENSE)
    assert list(VIEWS) == [*DENSE, "generalized"]
    assert all(view.name == name for name, view in VIEWS.items())


@pytest.mark.parametrize("name", DENSE)
def test_a_view_is_the_top_eigenvalue_of_its_dense_matrix(name: str) -> None:
    reading = Probe(name, rtol=TIGHT)(Matrix(H), W, geometry(DiagonalMetric(P)))
    assert reading.converged
    assert reading.value == pytest.approx(top_eigenvalue(DENSE[name]), rel=1e-9)
    assert abs(reading.value - top_eigenvalue(DENSE[name])) <= reading.error + 1e-13 * reading.value


@pytest.mark.parametrize("name", DENSE)
def test_the_top_of_a_view_is_the_top_of_its_dense_spectrum(name: str) -> None:
    reading = Probe(name, rtol=TIGHT, k=4)(Matrix(H), W, geometry(DiagonalMetric(P)))
    assert reading.top == pytest.approx(torch.linalg.eigvalsh(DENSE[name]).flip(0)[:4].tolist(), rel=1e-9)
    assert reading.value == reading.top[0]


def test_a_view_with_all_factors_puts_the_metric_outermost() -> None:
    view = View("all", spherical=True, tangent=True, preconditioned=True)
    reading = Probe(view, rtol=TIGHT)(Matrix(H), W, geometry(DiagonalMetric(P)))
    assert reading.value == pytest.approx(
        top_eigenvalue(RHO2 * HALF @ TANGENT @ H @ TANGENT @ HALF), rel=1e-9
    )
    assert reading.value != pytest.approx(
        top_eigenvalue(RHO2 * TANGENT @ HALF @ H @ HALF @ TANGENT), rel=1e-3
    )


def test_the_most_positive_eigenvalue_is_meant_even_beside_a_larger_negative_one() -> None:
    spectrum = Diagonal(torch.tensor([50.0, -80.0, 30.0]))
    assert Probe("raw")(spectrum, torch.ones(3)).value == pytest.approx(50.0, rel=1e-3)


def test_residual_and_error_are_in_the_units_of_the_value() -> None:
    """A reading that gave up, so that both are far from zero."""
    raw, spherical = ProbeSet(["raw", "spherical"], max_products=3)(Matrix(H), W).values()
    probe = Probe("raw", max_products=3)
    vector = probe.eigenpairs(Matrix(H), W, None).vectors[0]
    assert not raw.converged and not spherical.converged
    assert raw.residual == pytest.approx(float((H @ vector - raw.value * vector).norm()), rel=1e-9)
    assert spherical.value == pytest.approx(RHO2 * raw.value, rel=1e-12)
    assert spherical.residual == pytest.approx(RHO2 * raw.residual, rel=1e-12)
    assert spherical.error == pytest.approx(RHO2 * raw.error, rel=1e-12)


def test_more_values_than_dimensions_are_all_of_them() -> None:
    assert len(Probe("raw", k=50)(Matrix(H), W).top) == D


# --- thresholds -------------------------------------------------------------------------------------------


def test_the_preconditioned_views_have_the_threshold_of_the_optimizer() -> None:
    readings = ProbeSet(DENSE, rtol=TIGHT)(Matrix(H), W, geometry(DiagonalMetric(P), 20.0))
    assert readings["preconditioned"].threshold == 20.0
    assert readings["spherical-preconditioned"].threshold == pytest.approx(20.0 * RHO2, rel=1e-14)
    assert readings["preconditioned"].ratio == pytest.approx(top_eigenvalue(HALF @ H @ HALF) / 20.0, rel=1e-9)


def test_a_view_without_metric_has_no_threshold_under_a_metric_that_is_no_number() -> None:
    readings = ProbeSet(DENSE)(Matrix(H), W, geometry(DiagonalMetric(P)))
    for name in ("raw", "spherical", "riemannian"):
        assert readings[name].threshold is None and readings[name].ratio is None


def test_without_an_optimizer_there_is_a_value_and_no_threshold() -> None:
    reading = Probe("spherical")(Matrix(H), W)
    assert reading.threshold is None and reading.ratio is None
    assert reading.value == pytest.approx(top_eigenvalue(DENSE["spherical"]), rel=1e-3)


@pytest.mark.parametrize("c", [1.0, 0.25, 7.0])
def test_a_metric_that_is_a_number_scales_the_thresholds_and_leaves_the_ratio(c: float) -> None:
    readings = ProbeSet(DENSE, rtol=TIGHT)(Matrix(H), W, geometry(ScalarMetric(D, c), 20.0))
    assert readings["raw"].threshold == pytest.approx(20.0 * c, rel=1e-14)
    assert readings["spherical"].threshold == pytest.approx(20.0 * c * RHO2, rel=1e-14)
    assert readings["preconditioned"].threshold == 20.0
    assert readings["preconditioned"].value == pytest.approx(top_eigenvalue(H) / c, rel=1e-9)
    for name in ("raw", "spherical", "preconditioned", "spherical-preconditioned"):
        assert readings[name].ratio == pytest.approx(top_eigenvalue(H) / c / 20.0, rel=1e-9)
    for reading in readings.values():
        assert reading.ratio == pytest.approx(reading.value / reading.threshold, rel=1e-12)


def test_a_preconditioned_view_without_a_metric_says_what_it_needs() -> None:
    with pytest.raises(ValueError, match="'preconditioned' needs an optimizer with a known metric"):
        Probe("preconditioned")(Matrix(H), W)


def test_a_metric_of_other_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="dimension 4, the operator between the factors has 9"):
        Probe("preconditioned")(Matrix(H), W, geometry(DiagonalMetric(torch.ones(4))))


# --- scale-invariant losses -------------------------------------------------------------------------------

A = draw(6, 6, seed=4) + draw(6, 6, seed=4).T


def rayleigh() -> tuple[Callable[[], Tensor], ParameterSpace]:
    w = (1.7 * draw(6, seed=5)).requires_grad_()
    return lambda: 0.5 * (w @ A @ w) / (w @ w), ParameterSpace({"w": w})


def normalised() -> tuple[Callable[[], Tensor], ParameterSpace]:
    """Twice linear, BatchNorm, tanh, and a frozen read-out; ε vanishes beside every variance."""
    generator = torch.Generator().manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs in ((4, 5), (5, 4)):
        norm = nn.BatchNorm1d(outputs, eps=torch.finfo(torch.float64).tiny, affine=False)
        layers += [nn.Linear(inputs, outputs, bias=False), norm, nn.Tanh()]
    model = nn.Sequential(*layers, nn.Linear(4, 3)).double()
    for p in model.parameters():
        p.data = torch.randn(p.shape, generator=generator, dtype=torch.float64)
    model[-1].requires_grad_(False)
    chunks = [(draw(8, 4, seed=6), torch.arange(8) % 3), (draw(5, 4, seed=7), torch.arange(5) % 3)]
    losses = chunk_losses(model, F.cross_entropy, chunks)
    return lambda: losses[0]() + losses[1](), ParameterSpace.of(model)


INVARIANT = pytest.mark.parametrize("problem", [rayleigh, normalised])
V3 = 1e-8


@INVARIANT
def test_the_gradient_is_orthogonal_to_the_weights_and_the_hessian_maps_them_to_it(
    problem: Callable[[], tuple[Callable[[], Tensor], ParameterSpace]],
) -> None:
    """⟨g, w⟩ = 0 and H w = −g."""
    loss, space = problem()
    w, g = space.weights(), flatten(torch.autograd.grad(loss(), space.tensors))
    assert abs(float(g @ w)) < V3 * float(g.norm() * w.norm())
    assert float((Hessian([loss], space.tensors) @ w + g).norm()) < V3 * float(g.norm())


@INVARIANT
@pytest.mark.parametrize("rho", [0.1, 1.0, 40.0])
def test_the_spherical_sharpness_is_the_sharpness_at_the_direction(
    rho: float, problem: Callable[[], tuple[Callable[[], Tensor], ParameterSpace]]
) -> None:
    """S = ρ² λ₁(H(w)) = λ₁(H(θ)), for every ρ, without moving a weight to measure it."""
    loss, space = problem()
    direction = space.weights() / space.weights().norm()
    space.assign(rho * direction)
    spherical = Probe("spherical", rtol=1e-10)(Hessian([loss], space.tensors), space.weights()).value
    space.assign(direction)
    hessian = Hessian([loss], space.tensors)
    assert spherical == pytest.approx(top_eigenvalue(hessian.dense()), rel=V3)
    assert spherical == pytest.approx(Probe("raw", rtol=1e-10)(hessian, space.weights()).value, rel=V3)


@INVARIANT
def test_the_riemannian_sharpness_lies_below_the_ambient_one_by_a_known_amount(
    problem: Callable[[], tuple[Callable[[], Tensor], ParameterSpace]],
) -> None:
    """0 ≤ λ₁(H(θ)) − λ₁(Π H(θ) Π) ≤ ‖g(θ)‖² / λ₁."""
    loss, space = problem()
    panel = ProbeSet(["spherical", "riemannian"], rtol=1e-10)
    ambient, riemannian = (r.value for r in panel(Hessian([loss], space.tensors), space.weights()).values())
    g = flatten(torch.autograd.grad(loss(), space.tensors)) * space.weights().norm()
    assert 0 < ambient - riemannian <= float(g @ g) / ambient


# --- probes remember, and are deterministic ---------------------------------------------------------------


def drifting(step: int) -> Matrix:
    return Matrix(H + 0.05 * step * (draw(D, D, seed=8) + draw(D, D, seed=8).T))


@pytest.mark.parametrize(
    "make", [lambda: Probe("raw", k=2), lambda: ProbeSet(DENSE, k=2)], ids=["probe", "panel"]
)
def test_a_restored_probe_continues_to_the_last_bit(make: Callable[[], Probe | ProbeSet]) -> None:
    """As after an interruption: the next readings are those of the uninterrupted run."""

    def read(probe: Probe | ProbeSet, step: int) -> object:
        reading = probe(drifting(step), W, geometry(DiagonalMetric(P)))
        return untimed(reading) if isinstance(reading, Reading) else [untimed(r) for r in reading.values()]

    original, restored, cold = make(), make(), make()
    for step in range(3):
        read(original, step)
    restored.load_state_dict(original.state_dict())
    expected = [read(original, step) for step in (3, 4)]
    assert [read(restored, step) for step in (3, 4)] == expected
    assert [read(cold, step) for step in (3, 4)] != expected  # the memory matters


def test_a_saved_state_does_not_move_with_the_probe() -> None:
    probe = Probe("raw")
    probe(drifting(0), W)
    state = probe.state_dict()
    probe(drifting(1), W)
    assert state == {"count": 1}


def test_a_probe_that_has_seen_nothing_has_a_state_too() -> None:
    fresh, restored = Probe("raw"), Probe("raw")
    restored.load_state_dict(fresh.state_dict())
    assert untimed(restored(drifting(0), W)) == untimed(fresh(drifting(0), W))


def test_readings_neither_use_nor_move_the_random_numbers_of_the_program() -> None:
    torch.manual_seed(1)
    first = untimed(Probe("raw")(Matrix(H), W))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert untimed(Probe("raw")(Matrix(H), W)) == first
    assert torch.equal(state, torch.get_rng_state())


def test_seeds_start_elsewhere_and_arrive_at_the_same_value() -> None:
    first, second = (Probe("raw", seed=seed, rtol=1e-8)(Matrix(H), W) for seed in (0, 1))
    assert first.value == pytest.approx(second.value, rel=1e-8)
    assert first.value != second.value


# --- a reading starts at the gradient ---------------------------------------------------------------------


def test_a_gradient_in_the_top_space_costs_no_products() -> None:
    diagonal = torch.linspace(0, 1, 2_000, dtype=torch.float64)
    diagonal[:2] = torch.tensor([1.1, 1.05])
    gradient, weights = (diagonal > 1).double(), torch.ones(2_000, dtype=torch.float64)
    blind, informed = (
        Probe("raw")(o, weights) for o in (Diagonal(diagonal), Sloping(Diagonal(diagonal), gradient))
    )
    assert informed.products <= blind.products and informed.value == pytest.approx(1.1, rel=1e-3)


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_the_size_of_the_gradient_does_not_matter(size: float) -> None:
    one, other = (
        Probe("raw")(Sloping(Matrix(H), c * torch.ones(D, dtype=torch.float64)), W) for c in (1.0, size)
    )
    assert other.value == pytest.approx(one.value, rel=1e-12) and other.products == one.products


def test_a_gradient_of_zero_is_no_start() -> None:
    gradient = torch.zeros(D, dtype=torch.float64)
    assert untimed(Probe("raw")(Sloping(Matrix(H), gradient), W)) == untimed(Probe("raw")(Matrix(H), W))


@pytest.mark.parametrize("entry", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_refused(entry: float) -> None:
    gradient = torch.full((D,), entry, dtype=torch.float64)
    with pytest.raises(FloatingPointError, match="the gradient is not finite"):
        Probe("raw")(Sloping(Matrix(H), gradient), W)


@pytest.mark.parametrize("name", ["raw", "riemannian", "preconditioned"])
def test_the_gradient_is_that_in_the_coordinates_of_the_view(name: str) -> None:
    """Where θ, or P^{1/2} w, is what moves, for f(w) = ½ wᵀHw."""
    operator = view_operator(VIEWS[name], Sloping(Matrix(H), H @ W), W, geometry(DiagonalMetric(P)))
    root = P.sqrt() if name == "preconditioned" else torch.ones_like(P)
    z = (root * W).requires_grad_()
    w = z / root
    if name == "riemannian":
        theta = W / W.norm()
        w = W + (w - W) - theta * (theta @ (w - W))
    (want,) = torch.autograd.grad(0.5 * w @ H @ w, z)
    torch.testing.assert_close(operator.gradient(), want)
    assert view_operator(VIEWS[name], Matrix(H), W, geometry(DiagonalMetric(P))).gradient() is None


# --- trap: a start that leans to one eigenvector can hide another -----------------------------------------


def risen(dim: int, seed: int, dtype: torch.dtype = torch.float64) -> float:
    """What a probe reads that starts at the exact eigenvector of 10 when another has risen to 20."""
    generator = torch.Generator().manual_seed(seed)
    diagonal = 2 * torch.rand(dim, generator=generator, dtype=dtype) - 1
    diagonal[0], diagonal[1] = 10.0, 20.0
    gradient = torch.zeros(dim, dtype=dtype)
    gradient[0] = 1.0
    operator = Sloping(Diagonal(diagonal), gradient)
    return Probe("raw", seed=seed)(operator, torch.ones(dim, dtype=dtype)).value


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("dim", [3, 10, 1_000, 50_000])
def test_a_gradient_along_one_eigenvector_does_not_hide_a_larger_one(dim: int, dtype: torch.dtype) -> None:
    assert [risen(dim, seed, dtype) for seed in range(10)] == pytest.approx([20.0] * 10, rel=1e-3)


def test_without_noise_it_would_be_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharpness, "NOISE", 0.0)
    assert risen(1_000, 0) == pytest.approx(10.0, rel=1e-3)


@pytest.mark.parametrize("dim", [1_000, 20_000])
def test_an_eigenvalue_that_overtakes_the_top_is_followed_from_the_first_reading_on(dim: int) -> None:
    """The second rises steadily past the first, above a bulk with a heavy tail, as in a network."""
    bulk = (0.01 / torch.rand(dim, generator=torch.Generator().manual_seed(0)).clamp(min=1e-7)).clamp(max=9.0)
    bulk[0], probe = 10.0, Probe("raw", rtol=1e-3)
    for percent in range(90, 130):
        bulk[1] = percent / 10
        value = probe(Diagonal(bulk), torch.ones(dim)).value
        assert value == pytest.approx(
            max(10.0, percent / 10), rel=6e-3
        )  # a cluster 1 % wide is not always separated


# --- panels and records -----------------------------------------------------------------------------------


def test_views_that_differ_by_the_radius_alone_share_their_products() -> None:
    counting = Counting(Matrix(H))
    readings = ProbeSet(DENSE)(counting, W, geometry(DiagonalMetric(P)))
    assert list(readings) == list(DENSE)
    for one, other in (("raw", "spherical"), ("preconditioned", "spherical-preconditioned")):
        assert readings[one].products == readings[other].products
        assert readings[one].seconds == readings[other].seconds
        assert readings[one].ratio == readings[other].ratio
    three = ("raw", "riemannian", "preconditioned")
    assert counting.count == sum(readings[name].products for name in three)


@pytest.mark.parametrize("name", DENSE)
def test_a_panel_reads_what_a_probe_of_its_own_reads(name: str) -> None:
    alone = Probe(name, k=2)(Matrix(H), W, geometry(DiagonalMetric(P)))
    assert untimed(ProbeSet(DENSE, k=2)(Matrix(H), W, geometry(DiagonalMetric(P)))[name]) == untimed(alone)


def test_a_record_is_json_and_names_more_than_one_value_only_where_there_is_more() -> None:
    fields = "value threshold ratio residual error bound products seconds converged".split()
    reading = Probe("raw")(Matrix(H), W, geometry(ScalarMetric(D)))
    assert list(reading.as_record()) == fields
    assert json.loads(json.dumps(reading.as_record()))["value"] == reading.value
    assert len(Probe("raw", k=3)(Matrix(H), W).as_record()["top"]) == 3


# --- a gradient that lacks the first eigenvector ------------------------------------------------------------


def wrong_readings(seeds: int) -> int:
    """Converged ones off by more than rtol, where an oscillation passes zero: the gradient has no v₁."""
    generator = torch.Generator().manual_seed(0)
    diagonal = torch.rand(10_000, generator=generator, dtype=torch.float64) ** 4 * 0.5
    diagonal[:5] = torch.tensor([1.0, 0.967, 0.897, 0.878, 0.8])
    gradient = diagonal * torch.randn(10_000, generator=generator, dtype=torch.float64) / 100
    gradient[:5] = torch.tensor([0.0, 0.7, 0.4, 0.3, 0.3])
    operator, weights = Sloping(Diagonal(diagonal), gradient), torch.ones(10_000, dtype=torch.float64)
    readings = [Probe("raw", seed=seed)(operator, weights) for seed in range(seeds)]
    return sum(reading.converged and abs(reading.value - 1) > 1e-3 for reading in readings)


def test_the_second_eigenvalue_is_not_taken_for_the_first() -> None:
    assert wrong_readings(40) == 0


def test_without_waiting_for_the_bound_it_would_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(krylov, "BOUND_RTOL", float("inf"))
    monkeypatch.setattr(sharpness, "NOISE", 1.0)
    assert wrong_readings(40) > 10


# --- sampled readings -------------------------------------------------------------------------------------


@functools.cache
def many_terms(count: int = 20, size: int = 160) -> SumOfMatrices:
    """Terms that differ by a tenth; their mean has one leading eigenvalue."""
    whole = rotated([1.0, 0.7, *(0.5 / i for i in range(1, size - 1))])
    return SumOfMatrices(
        whole + 0.02 * (draw(size, size, seed=i) + draw(size, size, seed=i).T) / size**0.5
        for i in range(count)
    )


def sampled_probe(**options: Any) -> Probe:
    return Probe("raw", reading="sampled", **options)


def test_a_sampled_reading_says_what_it_rests_on() -> None:
    operator = many_terms()
    reading = sampled_probe()(operator, draw(operator.dim))
    truth = top_eigenvalue(operator.whole())
    assert reading.converged and truth - reading.error <= reading.value <= truth * (1 + 1e-12)
    assert (reading.method, reading.bound, reading.audit) == ("sampled", None, None)
    assert reading.sample_products > reading.products > 1 and reading.sample_share == pytest.approx(0.1)
    record = reading.as_record()
    assert record["method"] == "sampled" and record["bound"] is None and "audit" not in record
    lanczos = Probe("raw")(operator, draw(operator.dim))
    assert lanczos.method == "lanczos" and not {"method", "sample_share"} & set(lanczos.as_record())


def test_every_tenth_sampled_reading_is_audited() -> None:
    operator, probe = many_terms(), sampled_probe()
    readings = [probe(operator, draw(operator.dim)) for _ in range(20)]
    assert [i for i, reading in enumerate(readings, 1) if reading.audit is not None] == [10, 20]
    audited, plain = readings[9], readings[8]
    assert (
        audited.audit is not None and audited.audit <= 1e-3 and audited.as_record()["audit"] == audited.audit
    )
    assert audited.bound is not None and audited.products > plain.products and audited.converged
    assert audited.value <= top_eigenvalue(operator.whole()) * (1 + 1e-12)


@pytest.mark.parametrize("k", [1, 2])
def test_an_audit_keeps_the_larger_value_and_does_not_call_a_disagreement_converged(
    k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator, probe = many_terms(size=200), sampled_probe(k=k)
    probe.count = 9
    honest = sharpness.sampled_top_eigenpairs

    def low(*args: Any, **options: Any) -> Eigenpairs:
        pairs = honest(*args, **options)
        others = [(1 + 1e-5) * value for value in pairs.values[:-1]]
        return dataclasses.replace(pairs, values=(*others, 0.9 * pairs.values[-1]))

    monkeypatch.setattr(sharpness, "sampled_top_eigenpairs", low)
    reading = probe(operator, draw(operator.dim))
    truth = torch.linalg.eigvalsh(operator.whole()).flip(0)[:k].tolist()
    assert reading.top == pytest.approx(truth, rel=1e-3)
    assert reading.audit == pytest.approx(0.1, abs=2e-3) and not reading.converged
    assert reading.method == "lanczos" and reading.sample_products


def test_lanczos_follows_where_the_sample_does_not_converge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampled_lanczos, "MAX_PROPOSALS", 0)
    operator = many_terms()
    operator.full = 0
    reading = sampled_probe()(operator, draw(operator.dim))
    assert (reading.method, reading.audit, reading.converged) == ("lanczos", None, True)
    assert reading.products == operator.full > 9 and reading.sample_products
    assert reading.bound is not None


@pytest.mark.parametrize("options", [{"k": 5}, {"rtol": 1e-6}])
def test_what_a_sample_cannot_answer_is_read_by_lanczos(options: dict[str, Any]) -> None:
    operator = many_terms(size=250)
    reading = sampled_probe(**options)(operator, draw(operator.dim))
    assert reading.method == "lanczos" and not reading.sample_products


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("name", DENSE)
def test_sampled_views_have_their_factors_around_sample_and_products(name: str, k: int) -> None:
    operator, weights = many_terms(size=200), draw(200, seed=1)
    metric = geometry(DiagonalMetric(draw(200, seed=2).abs() + 0.5))
    sampled = Probe(name, reading="sampled", rtol=1e-3, k=k)(operator, weights, metric)
    exact = Probe(name, rtol=1e-9, k=k)(operator, weights, metric)
    assert sampled.method == "sampled" and sampled.converged
    assert sampled.top == pytest.approx(exact.top, rel=1e-3)
    assert sampled.threshold == exact.threshold


def test_a_way_to_read_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="no reading 'quick'; known: lanczos, sampled, auto"):
        Probe("raw", reading="quick")  # type: ignore[arg-type]
