"""signgd, lion, muon and sam against references of their own, and in runs."""

import math

import pytest
import torch

from optim_family import registry
from optim_family.errors import UsageError
from optim_family.geometry import UnknownMetric, sam_edge
from optim_family.norms import BlockNorm, SpectralNorm
from optim_family.optimizers.lion import Lion
from optim_family.optimizers.muon import newton_schulz
from optim_family.optimizers.signgd import SignGD
from optim_family.runs.run import read_run
from tests.helpers.cli_runner import optim_family
from tests.helpers.operators_for_tests import draw


def walk(optimizer, tensors, steps=20):
    for step in range(steps):
        for index, w in enumerate(tensors):
            w.grad = draw(*w.shape, seed=100 * step + index)
        optimizer.step()
    return [w.detach().clone() for w in tensors]


def new(*shapes):
    return [draw(*shape, seed=index).requires_grad_() for index, shape in enumerate(shapes)]


def test_signgd_is_lion_without_momentum():
    ours, theirs = new((7,)), new((7,))
    a = walk(SignGD(ours, lr=0.03, weight_decay=0.1), ours)
    b = walk(Lion(theirs, lr=0.03, weight_decay=0.1, beta1=0.0), theirs)
    assert torch.equal(a[0], b[0])


def test_lion_is_timms():
    from timm.optim.lion import Lion as Timm

    ours, theirs = new((7,), (3, 2)), new((7,), (3, 2))
    a = walk(Lion(ours, lr=0.03, weight_decay=0.1), ours)
    b = walk(Timm(theirs, lr=0.03, weight_decay=0.1, betas=(0.9, 0.99)), theirs)
    assert all(torch.allclose(x, y, rtol=1e-12) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("nesterov", [False, True])
def test_muon_is_torchs(nesterov):
    """torch's Newton–Schulz works in bfloat16: two digits."""
    ours, theirs = new((6, 4), (3, 5)), new((6, 4), (3, 5))
    options = {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.9, "nesterov": nesterov}
    a = walk(registry.load("muon")(ours, **options), ours, steps=3)
    b = walk(torch.optim.Muon(theirs, **options, adjust_lr_fn="original"), theirs, steps=3)
    for x, y, start in zip(a, b, new((6, 4), (3, 5)), strict=True):
        moved = (y - start).norm()
        assert (x - y).norm() < 0.05 * moved


def test_newton_schulz_moves_singular_values_towards_one():
    for shape in ((5, 5), (9, 4), (4, 9)):
        values = torch.linalg.svdvals(newton_schulz(draw(*shape)))
        assert 0.65 < float(values.min()) and float(values.max()) < 1.25


def test_vectors_move_by_the_inner_optimizer_at_its_own_rate():
    (matrix, vector), (alone,) = new((4, 3), (5,)), new((4, 3), (5,))[1:]
    options = {"lr": 0.02, "weight_decay": 0.5}
    muon = registry.load("muon")([matrix, vector], rest_rate=0.1, rest_beta1=0.8, **options)
    adamw = registry.load("adamw")([alone], lr=0.002, weight_decay=5.0, beta1=0.8, eps=1e-8)
    for step in range(5):
        matrix.grad = draw(4, 3, seed=step)
        vector.grad = alone.grad = draw(5, seed=step)
        muon.step()
        adamw.step()
    assert torch.equal(vector, alone)


def test_muon_declares_the_norm_of_what_it_trains():
    matrices = new((4, 3), (2, 2, 3))
    exact = {"momentum": 0.0, "polar": "svd", "lr": 0.02, "weight_decay": 0.5}
    geometry = registry.load("muon")(matrices, **exact).geometry()
    assert isinstance(geometry.norm, SpectralNorm) and geometry.normalized
    assert geometry.norm.radii == [math.sqrt(4 / 3), 1.0]
    assert geometry.threshold == pytest.approx((2 - 0.01) / 0.02)
    momentum = registry.load("muon")(matrices, lr=0.02).geometry()
    assert math.isinf(momentum.threshold) and "momentum" in momentum.no_threshold
    both = new((4, 3), (5,))
    for w in both:
        w.grad = draw(*w.shape)
    assert isinstance(registry.load("muon:signgd")(both, **exact).geometry().norm, BlockNorm)
    reason = registry.load("muon")(both, **exact).geometry().metric
    assert isinstance(reason, UnknownMetric) and "adamw" in reason.reason.lower()


def test_sam_takes_the_gradient_uphill_and_comes_back():
    (w,) = new((3,))
    start, h = w.detach().clone(), torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    calls = []

    def closure():
        calls.append(w.detach().clone())
        w.grad = h * w.detach()
        return 0.5

    assert registry.load("sam")([w], lr=0.1, weight_decay=0.0, radius=0.2).step(closure) == 0.5
    g = h * start
    assert len(calls) == 2 and torch.allclose(calls[1], start + 0.2 * g / g.norm(), rtol=1e-14)
    assert torch.allclose(w.detach(), start - 0.1 * h * calls[1], rtol=1e-14)


@pytest.mark.parametrize(("g", "edge"), [(0.01, 1.9025), (0.1, 5.4031), (1.0, 12.3607)])
def test_the_edge_of_sam_in_closed_form(g, edge):
    assert sam_edge(2 / 0.1, g, 0.05) == pytest.approx(edge, abs=5e-5)


def test_mistakes_have_one_line():
    with pytest.raises(ValueError, match=r"^radius: it must be greater than 0, not 0\.0$"):
        registry.load("sam")(new((3,)), lr=0.1, radius=0.0)
    with pytest.raises(ValueError, match=r"call step\(closure\)"):
        registry.load("sam")(new((3,)), lr=0.1).step()
    for name, says in (
        ("sam:torch:AdamW", "one tensor at a time"),
        ("sam:sam", "one gradient a step"),
        ("gd:adamw", "goes around no other"),
        ("sam:rmsprob", "did you mean 'rmsprop'"),
    ):
        with pytest.raises(UsageError, match=says):
            registry.load(name)


TINY = "--model bn_mlp --limit 20 --steps 4 --every 2 --budget 12".split()


@pytest.mark.parametrize("name", ["signgd", "lion", "muon", "sam", "sam:rmsprop"])
def test_it_runs(name, capsys, tmp_path):
    optim_family(capsys, "run", "--optimizer", name, *TINY, "--quiet", "--out", str(tmp_path / "run"))
    records = read_run(tmp_path / "run").records
    assert len(records) == 3
    generalized = [record["views"].get("generalized") for record in records]
    assert all((reading is None) == name.startswith("sam") for reading in generalized)
    if name == "signgd":
        assert all(r["note"] == "lower bound" and r["products"] <= 12 and r["ratio"] > 0 for r in generalized)
    if name == "lion":
        assert all("no threshold: with momentum" in r["note"] and r["ratio"] is None for r in generalized)
