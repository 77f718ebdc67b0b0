"""What only a card can tell, by the numbers of the list in docs/gpu.md."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional

from optim_family import measure
from optim_family.curvature.chunked_loss import chunk_losses
from optim_family.curvature.hessian import Hessian
from optim_family.errors import Stopped
from optim_family.runs.run import read_run
from optim_family.study import cost
from optim_family.training.experiment import build_experiment
from optim_family.training.loop import train
from tests.helpers import ROOT
from tests.helpers.training_runs import StopAfter, spec, untimed, weights_hash

pytestmark = pytest.mark.gpu
CLOSE = 1e-3  # two searches of the same eigenvalue, each to 1e-4, with sums in another order


def images(*shape, device="cpu"):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.out = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x):
        return self.out(self.lstm(x)[0][:, -1])


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix, self.out = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        return self.out(self.mix(x, x, x, need_weights=False)[0].mean(1))


def convolutions(affine=True, eps=1e-5):
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=False),
        nn.BatchNorm2d(6, eps, affine=affine),
        nn.Tanh(),
        nn.Flatten(),
        nn.LazyLinear(3),
    )


NETWORKS = {
    "4, batch norm without affine parameters": (lambda: convolutions(affine=False), (20, 3, 6, 6)),
    "batch norm": (convolutions, (20, 3, 6, 6)),
    "12, attention": (Attention, (20, 6, 8)),
    "11, LSTM": (Recurrent, (20, 6, 4)),
}


@pytest.mark.filterwarnings("ignore:spherical sharpness. the loss is not scale-invariant")
@pytest.mark.parametrize("name", NETWORKS)
def test_readings_are_those_of_the_cpu(name, request):
    if "LSTM" in name:  # the fused cell of CUDA has no kernel for a CPU
        request.getfixturevalue("real_card")
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    model, x, y = make(), images(*shape), torch.arange(20) % 3
    model(x)
    options = {"views": ("raw", "spherical"), "rtol": 1e-4, "check": "full"}
    cpu = measure(model, functional.cross_entropy, [(x, y)], **options)
    on_card = measure(model.cuda(), functional.cross_entropy, [(x.cuda(), y.cuda())], **options)
    for view in options["views"]:
        assert on_card[view].value == pytest.approx(cpu[view].value, rel=CLOSE)
        assert on_card[view].check == cpu[view].check


def test_3_the_matrix_of_an_operator_is_computed_on_its_card():
    torch.manual_seed(0)
    model, x, y = (
        nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)),
        images(20, 4),
        torch.arange(20) % 3,
    )

    def matrix(device):
        model.to(device)
        losses = chunk_losses(model, functional.cross_entropy, [(x.to(device), y.to(device))])
        return Hessian(losses, [*model.parameters()]).dense(torch.float64)

    cpu, card = matrix("cpu"), matrix("cuda")
    assert card.is_cuda
    assert torch.allclose(card.cpu(), cpu, rtol=1e-4, atol=1e-6)


def test_5_training_and_measuring_agree_on_constant_channels_as_eps_vanishes():
    experiment = build_experiment(spec(model="bn_cnn", device="cuda", limit=40))
    objective = experiment.objective
    objective._kept.fill_(0.5)  # every channel of every layer is constant
    objective.gradient(0)
    trained = objective.space.gradient()
    assert torch.allclose(
        objective.hessian().gradient(), trained, rtol=1e-4, atol=1e-6 * float(trained.norm())
    )


def test_6_the_memory_of_an_estimate_is_that_of_its_own_card(real_card):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two cards")
    held = [
        torch.zeros(2**20 * megabytes, dtype=torch.uint8, device=f"cuda:{card}")
        for card, megabytes in ((0, 64), (1, 8))
    ]
    assert torch.cuda.current_device() == 0
    for card, tensor in enumerate(held):
        torch.cuda.reset_peak_memory_stats(card)
        assert (
            len(tensor) <= cost._memory(torch.device("cuda", card)) == torch.cuda.max_memory_allocated(card)
        )
    assert cost._memory(torch.device("cuda", 1)) < len(held[0])


def test_7_without_memory_products_are_rebuilt(real_card):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 4096), nn.Tanh(), nn.Linear(4096, 3)).cuda()
    x, y = images(20_000, 64, device="cuda"), torch.arange(20_000, device="cuda") % 3
    losses = chunk_losses(model, functional.cross_entropy, [*zip(x.split(5000), y.split(5000), strict=True)])
    operator = Hessian(losses, [*model.parameters()], "rebuilt")
    v = torch.ones(operator.dim, device="cuda")
    expected = operator @ v
    torch.cuda.empty_cache()
    _, total = torch.cuda.mem_get_info()
    allowed = torch.cuda.memory_allocated() + 2**30
    torch.cuda.set_per_process_memory_fraction(allowed / total)
    try:
        operator = Hessian(losses, [*model.parameters()], "retained")
        assert operator.hvp == "rebuilt"
        assert torch.equal(operator @ v, expected)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_8_two_processes_have_a_card_each(real_card, tmp_path):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two cards")
    options = "run --optimizer gd --limit 40 --ghost-batch 20 --steps 2 --device cuda".split()
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*start, "-m", "optim_family", *options, "--out", str(tmp_path / "two")]
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    train(spec(model="bn_cnn", limit=40, ghost_batch=20, steps=2, device="cuda"), tmp_path / "one")
    assert read_run(tmp_path / "two").provenance["processes"] == 2


@pytest.mark.parametrize("model", ["bn_mlp", "resnet20_narrow"])
def test_1_and_9_an_interrupted_run_is_resumed_bitwise(model, tmp_path, request):
    if model != "bn_mlp":
        request.getfixturevalue("real_card")
    fields = spec(model=model, device="cuda", midpoint=True, limit=20, steps=4, rtol=0.1)
    checks = StopAfter(-1)
    train(fields, tmp_path / "whole", stop=checks)
    with pytest.raises(Stopped):
        train(fields, tmp_path / "parts", stop=StopAfter(-checks.left * 2 // 3))
    train(fields, tmp_path / "parts", resume=True)
    whole, parts = ([untimed(r) for r in read_run(tmp_path / name).records] for name in ("whole", "parts"))
    assert parts == whole
    assert weights_hash(tmp_path / "parts") == weights_hash(tmp_path / "whole")


@pytest.mark.parametrize("model", ["bn_mlp", "resnet20_narrow"])
def test_cuda_graphs_change_no_bit(model, tmp_path, request):
    if model != "bn_mlp":
        request.getfixturevalue("real_card")
    changes = {"limit": 40, "batch_size": 20, "ghost_batch": 10, "steps": 6, "every": 3, "rtol": 0.1}
    fields = spec(model=model, device="cuda", **changes)
    for name, cuda_graphs in (("eager", False), ("graphs", True)):
        train(fields, tmp_path / name, cuda_graphs=cuda_graphs)
    eager, graphs = ([untimed(r) for r in read_run(tmp_path / name).records] for name in ("eager", "graphs"))
    assert read_run(tmp_path / "graphs").provenance["cuda_graphs"] == "on"
    assert graphs == eager
    assert weights_hash(tmp_path / "graphs") == weights_hash(tmp_path / "eager")


def test_10_the_driver_sees_no_wait_in_a_product_or_between_two_readings_of_losses(real_card):
    experiment = build_experiment(spec(model="bn_cnn", device="cuda", limit=40))
    operator = experiment.objective.hessian()
    v = torch.ones(operator.dim, device="cuda")
    operator @ v
    torch.cuda.set_sync_debug_mode("error")
    try:
        operator @ v
        for step in range(5):
            experiment.optimizer_step(step, experiment.objective.gradient(step))
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_2_full_precision_means_no_tf32(real_card):
    a = images(512, 512, device="cuda")
    model = nn.Linear(512, 3, bias=False).cuda()
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        chunks = [(a, torch.zeros(512, 3, device="cuda"))]
        value = measure(model, nn.functional.mse_loss, chunks, views=["raw"], rtol=1e-5)["raw"].value
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
    exact = 2 / (512 * 3) * torch.linalg.eigvalsh(a.double().T @ a.double())[-1]
    assert value == pytest.approx(float(exact), rel=2e-5)
