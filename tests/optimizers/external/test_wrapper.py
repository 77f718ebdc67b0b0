"""Every optimizer of torch and timm that can run here: its options, its steps, its checkpoint."""

import math

import pytest
import timm.optim
import torch
from pydantic import ValidationError

from optim_family.cli.model_options import fields
from optim_family.conformance.harness import gradients
from optim_family.errors import UsageError
from optim_family.geometry import UnknownMetric
from optim_family.optimizers.base import FamilyOptimizer, OptimizerBase
from optim_family.optimizers.external.wrapper import wrap_external
from optim_family.training import checkpoint

TORCH = "ASGD Adadelta Adafactor Adagrad Adam AdamW Adamax Muon NAdam RAdam RMSprop Rprop SGD".split()
NEED_MORE = ("bnb", "fused", "adahessian")  # bitsandbytes, apex, second derivatives
TIMM = [name for name in timm.optim.list_optimizers() if not name.startswith(NEED_MORE)]
COMPILED = [name for name in TIMM if name.startswith("kron")]  # slow to compile
NAMES = [f"torch:{name}" for name in TORCH] + [f"timm:{name}" for name in TIMM if name not in COMPILED]


def start(name, **values):
    """An optimizer on matrices, which all of them can move."""
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(4, 3, generator=generator).requires_grad_() for _ in range(2)]
    return wrap_external(name)(weights, **({"lr": 1e-2} | values)), weights


def walk(optimizer, weights, count, seed):
    for gradient in gradients(24, count, seed):
        for w, part in zip(weights, gradient.float().view(2, 4, 3), strict=True):
            w.grad = part.clone()
        optimizer.step()
    return torch.cat([w.detach().reshape(-1) for w in weights])


# --- all of them ------------------------------------------------------------------------------------------


def test_nothing_of_torch_is_left_out_and_over_eighty_can_run():
    there = {name for name, kind in vars(torch.optim).items() if isinstance(kind, type)} - {"Optimizer"}
    assert there == {*TORCH, "LBFGS", "SparseAdam"}
    assert len(NAMES) > 80 and len(timm.optim.list_optimizers()) > 100


def test_whoever_moves_all_tensors_at_once_has_no_way_to_move_one():
    assert issubclass(wrap_external("torch:SGD"), OptimizerBase) and not issubclass(
        wrap_external("torch:SGD"), FamilyOptimizer
    )
    assert not hasattr(wrap_external("torch:SGD"), "update")


@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_is_resumed_from_a_checkpoint_goes_on_bit_for_bit(name, tmp_path):
    first, weights = start(name)
    walk(first, weights, 5, seed=1)
    checkpoint.save(tmp_path, 5, {"w": list(weights), "optimizer": first.state_dict()})
    _, tree = checkpoint.load_latest(tmp_path, pytest.fail)
    expected = walk(first, weights, 5, seed=2)
    second, others = start(name, lr=0.5)  # the learning rate in force is remembered too
    with torch.no_grad():
        for w, held in zip(others, tree["w"], strict=True):
            w.copy_(held)
    second.load_state_dict(tree["optimizer"])
    assert torch.equal(walk(second, others, 5, seed=2), expected)
    assert torch.isfinite(expected).all()


@pytest.mark.parametrize("name", NAMES)
def test_it_can_be_asked_for_its_geometry_and_its_options(name):
    optimizer, weights = start(name)
    walk(optimizer, weights, 2, seed=3)
    geometry = optimizer.geometry()
    assert geometry.metric.dim == 24
    assert isinstance(geometry.metric, UnknownMetric) == math.isinf(geometry.threshold)
    flags = [field.flag for field in fields(type(optimizer).Hyper)]
    assert {"--lr", "--weight-decay"} <= set(flags) and len(set(flags)) == len(flags)


def test_half_of_torchs_and_some_of_timms_have_a_known_geometry():
    known = [name for name in NAMES if not isinstance(_metric(name), UnknownMetric)]
    assert {f"torch:{n}" for n in TORCH} - set(known) == {"torch:Adafactor", "torch:Muon", "torch:Rprop"}
    assert len(known) > 25


def _metric(name):
    optimizer, weights = start(name)
    walk(optimizer, weights, 1, seed=3)
    return optimizer.geometry().metric


# --- the same as the original -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "original", "values", "theirs"),
    [
        ("torch:AdamW", torch.optim.AdamW, {"beta1": 0.8, "eps": 1e-3}, {"betas": (0.8, 0.999), "eps": 1e-3}),
        (
            "torch:SGD",
            torch.optim.SGD,
            {"momentum": 0.5, "nesterov": True},
            {"momentum": 0.5, "nesterov": True},
        ),
        ("timm:sgd", torch.optim.SGD, {}, {"momentum": 0.9, "nesterov": True}),
        ("timm:lambw", timm.optim.lamb.Lamb, {}, {"decoupled_decay": True}),
        ("torch:Rprop", torch.optim.Rprop, {"eta1": 0.3}, {"etas": (0.3, 1.2)}),
    ],
)
def test_it_takes_the_steps_of_the_original(name, original, values, theirs):
    mine, weights = start(name, **values)
    _, others = start(name)
    assert torch.equal(walk(mine, weights, 5, 4), walk(original(others, lr=1e-2, **theirs), others, 5, 4))


def test_a_scheduler_is_obeyed():
    first, weights = start("torch:Adam")
    second, others = start("torch:Adam", lr=5e-3)
    torch.optim.lr_scheduler.LambdaLR(first, lambda _: 0.5)
    assert torch.equal(walk(first, weights, 3, 5), walk(second, others, 3, 5))
    assert first.geometry().threshold == pytest.approx(38 / 5e-3)


def test_what_it_remembers_can_be_read():
    optimizer, weights = start("torch:Adam")
    walk(optimizer, weights, 1, seed=6)
    gradient = torch.cat([w.grad.reshape(-1) for w in weights])
    torch.testing.assert_close(optimizer.flat("exp_avg"), 0.1 * gradient)


def test_a_closure_is_evaluated_by_the_other():
    optimizer, (w, _) = start("torch:SGD")

    def closure():
        w.grad = torch.ones_like(w)
        return 3.0

    assert optimizer.step(closure) == 3.0


# --- hyper-parameters -------------------------------------------------------------------------------------


def test_fields_come_from_the_signature():
    table = {f.name: (f.default, f.kind) for f in fields(wrap_external("torch:NAdam").Hyper)}
    assert table == {
        "lr": ("0.002", float),
        "weight_decay": ("0", float),
        "beta1": ("0.9", float),
        "beta2": ("0.999", float),
        "eps": ("1e-08", float),
        "momentum_decay": ("0.004", float),
        "decoupled_weight_decay": ("no", bool),
    }


def test_whole_numbers_words_and_nothing_are_kept_apart():
    hyper = wrap_external("torch:Muon").Hyper()
    assert (hyper.ns_steps, hyper.adjust_lr_fn, hyper.ns_coefficient2) == (5, None, -4.775)
    assert wrap_external("timm:lamb").Hyper(max_grad_norm=None).max_grad_norm is None
    assert isinstance(wrap_external("torch:SGD").Hyper().momentum, float)  # 0 in the signature


def test_what_timm_gives_is_the_default():
    assert wrap_external("timm:adagrad").Hyper().eps == 1e-8
    assert wrap_external("torch:Adagrad").Hyper().eps == 1e-10
    assert wrap_external("timm:rmsprop").Hyper().momentum == 0.9


def test_options_are_explained_by_the_docstring():
    meanings = {f.name: f.meaning for f in fields(wrap_external("torch:Adam").Hyper)}
    assert meanings["eps"] == "term added to the denominator to improve numerical stability"
    assert meanings["beta2"].startswith("number 2 of betas: coefficients used for computing running averages")
    assert {f.name: f.meaning for f in fields(wrap_external("timm:lamb").Hyper)}["grad_averaging"].startswith(
        "Whether"
    )


@pytest.mark.parametrize(
    ("name", "values", "says"),
    [
        ("torch:Adam", {"beta1": 1.5}, "torch:Adam refuses: Invalid beta parameter at index 0: 1.5"),
        (
            "torch:SGD",
            {"nesterov": True},
            "torch:SGD refuses: Nesterov momentum requires a momentum and zero",
        ),
        ("torch:SGD", {"lr": -1}, "greater than 0"),
        ("torch:SGD", {"beta": 1}, "Extra inputs are not permitted"),
        ("torch:Rprop", {"weight_decay": 0.1}, "less than or equal to 0"),
        ("timm:sgdp", {}, "Field required"),
    ],
)
def test_the_constructor_judges_the_values(name, values, says):
    with pytest.raises(ValidationError, match=says):
        wrap_external(name).Hyper(**values)


# --- names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("torch:Adm", r"no optimizer 'torch:Adm'; did you mean 'torch:Adam'"),
        ("torch:Optimizer", r"no optimizer 'torch:Optimizer'"),
        ("timm:lam", r"no optimizer 'timm:lam'; did you mean 'timm:lamb'"),
        ("torch:SparseAdam", "it takes sparse gradients only"),
        ("timm:adahessian", "it needs the graph of the gradient at every step"),
    ],
)
def test_what_cannot_be_run_says_why(name, says):
    with pytest.raises(UsageError, match=says):
        wrap_external(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("name", ["timm:fusedadam", "timm:bnbadam"])
def test_what_needs_a_gpu_says_so(name):
    with pytest.raises(UsageError, match=f"{name} cannot be run here: CUDA required"):
        wrap_external(name)


def test_tensors_that_the_other_refuses_are_a_mistake_of_the_user():
    with pytest.raises(UsageError, match=r"torch:Muon refuses these weights: Muon only supports 2D"):
        wrap_external("torch:Muon")([torch.zeros(3, requires_grad=True)])


def test_it_is_one_class_with_a_name():
    assert wrap_external("torch:Adam") is wrap_external("torch:Adam")
    assert wrap_external("torch:Adam").__name__ == "torch:Adam"
    assert "nesterov" in wrap_external("timm:sgd").__doc__


def test_lbfgs_minimises_a_quadratic_by_closures():
    """A run gives it a closure, as to every optimizer that evaluates the loss again."""
    w = torch.ones(3, dtype=torch.float64, requires_grad=True)
    h = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)

    def closure():
        w.grad = h * w.detach()
        return 0.5 * (h * w.detach() ** 2).sum()

    optimizer = wrap_external("torch:LBFGS")
    assert optimizer.needs_closure
    optimizer([w], lr=1.0).step(closure)
    assert float(w.detach().norm()) < 1e-3
