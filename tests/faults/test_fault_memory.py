"""No memory, while training and while measuring: bytes and a way out in one line, and the store intact."""

import resource

import pytest
import torch

from optim_family.curvature.hessian import Hessian
from optim_family.optimizers.gd import GD
from optim_family.training.loop import train
from optim_family.training.objective import Objective
from tests.helpers.cli_runner import optim_family
from tests.helpers.subprocesses import ended, result, spec, start, work

COMMAND = ("run", "--optimizer", "gd", "--model", "bn_mlp", "--limit", 20, "--steps", 4, "--every", 2)
OPTIONS = ("--device", "cpu", "--rtol", 0.01, "--resume", "--hvp", "rebuilt")


def cpu():
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096000000 bytes.")


def gpu():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB.")


# Who runs out of memory, at which of its calls, and how.
KINDS = {
    "a step's gradient": (Objective, "gradient", 3, cpu),
    "an optimizer's step": (GD, "update", 5, gpu),
    "a product": (Hessian, "_product", 4, cpu),
    "a product on a GPU": (Hessian, "_product", 12, gpu),
    "the evaluation": (Objective, "evaluate", 2, gpu),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("memory") / "run"
    train(spec(steps=4, hvp="rebuilt", hyper=HYPER), folder)
    return result(folder)


HYPER = {"lr": 0.3, "weight_decay": 1e-2, "momentum": 0.0}
RATES = ("--lr", 0.3, "--weight-decay", 0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_without_memory_the_bytes_are_said_and_the_run_can_go_on(
    tmp_path, capsys, monkeypatch, whole, held, kind
):
    owner, name, nth, fail = KINDS[kind]
    real, left = getattr(owner, name), [nth]

    def failing(*args, **options):
        left[0] -= 1
        return real(*args, **options) if left[0] else fail()

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, failing)
        answer = optim_family(capsys, *COMMAND, *OPTIONS, *RATES, "--out", tmp_path / "run")
    assert answer.code == 1 and not answer.out
    line = answer.err.splitlines()[-1]
    assert ("4096000000 bytes" if fail is cpu else "2.50 GiB") in line and "--ghost-batch" in line
    assert optim_family(capsys, *COMMAND, *OPTIONS, *RATES, "--out", tmp_path / "run").code == 0
    assert result(tmp_path / "run") == whole
    held("out of memory in training and in a reading", of=5)


def test_a_process_that_really_has_no_memory_left_says_so(tmp_path):
    process = start(
        starved, spec(limit=1437, model="resnet18", ghost_batch=479).model_dump_json(), str(tmp_path / "run")
    )
    assert ended(process) == 1 and not (tmp_path / "run").exists()


def starved(tell, stop, text, folder):
    """Little more than what is taken already, which suffices for the weights and not for the activations."""
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (resident + 2**28, resident + 2**28))
    work(tell, stop, text, folder, 60.0)
