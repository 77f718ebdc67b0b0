"""Names of external packages: each runs and resumes bitwise, or is refused in one line."""

import inspect
import math

import pytest
import torch
from pydantic import ValidationError
from torch.optim import Optimizer

from optim_family import registry, testing
from optim_family.conformance.geometry_checks import NO_METRIC
from optim_family.conformance.runner import run_check
from optim_family.errors import UsageError
from optim_family.geometry import ScalarMetric
from optim_family.norms import MaxNorm, SpectralNorm
from optim_family.optimizers.external import packages
from optim_family.optimizers.external.inferred_geometry import geometry
from optim_family.optimizers.external.wrapper import _packed, _unpacked, wrap_external
from optim_family.training import checkpoint
from optim_family.training.experiment import build_experiment
from tests.helpers.operators_for_tests import draw
from tests.helpers.training_runs import spec


@pytest.fixture
def kozistr():
    return pytest.importorskip("pytorch_optimizer.optimizer", reason="the extra kozistr is not installed")


# --- names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("torch:Lamb", "timm:lamb"),
        ("torch:adamw", "torch:AdamW"),
        ("timm:Lamb", "timm:lamb"),
        ("Lamb", "timm:lamb"),
    ],
)
def test_the_nearest_name_may_be_one_of_another_package(name, near):
    with pytest.raises(UsageError, match=f"no optimizer '{name}'; did you mean '{near}'"):
        registry.load(name)


def test_a_package_that_is_not_installed_is_named_with_its_extra(monkeypatch):
    def missing(module):
        raise ModuleNotFoundError(f"No module named {module!r}")

    monkeypatch.setattr(packages.importlib, "import_module", missing)
    wrap_external.cache_clear()  # another test may have loaded these classes
    with pytest.raises(UsageError) as caught:
        wrap_external("kozistr:Lion")
    assert str(caught.value) == (
        "kozistr:Lion needs pytorch-optimizer, which cannot be imported here (No module named "
        "'pytorch_optimizer'); pip install 'optim-family[kozistr]'"
    )
    with pytest.raises(UsageError, match=r"needs schedulefree, .*optim-family\[schedulefree\]"):
        wrap_external("schedulefree:SGDScheduleFree")


def test_names_of_the_other_packages_are_suggested(kozistr):
    for name in ("AdaPNM", "torch:AdaPNM", "kozistr:adapnm", "kozistr:AdaPMN"):
        with pytest.raises(UsageError, match="did you mean 'kozistr:AdaPNM'"):
            registry.load(name)
    entry = registry.entry("kozistr:AdaPNM")
    assert entry.distribution == "pytorch-optimizer" and entry.version


# --- all of them ------------------------------------------------------------------------------------------


def walk(optimizer, weights, count, seed):
    """Steps on ½ ‖w‖² with noise in the gradient; the weights after them."""
    for step in range(count):
        noise = draw(*weights[0].shape, seed=1000 * seed + step).float()

        def closure(noise=noise):
            for w in weights:
                w.grad = w.detach() + 0.3 * noise
            return sum(float((w.detach() ** 2).sum()) for w in weights)

        closure()
        optimizer.step(closure) if optimizer.needs_closure else optimizer.step()
    return torch.cat([w.detach().reshape(-1).clone() for w in weights])


def start(name):
    weights = [draw(6, 4, seed=seed).float().requires_grad_() for seed in range(2)]
    fields = wrap_external(name).Hyper.model_fields.items()
    needed = {key: 100 if field.annotation is int else 0.01 for key, field in fields if field.is_required()}
    return wrap_external(name)(weights, **needed), weights


def resumes(name, folder):
    """Whether a checkpoint goes on bitwise."""
    first, weights = start(name)
    walk(first, weights, 12, seed=1)
    checkpoint.save(folder, 12, {"w": list(weights), "optimizer": first.state_dict()})
    _, tree = checkpoint.load_latest(folder, pytest.fail)
    second, others = start(name)
    with torch.no_grad():
        for w, stored in zip(others, tree["w"], strict=True):
            w.copy_(stored)
    second.load_state_dict(tree["optimizer"])
    first.geometry()
    return torch.equal(walk(first, weights, 12, seed=2), walk(second, others, 12, seed=2))


REFUSED = {
    *(
        "A2Grad",
        "ASGD",
        "AdaHessian",
        "AdaLOMO",
        "AdaShift",
        "AdamMini",
        "AggMo",
        "AliG",
        "Alice",
        "BSAM",
        "Conda",
    ),
    *("DASH", "DeMo", "DistributedMuon", "GSAM", "Gravity", "Kron", "LOMO", "LoRARite", "Lookahead", "Magma"),
    *("OrthoGrad", "PCGrad", "SPAM", "SaRA", "SafeFP16Optimizer", "ScalableShampoo", "ScheduleFreeWrapper"),
    *("SophiaH", "TRAC", "WSAM"),
}


def test_every_optimizer_of_kozistr_resumes_bitwise_or_is_refused_in_one_line(kozistr, tmp_path):
    kinds = inspect.getmembers(kozistr, inspect.isclass)
    names = {name for name, kind in kinds if issubclass(kind, Optimizer)} - {"Optimizer", "BaseOptimizer"}
    assert names > REFUSED and len(names) > 120
    for name in sorted(REFUSED):
        with pytest.raises(UsageError, match=f"^kozistr:{name} cannot be run: [^\n]*$"):
            wrap_external(f"kozistr:{name}")
    left = names - REFUSED - {"GrokFastAdamW"}
    assert {name for name in left if not resumes(f"kozistr:{name}", tmp_path / name)} == set()


def test_every_optimizer_of_schedulefree_resumes_bitwise_or_is_refused_in_one_line(tmp_path):
    package = pytest.importorskip("schedulefree", reason="the extra schedulefree is not installed")
    kinds = inspect.getmembers(package, inspect.isclass)
    names = {name for name, kind in kinds if issubclass(kind, Optimizer)}
    assert len(names) == 9
    for name in ("ScheduleFreeWrapper", "ScheduleFreeWrapperReference"):
        with pytest.raises(UsageError, match=f"^schedulefree:{name} cannot be run: it goes around another"):
            wrap_external(f"schedulefree:{name}")
    assert {name for name in names if not resumes(f"schedulefree:{name}", tmp_path / name)} == set()


def test_a_constructor_that_changes_the_learning_rate_is_refused(kozistr):
    with pytest.raises(ValidationError, match=r"changes the learning rate 0.0001 to 3.33333e-05"):
        wrap_external("kozistr:GrokFastAdamW").Hyper()
    assert wrap_external("kozistr:GrokFastAdamW").Hyper(normalize_lr=False).lr == 1e-4


def test_the_layout_of_a_state_survives_a_checkpoint(tmp_path):
    state = {
        "q": [torch.arange(6.0).reshape(2, 3).T, torch.ones(2)],
        "w": torch.rand(2, 3, 4).permute(2, 0, 1),
    }
    checkpoint.save(tmp_path, 1, _packed(state))
    _, tree = checkpoint.load_latest(tmp_path, pytest.fail)
    loaded = _unpacked(tree)
    for old, new in zip([*state["q"], state["w"]], [*loaded["q"], loaded["w"]], strict=True):
        assert torch.equal(old, new) and old.stride() == new.stride()


# --- geometries -------------------------------------------------------------------------------------------

METRIC = ("SGDW", "AdaMax", "ScheduleFreeSGD", "ScheduleFreeAdamW", "SAM")
NORM = ("Lion", "SignSGD", "Tiger", "Muon")


@pytest.mark.parametrize("name", [*METRIC, *NORM])
def test_the_real_class_passes_every_check_but_its_expected_failures(kozistr, name):
    optimizer = wrap_external(f"kozistr:{name}")
    for check in testing.CHECKS:
        passed, measured = run_check(check, optimizer)
        assert passed != (check.__name__.removeprefix("check_") in optimizer.expected_failures), measured
        if check is testing.check_metric_is_that_of_the_step:
            assert (measured == NO_METRIC) == (name in NORM)


@pytest.mark.parametrize("name", ["SGDScheduleFree", "AdamWScheduleFree"])
@pytest.mark.parametrize("check", [testing.check_threshold_is_sharp, testing.check_state_is_complete])
def test_a_schedule_free_optimizer_has_a_sharp_threshold(name, check):
    pytest.importorskip("schedulefree", reason="the extra schedulefree is not installed")
    passed, measured = run_check(check, wrap_external(f"schedulefree:{name}"))
    assert passed, measured


@pytest.mark.parametrize(
    ("name", "plain", "norm"),
    [
        ("Lion", {"betas": (0.0, 0.99)}, MaxNorm),
        ("SignSGD", {"momentum": 0.0}, MaxNorm),
        ("Tiger", {"beta": 0.0}, MaxNorm),
        ("Muon", {"momentum": 0.0}, SpectralNorm),
    ],
)
def test_without_momentum_there_is_a_threshold(kozistr, name, plain, norm):
    w = draw(6, 4, seed=1).requires_grad_()
    group = {"params": [w], "use_muon": True} if name == "Muon" else {"params": [w]}
    optimizer = getattr(kozistr, name)([group], lr=0.1, weight_decay=0.2, **plain)
    w.grad, before = draw(6, 4, seed=2), w.detach().clone()
    declared = geometry(optimizer)
    assert isinstance(declared.norm, norm) and declared.threshold == pytest.approx((2 - 0.02) / 0.1)
    gradient = w.grad.clone()
    optimizer.step()
    step = (0.98 * before - w.detach()).flatten() / 0.1
    assert declared.norm.value(step) == pytest.approx(1, abs=declared.inexact + 1e-9)
    gain = float(gradient.flatten() @ step) / declared.norm.dual(gradient.flatten())
    assert gain == pytest.approx(1, abs=declared.inexact + 1e-9)


@pytest.mark.parametrize(
    "settings", [{"maximize": True}, {"weight_decouple": False, "weight_decay": 0.1}, {"cautious": True}]
)
def test_other_settings_have_no_norm(kozistr, settings):
    w = draw(6, 4, seed=1).requires_grad_()
    optimizer = kozistr.Lion([w], lr=0.1, **settings)
    w.grad = draw(6, 4, seed=2)
    declared = geometry(optimizer)
    assert declared.norm is None and math.isinf(declared.threshold)


def test_a_vector_among_the_weights_of_muon_has_no_spectral_norm(kozistr):
    weights = [draw(6, 4, seed=1).requires_grad_(), draw(6, seed=2).requires_grad_()]
    optimizer = kozistr.Muon([{"params": weights, "use_muon": True}], lr=0.1)
    declared = geometry(optimizer)
    assert declared.norm is None and math.isinf(declared.threshold)


# --- SAM --------------------------------------------------------------------------------------------------


def test_sam_of_kozistr_is_sam_around_gradient_descent(kozistr):
    optimizers, weights = [], []
    for name, radius in (("kozistr:SAM", "rho"), ("sam:gd", "radius")):
        weights.append([draw(6, 4, seed=seed).requires_grad_() for seed in range(2)])
        values = {"lr": 0.1, "weight_decay": 0.0, "momentum": 0.0, radius: 0.2}
        optimizers.append(registry.load(name)(weights[-1], **values))
    theirs, own = (walk(*pair, 5, seed=3) for pair in zip(optimizers, weights, strict=True))
    torch.testing.assert_close(theirs, own, rtol=1e-6, atol=1e-7)
    declared, expected = (optimizer.geometry() for optimizer in optimizers)
    assert declared.threshold == pytest.approx(expected.threshold, rel=1e-5) and declared.orbit
    assert isinstance(declared.metric, ScalarMetric)


def test_a_radius_of_zero_is_refused_in_one_line(kozistr):
    with pytest.raises(ValidationError, match=r"rho must be greater than 0, not 0; without it .* torch:SGD"):
        wrap_external("kozistr:SAM").Hyper(rho=0.0)


def test_a_closure_computes_a_gradient_that_was_deleted():
    """An optimizer may call zero_grad() and the closure where the weights are those of the known loss."""
    experiment = build_experiment(spec())
    loss = experiment.objective.gradient(0)
    closure = experiment._closure(0, loss)
    assert closure() is loss  # known
    expected = experiment.objective.space.gradient()
    experiment.optimizer.zero_grad()
    closure()
    assert torch.equal(experiment.objective.space.gradient(), expected) and expected.any()
