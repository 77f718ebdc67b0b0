"""A run on the card is the run on the CPU to the last bit, also after an interruption."""

import pytest
import torch
from torch.nn import functional

from optim_family import registry
from optim_family.curvature.hessian import Hessian
from optim_family.errors import Stopped
from optim_family.runs.run import read_run
from optim_family.sharpness.views import VIEWS
from optim_family.study import cost
from optim_family.training import loss_log, objective
from optim_family.training.objective import Objective
from optim_family.training.progress import ProgressListener
from tests.helpers.rehearsed_cuda import asked_cards, rehearsed_cuda, training_norms
from tests.helpers.training_runs import StopAfter, untimed, weights_hash

EXTERNAL = {
    "torch:SGD": {"momentum": 0.9, "nesterov": True},
    "torch:Adam": {"amsgrad": True},
    "torch:NAdam": {},
    "torch:RAdam": {},
    "torch:Adamax": {},
    "torch:RMSprop": {"centered": True},
    "torch:Adagrad": {},
    "torch:Adadelta": {},
    "torch:ASGD": {},
    "timm:lamb": {},
    "timm:lion": {},
    "timm:rmsproptf": {},
}


# On a card torch and timm update these with foreach kernels, which round in another order than their loops.
OTHER_ROUNDING = {"torch:NAdam", "torch:RAdam", "torch:ASGD", "timm:lamb"}
INTERRUPTED = 0.7  # of all steps and products are done


def records(folder):
    return [untimed(record) for record in read_run(folder).records]


def is_the_same(run, rounding=0.0, **changes):
    """On the card, interrupted and resumed, as on the CPU without an interruption."""
    checks = StopAfter(-1)
    cpu = run("cpu", stop=checks, **changes)
    with pytest.raises(Stopped):
        run("cuda", stop=StopAfter(int(INTERRUPTED * -checks.left)), **changes)
    card = run("cuda", resume=True, **changes)
    assert read_run(card).provenance["device"] == "rehearsed GPU"
    if not rounding:
        assert records(card) == records(cpu)
        assert weights_hash(card) == weights_hash(cpu)
    for mine, other in zip(records(card), records(cpu), strict=True):
        assert mine["train_loss"] == pytest.approx(other["train_loss"], rel=rounding)
        for name, view in other["views"].items():
            assert mine["views"][name]["value"] == pytest.approx(view["value"], rel=rounding)


@pytest.mark.parametrize("optimizer", ["gd", "sgd", "adamw"])
def test_built_in_optimizers_with_midpoint_and_batch_sharpness(run, optimizer):
    measures = {"views": ("spherical",), "midpoint": True, "batch_sharpness": 1, "batch_size": 20}
    is_the_same(run, optimizer=optimizer, steps=2, every=1, rtol=0.3, **measures)


@pytest.mark.parametrize("optimizer", ["signgd", "lion", "muon", "sam"])
def test_built_in_optimizers_of_other_kinds(run, optimizer):
    views = ("generalized",) if optimizer == "signgd" else ("raw",)
    hyper = dict(registry.load(optimizer).Hyper())
    is_the_same(run, optimizer=optimizer, hyper=hyper, steps=2, rtol=0.3, views=views)


def with_vectors(monkeypatch):
    """Singular values by the routine that computes vectors too, which torch takes for a `CardTensor`."""
    real = torch.linalg.matrix_norm

    def matrix_norm(matrix, order="fro"):
        if order == "fro":
            return real(matrix)
        values = torch.linalg.svd(matrix, full_matrices=False)[1]
        return values.amax() if order == 2 else values.sum()

    monkeypatch.setattr(torch.linalg, "matrix_norm", matrix_norm)


@pytest.mark.parametrize(
    ("optimizer", "changes"),
    [
        ("muon", {}),
        ("muon", {"momentum": 0.0, "polar": "svd"}),
        ("muon:signgd", {"momentum": 0.0, "lr": 1e-3}),  # matrices and vectors: a norm of two blocks
    ],
)
def test_the_generalised_view_of_muon(run, optimizer, changes, monkeypatch):
    with_vectors(monkeypatch)
    hyper = dict(registry.load(optimizer).Hyper(**changes))
    norm = "affine" if ":" in optimizer else "frozen-affine"
    is_the_same(
        run, optimizer=optimizer, hyper=hyper, norm=norm, steps=2, rtol=0.3, views=("generalized",), budget=12
    )


def test_every_view(run):
    is_the_same(run, optimizer="rmsprop", steps=1, rtol=0.3, views=tuple(VIEWS))


@pytest.mark.parametrize("changes", [{"moment": "scalar"}, {"norm": "tensor"}], ids=str)
def test_the_variants_of_rmsprop(run, changes):
    is_the_same(run, hyper={"lr": 0.02, **changes}, optimizer="rmsprop", steps=2, rtol=0.3)


@pytest.mark.parametrize("optimizer", EXTERNAL)
def test_optimizers_of_torch_and_timm(run, optimizer):
    rounding = 1e-3 if optimizer in OTHER_ROUNDING else 0.0
    is_the_same(
        run, rounding, optimizer=optimizer, hyper=EXTERNAL[optimizer], steps=2, rtol=0.3, views=("raw",)
    )


def test_the_full_batch_in_float64_with_a_schedule_and_cross_entropy(run):
    changes = {"precision": "float64", "schedule": "warmup:steps=2+effective", "loss": "cross-entropy"}
    is_the_same(run, **changes, ghost_batch=20, hvp="rebuilt", steps=3, rtol=0.3)


def test_a_divergence_is_found_in_a_block_of_steps_and_dated_to_its_own(run):
    changes = {"hyper": {"lr": 1e25, "weight_decay": 0.0}, "steps": 40, "every": 20, "norm": "none"}
    cpu, card = run("cpu", **changes), run("cuda", **changes)
    assert loss_log.STEPS_PER_READ == {"cpu": 1, "cuda": 10}
    assert records(card) == records(cpu)
    assert read_run(card).status["status"] == "diverged"
    assert read_run(card).status["step"] == read_run(cpu).status["step"] not in (0, 10, 20)


def test_training_never_calls_the_batch_normalisation_of_cudnn(run):
    run("cuda", model="bn_cnn", steps=2)
    assert training_norms and set(training_norms) == {"native"}


def test_gradients_of_steps_may_be_in_tf32_and_nothing_else(run, monkeypatch):
    seen = {"step": set(), "product": set(), "evaluation": set()}

    def watch(owner, name, kind):
        real = getattr(owner, name)

        def watched(*args, **kwargs):
            seen[kind].add(torch.backends.cuda.matmul.fp32_precision)
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, watched)

    watch(torch.autograd, "backward", "step")
    watch(Hessian, "_chunk_product", "product")
    watch(objective, "evaluate", "evaluation")
    folder = run("cuda", precision="tf32", steps=1, views=("raw",), rtol=0.3)
    assert seen == {"step": {"tf32"}, "product": {"ieee"}, "evaluation": {"ieee"}}
    assert read_run(folder).spec["precision"] == "tf32"


@pytest.mark.filterwarnings("ignore:_adaptive_avg_pool2d_backward_cuda does not have")
def test_a_run_names_its_operations_without_a_deterministic_kernel(run, monkeypatch):
    real, messages = Objective._loss, []

    def loss(self, part):
        weights = self.space.tensors[0].view(1, 1, *self.space.tensors[0].shape)
        return real(self, part) + 0 * functional.adaptive_avg_pool2d(weights, 3).sum()

    monkeypatch.setattr(Objective, "_loss", loss)
    monkeypatch.setattr(ProgressListener, "on_message", lambda self, text: messages.append(text))
    folder = run("cuda", steps=1, rtol=0.3)
    assert read_run(folder).provenance["not_deterministic"] == ["_adaptive_avg_pool2d_backward_cuda"]
    assert any(text.startswith("not deterministic on this GPU: _adaptive_avg_pool2d") for text in messages)


def test_the_memory_of_an_estimate_is_that_of_its_own_card():
    with rehearsed_cuda(cards=2):
        assert cost._memory(torch.device("cuda", 1)) == 2**21
    assert asked_cards == [1]
