"""What is measured on the card is what is measured on the CPU."""

import io
import json
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional

from optim_family import Recorder, measure
from optim_family.curvature import hessian as hessian_module
from optim_family.curvature.chunked_loss import chunk_losses
from optim_family.curvature.hessian import Hessian
from optim_family.optimizers.rmsprop import RMSprop
from optim_family.runs.run import read_run
from optim_family.sharpness.spectrum import QUANTITIES, examine
from optim_family.space import ParameterSpace
from optim_family.study import worker
from optim_family.training.experiment import build_experiment
from tests.helpers.cli_runner import optim_family
from tests.helpers.rehearsed_cuda import rehearsed_cuda
from tests.helpers.training_runs import spec, untimed, write_images

X, Y = torch.randn(20, 6, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 3


def network(affine=True):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5, affine=affine), nn.Tanh(), nn.Linear(5, 3))


def on_both(work):
    """The result of work(model, x, y) on the CPU, and of the same on the card."""
    cpu = work(network(), X, Y)
    with rehearsed_cuda():
        return cpu, work(network().cuda(), X.cuda(), Y.cuda())


def stepped(model, x, y):
    optimizer = RMSprop(model.parameters())
    functional.cross_entropy(model(x), y).backward()
    optimizer.step()
    return optimizer


@pytest.mark.filterwarnings("ignore:spherical-preconditioned sharpness. the loss is not scale-invariant")
def test_measure_with_the_two_largest_eigenvalues_in_views_of_two_kinds():
    def work(model, x, y):
        chunks = [(x[:8], y[:8]), (x[8:], y[8:])]
        readings = measure(
            model,
            functional.cross_entropy,
            chunks,
            stepped(model, x, y),
            views=["raw", "spherical-preconditioned"],
            k=2,
            rtol=0.3,
            check="off",
        )
        return {name: (r.top, r.products, r.threshold) for name, r in readings.items()}

    cpu, card = on_both(work)
    assert card == cpu


def test_without_trained_scale_and_with_dropout():
    def work(model, x, y):
        model = nn.Sequential(nn.Dropout(0.2), network(affine=False)).to(x.device)
        return measure(model, functional.cross_entropy, [(x, y)], rtol=0.1)["raw"].products

    cpu, card = on_both(work)  # the random numbers of the card are those of another generator
    assert cpu > 0 < card


def test_density_trace_layers_and_batch_sharpness():
    def work(model, x, y):
        model, x = nn.Linear(2, 3).to(x.device), x[:, :2]
        with torch.no_grad():
            model.weight.copy_(x[:3])
        space, losses = ParameterSpace.of(model), chunk_losses(model, functional.cross_entropy, [(x, y)])
        record = examine(Hessian(losses, space.tensors), space, batches=[losses, losses], rtol=0.3)
        return untimed({**record, "layers": {k: untimed(v) for k, v in record["layers"].items()}})

    torch.manual_seed(0)
    cpu = work(None, X, Y)
    torch.manual_seed(0)
    with rehearsed_cuda():
        card = work(None, X.cuda(), Y.cuda())
    assert json.dumps(card) == json.dumps(cpu) and set(QUANTITIES) < card.keys()


def test_the_matrix_of_an_operator_lies_on_its_device():
    def work(model, x, y):
        losses = chunk_losses(model, functional.cross_entropy, [(x, y)])
        return Hessian(losses, ParameterSpace.of(model).tensors).dense(torch.float32)

    cpu, card = on_both(work)
    assert card.is_cuda and torch.equal(card.numbers, cpu)


def test_recorder(tmp_path):
    def work(model, x, y):
        optimizer = stepped(model, x, y)
        with Recorder(
            model,
            optimizer,
            functional.cross_entropy,
            [(x, y)],
            every=1,
            out=tmp_path / x.device.type,
            rtol=0.3,
        ) as recorder:
            stepped(model, x, y)
            recorder.step()
        return [untimed(record) for record in read_run(tmp_path / x.device.type).records]

    cpu, card = on_both(work)
    assert len(card) == 2 and card == cpu


@pytest.mark.parametrize(
    "message", ["CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED when calling x"]
)
def test_a_product_without_memory_goes_on_with_rebuilt_graphs(message, monkeypatch):
    model = network()
    operator = Hessian(
        chunk_losses(model, functional.cross_entropy, [(X, Y)]), [*model.parameters()], "retained"
    )
    expected, real = operator @ torch.ones(operator.dim), hessian_module.flatten
    failures = [torch.AcceleratorError(message)]

    def flatten(tensors):
        if failures:
            raise failures.pop()
        return real(tensors)

    monkeypatch.setattr(hessian_module, "flatten", flatten)
    assert torch.equal(operator @ torch.ones(operator.dim), expected)
    assert operator.hvp == "rebuilt" and not failures


def test_the_command_line(images, tmp_path, capsys):
    options = ("--data", images, "--model", "bn_mlp", "--rtol", "0.3", "--json")
    train = ("run", "--optimizer", "gd", "--steps", "1", "--limit", "40", *options)
    answers = {}
    for device in ("cpu", "auto"):
        with rehearsed_cuda():
            run = optim_family(capsys, *train, "--device", device, "--out", tmp_path / device)
            measured = optim_family(capsys, "measure", *options, "--device", device)
        assert (run.code, measured.code) == (0, 0), run.err + measured.err
        views = json.loads(measured.out)["views"]
        answers[device] = (
            [untimed(r) for r in read_run(tmp_path / device).records],
            untimed(views["spherical"]),
        )
    assert read_run(tmp_path / "auto").spec["device"] == "cuda"
    assert answers["auto"] == answers["cpu"]


def test_the_worker_of_a_study(images, tmp_path, monkeypatch):
    fields = spec(data=images, limit=None, steps=1, rtol=0.3, device="auto")
    monkeypatch.setattr(sys, "stdin", io.StringIO(fields.model_dump_json() + "\n"))
    monkeypatch.setattr(worker, "stop_when_orphaned", lambda: None)
    with rehearsed_cuda():
        assert worker.main(tmp_path / "run") == 0
    assert read_run(tmp_path / "run").status["status"] == "done"
    assert read_run(tmp_path / "run").spec["device"] == "cuda"


CARDS = ("bn_cnn", "resnet20_narrow", "test_resnet", "mobilenetv2_035", "densenet_tiny", "timm:test_vit")


@pytest.mark.parametrize("card", CARDS)
def test_networks(card, tmp_path, same_layout):
    data = write_images(tmp_path / "images.npz", 16 if "vit" in card else 8)
    fields = spec(model=card, data=data, limit=None, ghost_batch=20)

    def work(device):
        experiment = build_experiment(
            fields.model_copy(update={"device": device}), memory_format="contiguous"
        )
        objective = experiment.objective
        loss = objective.gradient(0)
        direction = objective.space.gradient()
        return [t.cpu() for t in (loss, direction, objective.hessian() @ direction)], objective.evaluate()

    cpu = work("cpu")
    with rehearsed_cuda():
        card_results = work("cuda")
    assert all(map(torch.equal, card_results[0], cpu[0]))
    assert card_results[1] == cpu[1]
