"""How often the host waits for the card, and where: `pytest -s tests/test_rehearsal.py` prints the table."""

import pytest
import torch
from timm.optim.lamb import Lamb
from torch import nn
from torch.nn import functional

from optim_family.curvature.chunked_loss import chunk_losses
from optim_family.curvature.hessian import Hessian
from optim_family.optimizers.adamw import AdamW
from optim_family.optimizers.external.inferred_geometry import geometry_of
from optim_family.optimizers.rmsprop import RMSprop
from optim_family.sharpness.probe_set import ProbeSet
from optim_family.sharpness.views import VIEWS
from optim_family.space import ParameterSpace
from optim_family.training.experiment import build_experiment
from optim_family.training.loop import Trainer
from optim_family.training.progress import ProgressListener
from optim_family.training.stop_signal import StopSignal
from tests.helpers.rehearsed_cuda import rehearsed_cuda
from tests.helpers.rehearsed_tensor import count_waits
from tests.helpers.training_runs import spec


@pytest.fixture(autouse=True)
def card():
    with rehearsed_cuda():
        yield


@pytest.fixture
def trainer(images, tmp_path, request):
    fields = spec(
        "rmsprop",
        data=images,
        limit=None,
        device="cuda",
        every=10**6,
        ghost_batch=20,
        **({"steps": 10**6} | request.param),
    )
    made = Trainer(build_experiment(fields), tmp_path, None, ProgressListener(), StopSignal())
    made.state.recorded = 0
    return made


def report(name, waits, most):
    print(f"\n{name}: {waits.total} waits, at most {most}\n{waits}")
    assert waits.total <= most, str(waits)


@pytest.mark.parametrize(
    ("trainer", "name"),
    [({}, "ten steps, full batch"), ({"batch_size": 20}, "ten steps, mini-batches")],
    indirect=["trainer"],
)
def test_a_step(trainer, name):
    with count_waits() as waits:
        for _ in range(10):
            trainer.step()
    report(name, waits, 1)


@pytest.mark.parametrize(
    ("trainer", "most"),
    [
        ({"schedule": "effective", "steps": 100}, 11),
        ({"schedule": "growth:decay=0.1", "steps": 100, "hyper": {"lr": 0.02, "weight_decay": 0.0}}, 1),
    ],
    indirect=["trainer"],
)
def test_a_step_with_a_schedule(trainer, most):
    with count_waits() as waits:
        for _ in range(10):
            trainer.step()
    report(f"ten steps, {trainer.spec.schedule}", waits, most)


@pytest.mark.parametrize("trainer", [{}], indirect=True)
def test_an_evaluation(trainer):
    with count_waits() as waits:
        trainer.objective.evaluate()
    report("evaluation", waits, 2)


@pytest.fixture
def loss():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)).cuda()
    x, y = torch.randn(20, 6).cuda(), (torch.arange(20) % 3).cuda()
    functional.cross_entropy(model(x), y).backward()
    return model, chunk_losses(model, functional.cross_entropy, [(x[:10], y[:10]), (x[10:], y[10:])])


@pytest.mark.parametrize("mode", ["retained", "rebuilt"])
def test_a_product(loss, mode):
    model, chunks = loss
    operator = Hessian(chunks, [*model.parameters()], mode)
    v = torch.ones(operator.dim, device="cuda")
    operator @ v
    with count_waits() as waits:
        operator @ v
    report(f"product, {mode}", waits, 0)


def test_a_reading(loss):
    model, chunks = loss
    space = ParameterSpace.of(model)
    optimizer = RMSprop(model.parameters())
    with count_waits() as waits:
        operator = Hessian(chunks, space.tensors, "retained")
    report("gradient with its graph", waits, 1)
    geometry, products = optimizer.geometry(), {}
    for views in (["raw"], ["riemannian"], ["spherical-preconditioned"], [*VIEWS]):
        probes = ProbeSet(views, rtol=0.1)
        with count_waits() as waits:
            readings = probes(operator, space.weights(), geometry)
        products = {VIEWS[name].kind: reading.products for name, reading in readings.items()}
        report(f"reading of {' '.join(views)}", waits, sum(products.values()) + 2 * len(products))


GEOMETRIES = (
    *((kind, {}) for kind in (RMSprop, AdamW, torch.optim.Adam, torch.optim.SGD, torch.optim.RMSprop)),
    (torch.optim.AdamW, {"capturable": True}),  # counts its steps on the card
    *((Lamb, {"decoupled_decay": decoupled}) for decoupled in (False, True)),
)


@pytest.mark.filterwarnings("ignore:This instance was constructed with capturable=True")
@pytest.mark.parametrize(("kind", "options"), GEOMETRIES)
def test_a_geometry(loss, kind, options):
    optimizer = kind(loss[0].parameters(), lr=1e-3, weight_decay=1e-3, **options)
    optimizer.step()
    with count_waits() as waits:
        geometry_of(optimizer)
    report(f"geometry of {kind.__module__}.{kind.__name__} {options or ''}", waits, 2)
